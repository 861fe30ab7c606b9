#!/usr/bin/python3
"""Fills a pool, trims half of what it holds, and goes on writing to three quarters of it.

    full_pool.py URI            exits with 1 and a sentence when something is not as promised
"""

import errno
import itertools
import sys
import time

import nbd

PIECE = 64 << 10
PATIENCE_SECONDS = 60
# Each write has a content of its own.
GENERATIONS = itertools.count(1)


def main():
    handle = nbd.NBD()
    handle.connect_uri(sys.argv[1])
    generations = {}
    while write(handle, generations, len(generations)):
        pass
    count = len(generations)
    expect(count > 1000, f"took {count} pieces before it was full")
    expect_pieces(handle, generations, "reads go on in a full pool")
    # Of four neighbouring pieces at most three hold something: a pool without garbage has no space to give back.
    for trimmed, written in [((0, 2), 0), ((1,), 2), ((3,), 1), ((0,), 3), ((2,), 0)]:
        for first in trimmed:
            for piece in range(first, count, 4):
                handle.trim(PIECE, piece * PIECE)
                generations[piece] = 0
        expect_pieces(handle, generations, "what was trimmed is zeros, what was not is there")
        for piece in range(written, count, 4):
            write_in_time(handle, generations, piece)
        expect_pieces(handle, generations, "what was written again is there")
    handle.flush()
    print("as promised")


def content(piece, generation):
    return (generation << 32 | piece).to_bytes(8, "little") * (PIECE // 8) if generation else bytes(PIECE)


def write(handle, generations, piece):
    """Whether there was room."""
    generation = next(GENERATIONS)
    try:
        handle.pwrite(content(piece, generation), piece * PIECE)
    except nbd.Error as error:
        expect(error.errnum == errno.ENOSPC, f"a full pool is called so, not {error.string}")
        return False
    generations[piece] = generation
    return True


def write_in_time(handle, generations, piece):
    since = time.monotonic()
    while not write(handle, generations, piece):
        expect(time.monotonic() - since < PATIENCE_SECONDS, "space comes back by itself")
        time.sleep(0.1)


def expect_pieces(handle, generations, what):
    for piece, generation in generations.items():
        expect(handle.pread(PIECE, piece * PIECE) == content(piece, generation), f"{what}: piece {piece}")


def expect(is_so, what):
    if not is_so:
        sys.exit(f"not so: {what}")


if __name__ == "__main__":
    main()
