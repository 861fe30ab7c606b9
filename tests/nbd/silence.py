#!/usr/bin/python3
"""Opens many connections that say nothing more, and holds them until its stdin ends.

    silence.py SOCKET EXPORT COUNT STAGE

STAGE is `greeting` (say nothing at all), `option` (stop in the middle of an option) or `request` (enter the transmission
phase and announce a write of 1 MiB that never comes). Prints `holding N`, the number of connections still open.
"""

import resource
import struct
import sys

import wire


def main():
    path, export, count, stage = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, count + 100), most))
    clients = []
    for _ in range(count):
        # A server may turn away those above its limit.
        try:
            clients.append(opened(path, export, stage))
        except (wire.Closed, OSError):
            pass
    print(f"holding {len(clients)}", flush=True)
    sys.stdin.read()


def opened(path, export, stage):
    client = wire.Client(path, handshake=stage != "greeting")
    if stage == "option":
        client.send(wire.OPTION_MAGIC + struct.pack(">II", wire.GO, 60000) + b"half")
    if stage == "request":
        client.go(export)
        client.request(wire.WRITE, 0, 1 << 20, payload=b"half")
    return client


if __name__ == "__main__":
    main()
