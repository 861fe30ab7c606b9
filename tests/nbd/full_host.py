#!/usr/bin/python3
"""Fills the file system that holds a pool, and looks at what goes on and what comes back.

    full_host.py BINARY FOLDER          run it in a mount namespace of its own: unshare --user --map-root-user --mount

Exits with 1 and a sentence when something is not as promised.
"""

import errno
import os
import signal
import subprocess
import sys

import nbd

MIB = 1 << 20
PIECE = 64 << 10
NO_SPACE = 6


class Daemon:
    def __init__(self, binary, folder):
        self.binary, self.data = binary, os.path.join(folder, "small", "data")
        self.socket = os.path.join(folder, "nbd.sock")
        self.process = None

    def start(self):
        command = [self.binary, "serve", "--data", self.data, "--nbd", f"unix:{self.socket}", "--api", "127.0.0.1:0",
                   "--pool-size", "1G", "--slot-size", "4M"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        return self.process.stdout.readline().startswith("ready ")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def connect(self):
        handle = nbd.NBD()
        handle.connect_uri(f"nbd+unix:///v?socket={self.socket}")
        return handle


def main():
    binary, folder = sys.argv[1:]
    small = os.path.join(folder, "small")
    os.makedirs(small, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256M", "tmpfs", small], check=True)
    daemon = Daemon(binary, folder)
    expect(daemon.start(), "starts on a small file system")
    subprocess.run([binary, "volume", "create", "v", "--size", "1G", "--data", daemon.data], check=True,
                   stdout=subprocess.DEVNULL)
    handle = daemon.connect()
    filler = os.path.join(small, "filler")
    fill(filler, 32 * MIB)
    count = write_until_full(handle)
    expect(count > 100, f"took {count} pieces before it was full")
    expect_pieces(handle, range(count), "reads go on")
    handle.flush()
    for piece in range(0, count, 2):
        handle.trim(PIECE, piece * PIECE)
    handle.flush()
    expect(handle.pread(PIECE, 0) == bytes(PIECE), "what was trimmed is zeros")
    expect_pieces(handle, range(1, count, 2), "what was not trimmed is there")

    fill(filler, None)
    daemon.kill()
    if daemon.start():
        daemon.kill()
    else:
        _, words = daemon.process.communicate()
        expect(daemon.process.returncode == NO_SPACE, f"exit {daemon.process.returncode}: {words}")
        expect("rebuild" not in words, f"says what is wrong: {words}")
    os.unlink(filler)
    expect(daemon.start(), "starts once there is space")
    handle = daemon.connect()
    expect(handle.pread(PIECE, 0) == bytes(PIECE), "what was trimmed is zeros after a restart")
    expect_pieces(handle, range(1, count, 2), "what was acknowledged is there after a restart")
    handle.pwrite(content(count), count * PIECE)
    handle.flush()
    daemon.process.terminate()
    expect(daemon.process.wait() == 0, "stops in order")
    print("as promised")


def content(piece):
    return (piece + 1).to_bytes(8, "little") * (PIECE // 8)


def fill(path, length):
    """Writes so many bytes, or all there is room for."""
    with open(path, "ab", buffering=0) as file:
        try:
            while length is None or file.tell() < length:
                file.write(b"x" * PIECE)
        except OSError as error:
            expect(length is None and error.errno == errno.ENOSPC, str(error))


def write_until_full(handle):
    piece = 0
    while True:
        try:
            handle.pwrite(content(piece), piece * PIECE)
        except nbd.Error as error:
            expect(error.errnum == errno.ENOSPC, f"a full disk is called so, not {error.string}")
            return piece
        piece += 1


def expect_pieces(handle, pieces, what):
    expect(all(handle.pread(PIECE, piece * PIECE) == content(piece) for piece in pieces), what)


def expect(is_so, what):
    if not is_so:
        sys.exit(f"not so: {what}")


if __name__ == "__main__":
    main()
