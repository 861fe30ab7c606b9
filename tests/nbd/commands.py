#!/usr/bin/python3
"""Every NBD command in every reply style, and what is refused. Usage: commands.py SOCKET EXPORT

Needs an export of at least 16 MiB. A refused command leaves the connection and the content as they were.
"""

import struct
import sys

import nbd

import wire
from wire import Client

STYLES = ({}, {"structured": True}, {"extended": True})
BASE = "base:allocation"


def connected(path, export, style=None, context=None):
    client = Client(path)
    client.negotiate(**(style or {}))
    client.size, client.flags = client.go(export, context)
    return client


def pattern(seed, length):
    return (struct.pack(">Q", seed * 0x9E3779B97F4A7C15 % (1 << 64)) * (length // 8 + 1))[:length]


def what_was_written_is_read_in_every_style(path, export):
    for seed, style in enumerate(STYLES, 1):
        with connected(path, export, style) as client:
            for offset, length in ((0, 4096), (4096, 512), (8192 + 512, 512), (12288, 1 << 20), (3 << 20, 1 << 22)):
                data = pattern(seed + offset, length)
                flags = wire.PAYLOAD_LEN if client.extended else 0
                assert client.errno_of(wire.WRITE, offset, length, flags, data) == 0
                assert client.read(offset, length) == data, (style, offset, length)


def single_bytes_leave_their_neighbours(path, export):
    with connected(path, export) as client:
        assert client.errno_of(wire.WRITE, 0, 8192, payload=pattern(7, 8192)) == 0
        for offset in (0, 1, 4095, 4096, 8191):
            assert client.errno_of(wire.WRITE, offset, 1, payload=b"!") == 0
        assert client.errno_of(wire.WRITE, 4094, 4, payload=b"<-->") == 0
        expected = bytearray(pattern(7, 8192))
        for offset in (0, 1, 8191):
            expected[offset:offset + 1] = b"!"
        expected[4094:4098] = b"<-->"
        assert client.read(0, 8192) == bytes(expected)
        assert client.read(4093, 7) == bytes(expected[4093:4100])


def fua_and_flush_are_answered(path, export):
    for style in STYLES:
        with connected(path, export, style) as client:
            flags = wire.FUA | (wire.PAYLOAD_LEN if client.extended else 0)
            assert client.errno_of(wire.WRITE, 0, 4096, flags, bytes(4096)) == 0
            assert client.errno_of(wire.FLUSH) == 0
            assert client.errno_of(wire.TRIM, 0, 4096, wire.FUA) == 0
            assert client.errno_of(wire.WRITE_ZEROES, 0, 4096, wire.FUA) == 0


def trimmed_and_zeroed_ranges_read_as_zeros(path, export):
    """P5."""
    for style in STYLES:
        for command, flags in ((wire.TRIM, 0), (wire.WRITE_ZEROES, 0), (wire.WRITE_ZEROES, wire.NO_HOLE)):
            with connected(path, export, style) as client:
                payload_flag = wire.PAYLOAD_LEN if client.extended else 0
                data = pattern(9, 65536)
                assert client.errno_of(wire.WRITE, 0, 65536, payload_flag, data) == 0
                assert client.errno_of(command, 8192, 16384, flags) == 0
                if command == wire.WRITE_ZEROES:
                    assert client.errno_of(command, 40000, 1000, flags) == 0
                    data = data[:40000] + bytes(1000) + data[41000:]
                assert client.read(0, 65536) == data[:8192] + bytes(16384) + data[24576:]


def zeroes_of_the_whole_export_are_one_request(path, export):
    with connected(path, export, {"extended": True}) as client:
        assert client.errno_of(wire.WRITE, 0, 4096, wire.PAYLOAD_LEN, pattern(3, 4096)) == 0
        assert client.errno_of(wire.WRITE_ZEROES, 0, client.size) == 0
        assert client.read(0, 4096) == bytes(4096)
        assert client.errno_of(wire.TRIM, 0, client.size) == 0


def a_fast_zero_is_done_or_refused_as_unsupported(path, export):
    with connected(path, export) as client:
        assert client.flags & 1 << 11
        assert client.errno_of(wire.WRITE_ZEROES, 0, 4096, wire.FAST_ZERO) in (0, wire.ENOTSUP)
        kept = wire.FAST_ZERO | wire.NO_HOLE
        assert client.errno_of(wire.WRITE_ZEROES, 0, 4096, kept) in (0, wire.ENOTSUP)


def cache_is_answered_and_changes_nothing(path, export):
    with connected(path, export) as client:
        before = client.read(0, 65536)
        assert client.errno_of(wire.CACHE, 0, 65536) == 0
        assert client.read(0, 65536) == before


def a_read_with_df_comes_in_one_chunk(path, export):
    for style in STYLES[1:]:
        with connected(path, export, style) as client:
            assert client.flags & 1 << 7
            flags = wire.PAYLOAD_LEN if client.extended else 0
            assert client.errno_of(wire.WRITE, 0, 4096, flags, pattern(5, 4096)) == 0
            assert client.errno_of(wire.TRIM, 4096, 4096) == 0
            client.request(wire.READ, 0, 65536, wire.DF)
            _, errno, chunks = client.reply()
            content = [kind for kind, _ in chunks if kind != wire.CHUNK_NONE]
            assert errno == 0 and len(content) == 1, (errno, content)


def block_status_tells_data_from_holes(path, export):
    for style in STYLES[1:]:
        with connected(path, export, style, BASE) as client:
            flags = wire.PAYLOAD_LEN if client.extended else 0
            assert client.errno_of(wire.TRIM, 0, 1 << 20) == 0
            assert client.errno_of(wire.WRITE, 65536, 65536, flags, pattern(2, 65536)) == 0
            client.request(wire.BLOCK_STATUS, 0, 1 << 20)
            _, errno, chunks = client.reply()
            assert errno == 0, errno
            extents = extents_of(chunks, client.extended)
            assert extents[0] == (65536, 3) and extents[1] == (65536, 0) and extents[2][1] == 3, extents
            client.request(wire.BLOCK_STATUS, 0, 1 << 20, wire.REQ_ONE)
            _, errno, chunks = client.reply()
            assert errno == 0 and extents_of(chunks, client.extended) == [(65536, 3)]


def extents_of(chunks, extended):
    """(length, state) of each extent of the one context."""
    kind, body = [chunk for chunk in chunks if chunk[0] != wire.CHUNK_NONE][0]
    if extended:
        assert kind == wire.CHUNK_STATUS_EXT, kind
        count = struct.unpack(">I", body[4:8])[0]
        body = body[8:]
        assert len(body) == 16 * count
        return [struct.unpack(">QQ", body[at:at + 16]) for at in range(0, len(body), 16)]
    assert kind == wire.CHUNK_STATUS, kind
    return [struct.unpack(">II", body[at:at + 8]) for at in range(4, len(body), 8)]


def requests_beyond_the_end_get_their_errno_and_the_connection_lives(path, export):
    for style in STYLES:
        with connected(path, export, style) as client:
            payload_flag = wire.PAYLOAD_LEN if client.extended else 0
            for offset in (client.size - 2048, client.size, client.size + 4096, (1 << 63) - 2048, (1 << 64) - 4096):
                assert client.errno_of(wire.READ, offset, 4096) == wire.EINVAL, offset
                assert client.errno_of(wire.WRITE, offset, 4096, payload_flag, bytes(4096)) == wire.ENOSPC, offset
                assert client.errno_of(wire.WRITE_ZEROES, offset, 4096) == wire.ENOSPC, offset
                assert client.errno_of(wire.TRIM, offset, 4096) == wire.EINVAL, offset
                assert client.errno_of(wire.CACHE, offset, 4096) == wire.EINVAL, offset
            assert len(client.read(client.size - 4096, 4096)) == 4096


def unknown_commands_and_flags_are_refused_and_the_connection_lives(path, export):
    for style in STYLES:
        with connected(path, export, style) as client:
            for command in (8, 9, 255, 65535):
                assert client.errno_of(command, 0, 4096) == wire.EINVAL, command
            for command in (wire.READ, wire.TRIM, wire.WRITE_ZEROES, wire.CACHE):
                assert client.errno_of(command, 0, 4096, 1 << 14) == wire.EINVAL, command
            assert client.errno_of(wire.READ, 0, 4096, wire.NO_HOLE) == wire.EINVAL
            assert client.errno_of(wire.FLUSH, 4096, 4096) in (0, wire.EINVAL)
            assert len(client.read(0, 4096)) == 4096


def df_and_block_status_without_negotiation_are_refused(path, export):
    with connected(path, export) as client:
        assert client.errno_of(wire.READ, 0, 4096, wire.DF) == wire.EINVAL
        assert client.errno_of(wire.BLOCK_STATUS, 0, 4096) == wire.EINVAL
        assert len(client.read(0, 512)) == 512


def a_refused_write_has_its_payload_thrown_away(path, export):
    with connected(path, export) as client:
        # What follows would be read as requests, were the payload not skipped.
        assert client.errno_of(wire.WRITE, client.size, 65536, payload=b"\x25\x60\x95\x13" * 16384) == wire.ENOSPC
        assert client.errno_of(wire.WRITE, 0, 4096, 1 << 14, b"\x25\x60\x95\x13" * 1024) == wire.EINVAL
        assert len(client.read(0, 4096)) == 4096


def an_overlong_read_is_refused_and_an_overlong_write_ends_the_connection(path, export):
    with connected(path, export) as client:
        assert client.errno_of(wire.READ, 0, 0xFFFFFFFF) in (wire.EINVAL, wire.EOVERFLOW)
        assert len(client.read(0, 512)) == 512
        client.request(wire.WRITE, 0, 0xFFFFFFFF)
        try:
            assert client.reply()[1] == wire.EINVAL
            assert client.is_closed()
        except wire.Closed:
            pass


def a_wrong_request_magic_ends_the_connection(path, export):
    for style in STYLES:
        with connected(path, export, style) as client:
            client.request(wire.READ, 0, 512, magic=0x12345678)
            assert client.is_closed()


def a_farewell_is_heeded_after_what_was_asked_before(path, export):
    with connected(path, export) as client:
        for number in range(64):
            client.request(wire.WRITE, number * 4096, 4096, payload=pattern(number, 4096))
        client.request(wire.DISC)
        assert sorted(client.reply()[0] for _ in range(64)) == list(range(1, 65))
        assert client.is_closed()


def answers_may_come_in_any_order_but_bear_their_cookies(path, export):
    with connected(path, export, {"structured": True}) as client:
        asked = {client.request(wire.READ, number * 65536, 65536) for number in range(32)}
        assert {client.reply()[0] for _ in range(32)} == asked


def a_flush_on_one_connection_is_answered_while_others_write(path, export):
    with connected(path, export) as one, connected(path, export) as other:
        assert one.flags & 1 << 8, "multi-conn is not offered"
        for number in range(16):
            one.request(wire.WRITE, number * 4096, 4096, payload=pattern(number, 4096))
        assert other.errno_of(wire.FLUSH) == 0
        for _ in range(16):
            assert one.reply()[1] == 0
        assert other.read(15 * 4096, 4096) == pattern(15, 4096)


def libnbd_agrees_with_every_command(path, export):
    handle = nbd.NBD()
    handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    handle.set_export_name(export)
    handle.connect_unix(path)
    data = pattern(11, 1 << 20)
    handle.pwrite(data, 0, nbd.CMD_FLAG_FUA)
    handle.flush()
    assert handle.pread(1 << 20, 0) == data
    handle.cache(1 << 20, 0)
    handle.trim(65536, 65536)
    handle.zero(65536, 262144, nbd.CMD_FLAG_NO_HOLE)
    expected = data[:65536] + bytes(65536) + data[131072:262144] + bytes(65536) + data[327680:]
    pieces = []
    got = handle.pread_structured(1 << 20, 0, lambda piece, offset, kind, _error: pieces.append((offset, kind)) or 0)
    assert bytes(got) == expected and pieces
    states = []
    handle.block_status(1 << 20, 0, lambda context, offset, entries, _error: states.append((context, entries)) or 0)
    assert states[0][0] == BASE and sum(states[0][1][::2]) >= 262144, states
    handle.set_strict_mode(0)
    for refused in (lambda: handle.pread(512, handle.get_size()), lambda: handle.pwrite(b"x" * 512, handle.get_size()),
                    lambda: handle.pread(512, 0, 1 << 13), lambda: handle.trim(512, handle.get_size())):
        try:
            refused()
            raise AssertionError("an illegal request was carried out")
        except nbd.Error as error:
            assert error.errno in ("EINVAL", "ENOSPC"), error
    assert bytes(handle.pread(1 << 20, 0)) == expected
    handle.shutdown()


if __name__ == "__main__":
    wire.run_all(sys.modules[__name__], *sys.argv[1:])
