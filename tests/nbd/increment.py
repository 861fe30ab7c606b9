#!/usr/bin/python3
"""An incremental backup, as backup programs make it.

    increment.py ranges URI NAME     prints what has changed since the snapshot NAME: a JSON list of [offset, length]
    increment.py apply URI FILE      makes FILE as large as the export, and copies what such a list on stdin names
"""

import json
import os
import sys

import nbd

PIECE = 1 << 20


def connect(uri, context=None):
    connection = nbd.NBD()
    if context:
        connection.add_meta_context(context)
    connection.connect_uri(uri)
    return connection


def ranges(uri, name):
    context = f"qemu:dirty-bitmap:{name}"
    connection = connect(uri, context)
    size, found, at = connection.get_size(), [], 0

    def told(metacontext, offset, entries, error):
        nonlocal at
        assert metacontext == context and offset == at
        for length, flags in zip(entries[::2], entries[1::2]):
            if flags & 1:
                if found and found[-1][0] + found[-1][1] == at:
                    found[-1][1] += length
                else:
                    found.append([at, length])
            at += length
        return 0

    while at < size:
        connection.block_status(size - at, at, told)
    print(json.dumps(found))


def apply(uri, path):
    connection = connect(uri)
    with open(path, "r+b") as file:
        os.truncate(path, connection.get_size())
        for offset, length in json.load(sys.stdin):
            for at in range(offset, offset + length, PIECE):
                file.seek(at)
                file.write(connection.pread(min(PIECE, offset + length - at), at))


if __name__ == "__main__":
    {"ranges": ranges, "apply": apply}[sys.argv[1]](*sys.argv[2:])
