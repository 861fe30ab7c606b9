#!/usr/bin/python3
"""Changes an export without end: random writes, trims and zeroes of any size and alignment: as fast as can be at
first, some hundred a second once FILE is there.

    churn.py URI --seed N --ready FILE [--kill PID]     until its stdin ends; FILE is there once much has been changed

With --kill it kills that process instead, with changes in flight, and ends when its connection breaks.
"""

import argparse
import os
import random
import select
import signal
import sys

import nbd

SECTOR = 512
IN_FLIGHT_MAX = 8
SECTORS_MAX = 256
WARM_OPERATIONS = 400


def issue(connection, generator):
    sectors = connection.get_size() // SECTOR
    # Half of the changes meet an eighth of the volume, so that much is changed again and again.
    first = generator.randrange(sectors // 8 if generator.random() < 0.5 else sectors)
    count = min(generator.randint(1, SECTORS_MAX), sectors - first)
    if generator.random() < 0.5:
        # Whole blocks, but at the end of the volume.
        first, count = first // 8 * 8, min((count + 7) // 8 * 8, sectors - first // 8 * 8)
    kind = generator.random()
    if kind < 0.6:
        data = generator.randbytes(SECTOR) * count
        connection.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), first * SECTOR, completion=completed)
    elif kind < 0.8:
        connection.aio_trim(count * SECTOR, first * SECTOR, completion=completed)
    else:
        connection.aio_zero(count * SECTOR, first * SECTOR, completion=completed)


FAILED = []


def completed(error):
    if error.value:
        FAILED.append(os.strerror(error.value))
    return 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("uri")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--ready", required=True)
    parser.add_argument("--kill", type=int)
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    connection = nbd.NBD()
    connection.connect_uri(arguments.uri)
    operations, pause = 0, 0
    while not select.select([sys.stdin], [], [], pause)[0] and not FAILED:
        while connection.aio_in_flight() < IN_FLIGHT_MAX and (pause == 0 or connection.aio_in_flight() == 0):
            issue(connection, generator)
            operations += 1
        if operations >= WARM_OPERATIONS and pause == 0:
            pause = 0.01
            with open(arguments.ready, "w", encoding="ascii"):
                pass
            if arguments.kill:
                os.kill(arguments.kill, signal.SIGKILL)
        connection.poll(-1)
    while connection.aio_in_flight():
        connection.poll(-1)
    if FAILED and not arguments.kill:
        sys.exit(f"changes failed: {FAILED[0]}")
    connection.shutdown()


if __name__ == "__main__":
    try:
        main()
    except nbd.Error as error:
        if "--kill" not in sys.argv:
            raise
        print(f"the connection broke: {error.string}")
