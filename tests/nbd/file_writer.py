#!/usr/bin/python3
"""Makes files in a folder, each synced, until it fails; kills a process after some. For a file system on a volume.

    file_writer.py FOLDER STATE --round N --kill PID --after N

STATE gains a line `name sha256` for each file whose fsync succeeded and whose folder was synced. The first failure ends
it, which is what the kill is meant to cause.
"""

import argparse
import hashlib
import os
import random
import signal
import threading

FILES_MAX = 2000
BYTES_MAX = 200_000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("state")
    parser.add_argument("--round", type=int, required=True)
    parser.add_argument("--kill", type=int, required=True)
    parser.add_argument("--after", type=int, required=True)
    arguments = parser.parse_args()
    source = random.Random(arguments.round)
    # Room for this round.
    for name in os.listdir(arguments.folder):
        if name.startswith("file-") and not name.startswith(f"file-{arguments.round - 1}-"):
            os.unlink(os.path.join(arguments.folder, name))
    with open(arguments.state, "w", encoding="ascii") as state:
        try:
            for number in range(FILES_MAX):
                data = source.randbytes(source.randrange(1, BYTES_MAX))
                name = f"file-{arguments.round}-{number}"
                if number == arguments.after:
                    # Somewhere in the next files: what is under way when the server dies may or may not be there.
                    threading.Timer(source.random() * 0.05, os.kill, (arguments.kill, signal.SIGKILL)).start()
                write_synced(arguments.folder, name, data)
                state.write(f"{name} {hashlib.sha256(data).hexdigest()}\n")
        except OSError as error:
            print(f"ended by {error}")
            return
    raise SystemExit("the server outlived every file")


def write_synced(folder, name, data):
    file = os.open(os.path.join(folder, name), os.O_CREAT | os.O_WRONLY, 0o644)
    try:
        written = 0
        while written < len(data):
            written += os.write(file, data[written:])
        os.fsync(file)
    finally:
        os.close(file)
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


if __name__ == "__main__":
    main()
