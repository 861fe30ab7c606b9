#!/usr/bin/python3
"""Writes until the server dies, remembering what was acknowledged; later checks that all of it is there.

    verifying_writer.py write URI STATE                    ends when the server does, or after --operations
    verifying_writer.py check URI STATE                    exit 1 and a list when an acknowledged write is lost

STATE is a file that lives through both and through many rounds. A block has at most one request in flight, so after a
crash it holds its last acknowledged operation or the one in flight, and nothing else. Each block written says which
block and operation it is, so bytes from elsewhere are seen too.
"""

import argparse
import json
import os
import random
import signal
import struct
import sys

import nbd

BLOCK = 4096
IN_FLIGHT_MAX = 32
CONNECTIONS = 2
BLOCKS_MAX = 16384
READ_BLOCKS = 64


def content(block, operation):
    """What a block holds after an operation; one in fifty is a write-zeroes."""
    if operation == 0 or is_zeroing(operation):
        return bytes(BLOCK)
    return struct.pack("<QQ", block, operation) * (BLOCK // 16)


def is_zeroing(operation):
    return operation % 50 == 0


class State:
    """Of each block: the last acknowledged operation, and the one in flight if any. Operations count from 1."""

    def __init__(self, path):
        self.path = path
        self.acknowledged = {}
        self.pending = {}
        self.last = 0
        if os.path.exists(path):
            with open(path, encoding="ascii") as file:
                stored = json.load(file)
            self.acknowledged = {int(block): operation for block, operation in stored["acknowledged"].items()}
            self.pending = {int(block): operation for block, operation in stored["pending"].items()}
            self.last = stored["last"]

    def save(self):
        with open(self.path + ".new", "w", encoding="ascii") as file:
            json.dump({"acknowledged": self.acknowledged, "pending": self.pending, "last": self.last}, file)
        os.replace(self.path + ".new", self.path)


class Writer:
    """Keeps requests in flight on several connections until one of them breaks."""

    def __init__(self, uri, state):
        self.state = state
        self.connections = [connect(uri) for _ in range(CONNECTIONS)]
        self.blocks = min(self.connections[0].get_size() // BLOCK, BLOCKS_MAX)
        self.random = random.Random(state.last)
        self.done = 0
        self.failed = None
        self.refused = []

    def run(self, operations_max, kill_pid=None, kill_after=0):
        """Writes; kills a process with requests in flight once so many operations are acknowledged."""
        try:
            while self.done < operations_max:
                if kill_pid and self.done >= kill_after:
                    os.kill(kill_pid, signal.SIGKILL)
                    kill_pid = None
                for connection in self.connections:
                    while connection.aio_in_flight() < IN_FLIGHT_MAX:
                        self.issue(connection)
                    connection.poll(1)
            while any(connection.aio_in_flight() for connection in self.connections):
                for connection in self.connections:
                    if connection.aio_in_flight():
                        connection.poll(100)
        except nbd.Error as error:
            self.failed = error.string

    def issue(self, connection):
        if self.random.random() < 0.002:
            connection.aio_flush(completion=lambda error: 1)
            return
        block = self.random.randrange(self.blocks)
        if block in self.state.pending:
            return
        self.state.last += 1
        operation = self.state.last
        self.state.pending[block] = operation

        def completed(error):
            if error:
                self.refused.append((block, error))
            else:
                self.state.acknowledged[block] = operation
                del self.state.pending[block]
                self.done += 1
            return 1

        flags = nbd.CMD_FLAG_FUA if self.random.random() < 0.02 else 0
        at = block * BLOCK
        if is_zeroing(operation):
            connection.aio_zero(BLOCK, at, completion=completed, flags=flags)
        else:
            buffer = nbd.Buffer.from_bytearray(bytearray(content(block, operation)))
            connection.aio_pwrite(buffer, at, completion=completed, flags=flags)


def connect(uri):
    handle = nbd.NBD()
    handle.connect_uri(uri)
    return handle


def write(arguments):
    state = State(arguments.state)
    writer = Writer(arguments.uri, state)
    if arguments.ready:
        with open(arguments.ready, "w", encoding="ascii"):
            pass
    writer.run(arguments.operations, arguments.kill, arguments.after)
    state.save()
    # A request that fails because the connection broke is in flight for us: it may or may not have been done.
    print(f"{writer.done} operations acknowledged, {len(state.pending)} in flight when it ended"
          + (f" ({writer.failed})" if writer.failed else ""))


def check(arguments):
    state = State(arguments.state)
    handle = connect(arguments.uri)
    lost = []
    blocks = min(handle.get_size() // BLOCK, BLOCKS_MAX)
    for start in range(0, blocks, READ_BLOCKS):
        count = min(READ_BLOCKS, blocks - start)
        data = handle.pread(count * BLOCK, start * BLOCK)
        for block in range(start, start + count):
            found = bytes(data[(block - start) * BLOCK:(block - start + 1) * BLOCK])
            allowed = [state.acknowledged.get(block, 0)]
            if block in state.pending:
                allowed.append(state.pending[block])
            holds = [operation for operation in allowed if content(block, operation) == found]
            if holds:
                state.acknowledged[block] = holds[-1]
            else:
                lost.append((block, allowed, struct.unpack("<QQ", found[:16])))
    state.pending = {}
    for block, allowed, found in lost[:20]:
        print(f"block {block}: may hold operation {allowed}, holds block and operation {found}")
    if lost:
        sys.exit(f"{len(lost)} of {blocks} blocks hold what they must not")
    state.save()
    print(f"{len(state.acknowledged)} blocks checked: every acknowledged write is there")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["write", "check"])
    parser.add_argument("uri")
    parser.add_argument("state")
    parser.add_argument("--operations", type=int, default=1 << 62)
    parser.add_argument("--kill", type=int, metavar="PID", help="kill this process in the middle of the writing")
    parser.add_argument("--after", type=int, default=0, help="operations acknowledged before the kill")
    parser.add_argument("--ready", metavar="FILE", help="is made when the first request is about to be sent")
    arguments = parser.parse_args()
    {"write": write, "check": check}[arguments.command](arguments)


if __name__ == "__main__":
    main()
