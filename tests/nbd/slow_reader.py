#!/usr/bin/python3
"""Asks for much and takes nothing: many connections that request reads and never look at the answers.

    slow_reader.py SOCKET EXPORT CONNECTIONS REQUESTS

Prints `asked N` once every request that the server takes has been sent, and holds on until its stdin ends.
"""

import sys

import wire

READ_BYTES = 1 << 20


def main():
    path, export, connections, requests = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    clients, asked = [], 0
    for _ in range(connections):
        client = wire.Client(path)
        client.go(export)
        client.socket.settimeout(0.5)
        clients.append(client)
        try:
            for _ in range(requests):
                client.request(wire.READ, 0, READ_BYTES)
                asked += 1
        except (TimeoutError, BlockingIOError):
            # The server stopped reading this connection, as it should.
            pass
    print(f"asked {asked}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
