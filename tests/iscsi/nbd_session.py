#!/usr/bin/python3
"""One NBD connection, told what to do line by line on stdin; answers each line by one on stdout.

    nbd_session.py URI

The first line is "ready". An answer is "good" with what it read, or "error" and the error's name.

    read OFFSET LENGTH          "good BYTE", all being that byte, or "good mixed"
    write OFFSET LENGTH BYTE [fua]
    trim OFFSET LENGTH          flush
    map OFFSET LENGTH           "good", and of each extent whether it is data or a hole, with its length
    verify FIRST COUNT          "good", all records of initiator.c from FIRST on being there, or "good wrong N"
    neighbour OFFSET            writes 512 bytes again and again, a number in them, until the next line comes; "good" with
                                the last number, or "good overwritten" as soon as a read does not find what was written
"""

import errno
import select
import sys

import nbd

SECTOR = 512
RECORD = 4096
HOLE = 1


def main():
    handle = nbd.NBD()
    handle.add_meta_context("base:allocation")
    handle.connect_uri(sys.argv[1])
    answer("ready")
    for line in sys.stdin:
        verb, *words = line.split()
        try:
            answer("good", *VERBS[verb](handle, *words))
        except nbd.Error as error:
            answer("error", errno.errorcode.get(error.errnum, error.string))


def answer(*words):
    print(*words, flush=True)


def read(handle, offset, length):
    data = handle.pread(int(length), int(offset))
    return [f"{data[0]:02x}" if data == data[:1] * len(data) else "mixed"]


def write(handle, offset, length, byte, *fua):
    handle.pwrite(bytes.fromhex(byte) * int(length), int(offset), nbd.CMD_FLAG_FUA if fua else 0)
    return []


def trim(handle, offset, length):
    handle.trim(int(length), int(offset))
    return []


def flush(handle):
    handle.flush()
    return []


def extents(handle, offset, length):
    found, at, end = [], int(offset), int(offset) + int(length)

    def told(_context, _offset, entries, _error):
        nonlocal at
        for size, flags in zip(entries[::2], entries[1::2]):
            size, kind = min(size, end - at), "hole" if flags & HOLE else "data"
            at += size
            if found and found[-2] == kind:
                found[-1] += size
            elif size:
                found.extend([kind, size])
        return 0

    while at < end:
        handle.block_status(end - at, at, told)
    return found


def verify(handle, first, count):
    for block in range(int(first), int(first) + int(count)):
        if handle.pread(RECORD, block * RECORD) != (block + 1).to_bytes(8, "little") * (RECORD // 8):
            return ["wrong", block]
    return []


def neighbour(handle, offset):
    number, offset = 0, int(offset)
    while not select.select([sys.stdin], [], [], 0)[0]:
        number += 1
        content = number.to_bytes(8, "little") * (SECTOR // 8)
        handle.pwrite(content, offset)
        if handle.pread(SECTOR, offset) != content:
            return ["overwritten", number]
    sys.stdin.readline()
    return [number]


VERBS = {
    "read": read,
    "write": write,
    "trim": trim,
    "flush": flush,
    "map": extents,
    "verify": verify,
    "neighbour": neighbour,
}

if __name__ == "__main__":
    main()
