#!/usr/bin/python3
"""Bytes that mean nothing, at every stage of a connection. Usage: garbage.py SOCKET EXPORT

Whatever the server answers, it must not hang on to a connection that ended, nor die; who runs this looks at that.
"""

import random
import struct
import sys

import wire

ROUNDS = 300


def main():
    path, export = sys.argv[1], sys.argv[2]
    source = random.Random(1)
    for number in range(ROUNDS):
        random_bytes(path, source, client_flags_said=number % 2 == 0)
        random_options(path, source)
        random_requests(path, export, source)
    handshake = struct.pack(">I", 3) + wire.OPTION_MAGIC + struct.pack(">II", wire.GO, 8 + len(export)) + (
        wire.text(export) + struct.pack(">HH", 1, 3)) + struct.pack(">IHHQQI", wire.REQUEST_MAGIC, 0, 1, 1, 0, 4096)
    for length in range(len(handshake) + 1):
        truncated(path, handshake[:length])
    print("said it all")


def random_bytes(path, source, client_flags_said):
    with wire.Client(path, handshake=client_flags_said) as client:
        send_and_forget(client, source.randbytes(source.randrange(1, 5000)))


def random_options(path, source):
    """Options with the right magic and everything else at random."""
    with wire.Client(path) as client:
        for _ in range(20):
            data = source.randbytes(source.randrange(200))
            length = len(data) if source.random() < 0.8 else source.getrandbits(32)
            option = source.choice([1, 3, 5, 6, 7, 8, 9, 10, 11, source.getrandbits(32)])
            if not send_and_forget(client, wire.OPTION_MAGIC + struct.pack(">II", option, length) + data):
                return


def random_requests(path, export, source):
    """Requests with the right magic and everything else at random, on each form of header."""
    with wire.Client(path) as client:
        client.negotiate(extended=source.random() < 0.5)
        client.go(export)
        for _ in range(20):
            length = source.choice([0, 1, 512, 4096, 1 << 20, (1 << 32) - 1, source.getrandbits(32)])
            offset = source.choice([0, 4096, (1 << 63) - 1, (1 << 64) - 1, source.getrandbits(64)])
            # No write or trim that could be legal: the content is another test's.
            command = source.choice([0, 3, 5, 7, 8, source.getrandbits(16) | 16])
            try:
                client.request(command, offset, length, source.getrandbits(16), source.randbytes(source.randrange(64)))
            except (wire.Closed, TimeoutError):
                return


def truncated(path, data):
    with wire.Client(path, handshake=False) as client:
        send_and_forget(client, data)


def send_and_forget(client, data):
    """Whether the server still takes bytes."""
    client.socket.settimeout(2)
    try:
        client.send(data)
        return True
    except (wire.Closed, TimeoutError):
        return False


if __name__ == "__main__":
    main()
