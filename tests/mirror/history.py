#!/usr/bin/python3
"""Clients of a mirrored volume that go to whichever site serves it, and hold each answer against what they know.

usage: history.py SECONDS CLIENTS URI URI

A block has one client, which writes ever greater numbers to it and reads them back, at either site. A request that fails is tried again
at the other site, as one operation. One whose connection ends without an answer is tried again at the same site, and at the other one only
after five seconds: what the first one has passed on to it is dead by then. A read must find no less than what was acknowledged before it was
asked, and no more than what was tried. In the end, all blocks are read once more. Prints the number of operations, and the longest time
without an answer; what breaks a promise ends it with status 1. A file named by the environment's STOP_FILE ends it early, and
PAUSE_MS is how long each client waits before each request.
"""

import os
import random
import sys
import threading
import time

import nbd

BLOCK = 4096
BLOCKS_EACH = 64
# A request that is answered nowhere for so long is an error of the mirror.
PATIENCE_S = 90
# For so long a host whose connection is lost tries the same site again before it tries another one.
REPLACEMENT_S = 5
PAUSE_S = float(os.environ.get("PAUSE_MS", "0")) / 1000


class Client(threading.Thread):
    def __init__(self, index, uris, until):
        super().__init__(daemon=True)
        self.index, self.uris, self.until = index, uris, until
        self.site = index % len(uris)
        self.handle = None
        self.acknowledged = [0] * BLOCKS_EACH
        self.tried = [0] * BLOCKS_EACH
        self.random = random.Random(index)
        self.operations, self.longest_s, self.retries, self.problem = 0, 0.0, 0, None

    def run(self):
        try:
            while time.monotonic() < self.until() and self.problem is None:
                self.operate(self.random.randrange(BLOCKS_EACH))
            for block in range(BLOCKS_EACH):
                if self.problem is None:
                    self.read(block)
        except Exception as error:  # told by the main thread, which ends with status 1
            self.problem = f"client {self.index}: {error!r}"

    def operate(self, block):
        time.sleep(PAUSE_S)
        kind = self.random.random()
        if kind < 0.5:
            self.write(block)
        elif kind < 0.95:
            self.read(block)
        else:
            self.ask(lambda handle: handle.flush())

    def write(self, block):
        number = self.tried[block] = self.tried[block] + 1
        payload = number.to_bytes(8, "little") * (BLOCK // 8)
        flags = nbd.CMD_FLAG_FUA if self.random.random() < 0.2 else 0
        self.ask(lambda handle: handle.pwrite(payload, self.offset(block), flags))
        self.acknowledged[block] = number

    def read(self, block):
        least = self.acknowledged[block]
        found = self.ask(lambda handle: handle.pread(BLOCK, self.offset(block)))
        number = int.from_bytes(found[:8], "little")
        if bytes(found) != number.to_bytes(8, "little") * (BLOCK // 8):
            self.problem = f"client {self.index}: block {block} is torn"
        elif not least <= number <= self.tried[block]:
            self.problem = (
                f"client {self.index}: block {block} has {number} at site {self.site + 1}; "
                f"{least} was acknowledged, {self.tried[block]} tried"
            )

    def offset(self, block):
        return (self.index * BLOCKS_EACH + block) * BLOCK

    def ask(self, request):
        """Carries a request out at whichever site does, however often that takes."""
        begin = time.monotonic()
        stays_until = 0
        while True:
            try:
                answer = request(self.connected())
                break
            except nbd.Error:
                now = time.monotonic()
                if self.handle is not None and not self.handle.aio_is_ready():
                    stays_until = max(stays_until, now + REPLACEMENT_S)
                self.handle = None
                self.retries += 1
                if now - begin > PATIENCE_S:
                    raise
                if now >= stays_until:
                    self.site = (self.site + 1) % len(self.uris)
                time.sleep(0.02)
        self.operations += 1
        self.longest_s = max(self.longest_s, time.monotonic() - begin)
        return answer

    def connected(self):
        if self.handle is None:
            handle = nbd.NBD()
            handle.connect_uri(self.uris[self.site])
            self.handle = handle
        return self.handle


def main():
    seconds, count, uris = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    stop_file = os.environ.get("STOP_FILE")
    end = time.monotonic() + seconds

    def until():
        return 0 if stop_file and os.path.exists(stop_file) else end

    clients = [Client(index, uris, until) for index in range(count)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    problems = [client.problem for client in clients if client.problem]
    operations = sum(client.operations for client in clients)
    longest_ms = max(client.longest_s for client in clients) * 1000
    retries = sum(client.retries for client in clients)
    print(f"operations={operations} retries={retries} longest_ms={longest_ms:.0f}")
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


main()
