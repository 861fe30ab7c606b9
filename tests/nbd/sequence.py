#!/usr/bin/python3
"""Writes numbers one after the other to volumes in turn, each only when the one before is acknowledged; checks copies.

    sequence.py write URI... --ready FILE     until its stdin ends; FILE is there once writing has begun
    sequence.py check FILE...                 the copies hold the numbers 1 to some K, as written, and nothing else; prints K

Number N goes to volume N modulo their count, there to block N modulo BLOCKS. So whatever moment the copies show, each
block tells which number it must hold once the highest is known.
"""

import os
import select
import struct
import sys

import nbd

BLOCK = 4096
BLOCKS = 509


def content(number):
    return struct.pack("<Q", number) * (BLOCK // 8)


def write(uris, ready):
    connections = []
    for uri in uris:
        connection = nbd.NBD()
        connection.connect_uri(uri)
        connections.append(connection)
    number = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        number += 1
        connection = connections[number % len(connections)]
        connection.pwrite(content(number), number % BLOCKS * BLOCK)
        if number == 2000:
            with open(ready, "w", encoding="ascii") as file:
                file.write("ready")
    for connection in connections:
        connection.shutdown()


def check(paths):
    found = {}
    for which, path in enumerate(paths):
        with open(path, "rb") as file:
            for block in range(BLOCKS):
                data = file.read(BLOCK)
                number = struct.unpack("<Q", data[:8])[0]
                if data != content(number):
                    sys.exit(f"{path}: block {block} is torn")
                found[which, block] = number
    last = max(found.values())
    count = len(paths)
    expected = {place: 0 for place in found}
    for number in range(max(1, last - BLOCKS * count), last + 1):
        expected[number % count, number % BLOCKS] = number
    wrong = {place: (found[place], expected[place]) for place in found if found[place] != expected[place]}
    if wrong:
        sys.exit(f"the highest is {last}, and these are not what was written: {dict(list(wrong.items())[:5])}")
    print(last)


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(sys.argv[2:-2], sys.argv[-1])
    else:
        check(sys.argv[2:])
