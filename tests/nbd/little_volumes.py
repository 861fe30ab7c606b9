#!/usr/bin/python3
"""Many volumes with one block each. Usage: little_volumes.py write|check SOCKET COUNT

The volumes are called little-0, little-1 and so on; one client after the other comes and goes.
"""

import sys

import nbd


def block(number):
    return bytes([number % 251 + 1]) * 4096


def main():
    act, socket, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    for number in range(count):
        client = nbd.NBD()
        client.connect_uri(f"nbd+unix:///little-{number}?socket={socket}")
        if act == "write":
            client.pwrite(block(number), 4096)
        elif client.pread(4096, 4096) != block(number):
            sys.exit(f"little-{number} has other bytes")
        client.shutdown()
    print("as promised")


if __name__ == "__main__":
    main()
