"""A raw NBD client: says on the wire what a test asks it to, legal or not. NBD proto.md gives the numbers."""

import inspect
import socket
import struct
import sys
import traceback

OPTION_MAGIC = b"IHAVEOPT"
OPTION_REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC, EXTENDED_REQUEST_MAGIC = 0x25609513, 0x21E41C71
SIMPLE_REPLY_MAGIC, CHUNK_MAGIC, EXTENDED_CHUNK_MAGIC = 0x67446698, 0x668E33EF, 0x6E8A278C

EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, STRUCTURED_REPLY, LIST_META, SET_META, EXTENDED_HEADERS = (
    1, 2, 3, 5, 6, 7, 8, 9, 10, 11)
ACK, SERVER, REPLY_INFO, META_CONTEXT = 1, 2, 3, 4
ERR_UNSUP, ERR_POLICY, ERR_INVALID, ERR_TLS_REQD, ERR_UNKNOWN, ERR_TOO_BIG, ERR_EXT_HEADER_REQD = (
    (1 << 31) + number for number in (1, 2, 3, 5, 6, 9, 10))
INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = 0, 1, 2, 3

READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN = (1 << bit for bit in range(6))
EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN = 1, 5, 12, 22, 28, 75, 95, 108
CHUNK_NONE, CHUNK_DATA, CHUNK_HOLE, CHUNK_STATUS, CHUNK_STATUS_EXT = 0, 1, 2, 5, 6
CHUNK_DONE = 1
PATIENCE_SECONDS = 30


class Closed(Exception):
    """The server closed the connection."""


class Client:
    """One connection. `handshake` false leaves even the client's flags to the test."""

    def __init__(self, path, handshake=True, client_flags=3):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE_SECONDS)
        self.socket.connect(path)
        self.extended = False
        self.structured = False
        self.cookie = 0
        magic, magic2, self.server_flags = struct.unpack(">8s8sH", self.take(18))
        assert (magic, magic2) == (b"NBDMAGIC", b"IHAVEOPT")
        if handshake:
            self.send(struct.pack(">I", client_flags))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            raise Closed from None

    def take(self, count):
        data = b""
        while len(data) < count:
            try:
                piece = self.socket.recv(count - len(data))
            except ConnectionResetError:
                piece = b""
            if not piece:
                raise Closed
            data += piece
        return data

    def is_closed(self):
        """Whether the server closes without another word."""
        try:
            self.take(1)
        except Closed:
            return True
        return False

    def say(self, option, data=b"", length=None):
        self.send(OPTION_MAGIC + struct.pack(">II", option, len(data) if length is None else length) + data)

    def answer(self, option):
        magic, to, kind, length = struct.unpack(">QIII", self.take(20))
        assert magic == OPTION_REPLY_MAGIC, hex(magic)
        assert to == option, f"the answer is to option {to}, not {option}"
        assert length <= 65536, length
        return kind, self.take(length)

    def ask(self, option, data=b""):
        """Says an option and collects its answers up to the final one: (kind, data) each."""
        self.say(option, data)
        answers = [self.answer(option)]
        while answers[-1][0] not in (ACK,) and not answers[-1][0] >> 31:
            answers.append(self.answer(option))
        return answers

    def kind_of(self, option, data=b""):
        """The final answer's kind."""
        return self.ask(option, data)[-1][0]

    def negotiate(self, structured=False, extended=False):
        if structured:
            assert self.kind_of(STRUCTURED_REPLY) == ACK
            self.structured = True
        if extended:
            assert self.kind_of(EXTENDED_HEADERS) == ACK
            self.extended = True

    def go(self, export, context=None):
        """Selects a metadata context if asked to and enters the transmission phase; returns size and flags."""
        if context:
            answers = self.ask(SET_META, named(export, [context]))
            assert [kind for kind, _ in answers] == [META_CONTEXT, ACK], answers
        answers = self.ask(GO, information(export))
        assert answers[-1][0] == ACK, answers
        export_info = [data for kind, data in answers if kind == REPLY_INFO and data[:2] == b"\0\0"]
        return struct.unpack(">xxQH", export_info[0])

    def request(self, command, offset=0, length=0, flags=0, payload=b"", magic=None):
        """Sends a request and returns its cookie."""
        self.cookie += 1
        magic = magic or (EXTENDED_REQUEST_MAGIC if self.extended else REQUEST_MAGIC)
        form = ">IHHQQQ" if self.extended else ">IHHQQI"
        self.send(struct.pack(form, magic, flags, command, self.cookie, offset, length) + payload)
        return self.cookie

    def reply(self, read_bytes=0):
        """Takes one whole reply: (cookie, errno, chunks); a simple reply to a read has one data chunk."""
        if not self.structured and not self.extended:
            magic, errno, cookie = struct.unpack(">IIQ", self.take(16))
            assert magic == SIMPLE_REPLY_MAGIC, hex(magic)
            data = self.take(read_bytes) if read_bytes and not errno else b""
            return cookie, errno, [(CHUNK_DATA, data)] if data else []
        chunks, errno = [], 0
        while True:
            flags, kind, cookie, length = self.chunk_header()
            body = self.take(length)
            if kind >> 15:
                errno = struct.unpack(">I", body[:4])[0]
            else:
                chunks.append((kind, body))
            if flags & CHUNK_DONE:
                return cookie, errno, chunks

    def chunk_header(self):
        if self.extended:
            magic, flags, kind, cookie, _offset, length = struct.unpack(">IHHQQQ", self.take(32))
            assert magic == EXTENDED_CHUNK_MAGIC, hex(magic)
            return flags, kind, cookie, length
        magic = struct.unpack(">I", self.take(4))[0]
        if magic == SIMPLE_REPLY_MAGIC:
            errno, cookie = struct.unpack(">IQ", self.take(12))
            # A simple reply is allowed to anything but a read even then; it is one chunk for us.
            return CHUNK_DONE, (1 << 15) if errno else CHUNK_NONE, cookie, 0
        assert magic == CHUNK_MAGIC, hex(magic)
        return struct.unpack(">HHQI", self.take(16))

    def errno_of(self, command, offset=0, length=0, flags=0, payload=b"", read_bytes=0):
        cookie = self.request(command, offset, length, flags, payload)
        answered, errno, _ = self.reply(read_bytes)
        assert answered == cookie
        return errno

    def read(self, offset, length, flags=0):
        """Reads and puts the chunks together."""
        cookie = self.request(READ, offset, length, flags)
        answered, errno, chunks = self.reply(length)
        assert (answered, errno) == (cookie, 0), (answered, errno)
        if not self.structured and not self.extended:
            return chunks[0][1]
        data, covered = bytearray(length), 0
        for kind, body in chunks:
            if kind == CHUNK_NONE:
                continue
            at = struct.unpack(">Q", body[:8])[0] - offset
            if kind == CHUNK_DATA:
                data[at:at + len(body) - 8] = body[8:]
                covered += len(body) - 8
            else:
                assert kind == CHUNK_HOLE, kind
                covered += struct.unpack(">I", body[8:12])[0]
        assert covered == length, f"{covered} of {length} bytes"
        return bytes(data)


def text(name):
    data = name.encode()
    return struct.pack(">I", len(data)) + data


def information(export, wanted=()):
    """The data of INFO and GO."""
    return text(export) + struct.pack(">H", len(wanted)) + b"".join(struct.pack(">H", item) for item in wanted)


def named(export, queries):
    """The data of LIST_META and SET_META."""
    return text(export) + struct.pack(">I", len(queries)) + b"".join(text(query) for query in queries)


def run_all(module, path, export):
    """Runs every function of `module` whose parameters are (path, export); its name says what it shows."""
    failed = 0
    for name, function in inspect.getmembers(module, inspect.isfunction):
        if function.__module__ != module.__name__ or list(inspect.signature(function).parameters) != ["path", "export"]:
            continue
        try:
            function(path, export)
            print(f"ok      {name}")
        except Exception:  # whatever it is, the next test is run and this one is told of
            failed += 1
            print(f"FAILED  {name}\n{traceback.format_exc()}")
    sys.exit(1 if failed else 0)
