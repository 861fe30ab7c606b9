#!/usr/bin/python3
"""One client writes pieces of many sizes from front to back; two others read behind it what was just acknowledged.

    tail_readers.py URI BLOCKS          exits with 1 and a sentence when a write fails, or a read fails or lies
"""

import multiprocessing
import random
import sys

import nbd

BLOCK = 4096
SIZES = (1, 1, 2, 4, 8, 15, 16, 64, 96, 128, 256)
IN_FLIGHT_MAX = 6


def main():
    uri, blocks = sys.argv[1], int(sys.argv[2])
    # Blocks from the front that are acknowledged without a gap.
    acknowledged = multiprocessing.Value("Q", 0, lock=False)
    readers = [multiprocessing.Process(target=read, args=(uri, blocks, acknowledged, seed)) for seed in (1, 2)]
    for reader in readers:
        reader.start()
    try:
        write(uri, blocks, acknowledged)
    finally:
        acknowledged.value = blocks
        for reader in readers:
            reader.join()
    handle = connect(uri)
    handle.flush()
    expect(handle, 0, blocks)
    sys.exit(any(reader.exitcode for reader in readers))


def connect(uri):
    handle = nbd.NBD()
    handle.connect_uri(uri)
    return handle


def content(block):
    return (block * 0x9E3779B97F4A7C15 % (1 << 64)).to_bytes(8, "little") * (BLOCK // 8)


def write(uri, blocks, acknowledged):
    handle, chance, at, in_flight = connect(uri), random.Random(0), 0, []
    while at < blocks or in_flight:
        if at < blocks and len(in_flight) < IN_FLIGHT_MAX:
            count = min(chance.choice(SIZES), blocks - at)
            buffer = nbd.Buffer.from_bytearray(bytearray(b"".join(map(content, range(at, at + count)))))
            at += count
            in_flight.append((handle.aio_pwrite(buffer, (at - count) * BLOCK), at, buffer))
            continue
        handle.poll(-1)
        while in_flight and handle.aio_command_completed(in_flight[0][0]):
            acknowledged.value = in_flight.pop(0)[1]


def read(uri, blocks, acknowledged, seed):
    handle, chance = connect(uri), random.Random(seed)
    while (end := acknowledged.value) < blocks:
        if end > 0:
            expect(handle, max(0, end - chance.choice((1, 2, 8, 32, 64, 300))), end)


def expect(handle, first, end):
    for at in range(first, end, 32):
        count = min(32, end - at)
        if handle.pread(count * BLOCK, at * BLOCK) != b"".join(map(content, range(at, at + count))):
            sys.exit(f"blocks {at}..{at + count} are not what was written")


if __name__ == "__main__":
    main()
