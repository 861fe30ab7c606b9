#!/usr/bin/env python3
"""What a mirror of two sites costs, and how long a change of the primary takes. Needs fio, etcd, openssl and python3-libnbd.

    run.py [cost] [switch] [failover] [stall] [--rounds N] [--aljibe PROGRAM] [--work DIR]

cost      4 KiB writes at depth 1 and 32, mirrored and not, by fio in the same run, with the round trip of one byte on loopback beside
          them. At depth 1 at most the local latency, one round trip and 15 %; at depth 32 at least 0.6 of what is not mirrored
switch    planned switches under writes: the longest time without an answer. Aim: under 100 ms
failover  the primary is killed: until a write is answered at the other site. Aim: within 5 s
stall     the secondary is killed: the longest time without an answer at the primary. Aim: under 3 s

Both sites, their witness (three members of etcd) and the clients share this machine and its disk.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time

import nbd

BENCHES = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, BENCHES)
sys.path.insert(0, os.path.join(os.path.dirname(BENCHES), "tests/mirror"))
import harness
from sites import Sites

SECONDS_OF_FIO = 10


class Writer(threading.Thread):
    """Writes one block after the other at whichever site answers, and notes the longest time without an answer."""

    def __init__(self, sites, first):
        super().__init__(daemon=True)
        self.sites, self.at = sites, first
        self.is_over, self.longest_s, self.answered_at, self.asked_at = False, 0.0, time.monotonic(), 0.0

    def run(self):
        handle, block = None, 0
        while not self.is_over:
            try:
                if handle is None:
                    handle = nbd.NBD()
                    handle.connect_uri(self.sites[self.at].uri("vm"))
                handle.pwrite(bytes(4096), (block % 4096) * 4096)
            except nbd.Error:
                handle, self.at = None, 1 - self.at
                time.sleep(0.002)
                continue
            now = time.monotonic()
            self.longest_s = max(self.longest_s, now - self.answered_at)
            self.answered_at, block = now, block + 1

    def begin(self):
        """Counts anew from now on."""
        self.longest_s, self.answered_at = 0.0, time.monotonic()

    def end(self):
        self.is_over = True
        self.join()


def fio(uri, depth):
    """Writes a second, and microseconds to the answer in the middle."""
    told = subprocess.run(
        ["fio", "--name=w", "--ioengine=nbd", f"--uri={uri}", "--rw=randwrite", "--bs=4k", f"--iodepth={depth}", "--time_based",
         f"--runtime={SECONDS_OF_FIO}", "--ramp_time=1", "--output-format=json"],
        check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    write = json.loads(told.stdout[told.stdout.index("{"):])["jobs"][0]["write"]
    return write["iops"], write["clat_ns"]["percentile"]["50.000000"] / 1000


def round_trip_us():
    """Of one block and an answer of a byte, over TCP on loopback."""
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    there, _ = server.accept()
    for one in (client, there):
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def answer():
        while True:
            left = 4096
            while left:
                got = there.recv(left)
                if not got:
                    return
                left -= len(got)
            there.sendall(b"a")

    threading.Thread(target=answer, daemon=True).start()
    times = []
    for _ in range(3000):
        begin = time.monotonic()
        client.sendall(bytes(4096))
        client.recv(1)
        times.append((time.monotonic() - begin) * 1e6)
    client.close()
    return statistics.median(times)


def cost(sites, rounds):
    leader, _ = sites.wait_in_sync()
    if leader.number != 1:
        leader.run("volume", "move", "vm", "--to", "1")
        sites.wait_in_sync()
    site = sites.sites[0]
    ratios, excesses = [], []
    for _ in range(rounds):
        trip = round_trip_us()
        (_, plain), (_, mirrored) = fio(site.uri("plain"), 1), fio(site.uri("vm"), 1)
        plain_32, mirrored_32 = fio(site.uri("plain"), 32)[0], fio(site.uri("vm"), 32)[0]
        print(f"  depth 1: {plain:.0f} us alone, {mirrored:.0f} us mirrored, round trip {trip:.0f} us; "
              f"depth 32: {plain_32:.0f} and {mirrored_32:.0f} writes/s")
        excesses.append(mirrored / ((plain + trip) * 1.15))
        ratios.append(mirrored_32 / plain_32)
    return [("depth 1: mirrored, of local latency + one round trip + 15 %", statistics.median(excesses), "<=", 1.0),
            ("depth 32: mirrored, of what is not", statistics.median(ratios), ">=", 0.6)]


def shown(times, what):
    times = sorted(times)
    print(f"  {what}: least {times[0] * 1000:.0f} ms, middle {statistics.median(times) * 1000:.0f} ms, "
          f"most {times[-1] * 1000:.0f} ms, of {len(times)}")
    return times[-1]


def switch(sites, rounds):
    times = []
    for _ in range(rounds * 3):
        leader, other = sites.wait_in_sync()
        writer = Writer(sites.sites, leader.number - 1)
        writer.start()
        time.sleep(1)
        writer.begin()
        moved = leader.run("volume", "move", "vm", "--to", str(other.number))
        time.sleep(1)
        writer.end()
        if moved.returncode:
            sys.exit(moved.stderr)
        times.append(writer.longest_s)
    return [("seconds without an answer in a planned switch", shown(times, "switch"), "<=", 0.1)]


def failover(sites, rounds):
    return [("seconds until the other site answers", lost(sites, rounds, True), "<=", 5.0)]


def stall(sites, rounds):
    return [("seconds without an answer when the secondary is lost", lost(sites, rounds, False), "<=", 3.0)]


def lost(sites, rounds, is_primary):
    times = []
    for _ in range(rounds):
        leader, other = sites.wait_in_sync()
        writer = Writer(sites.sites, leader.number - 1)
        writer.start()
        time.sleep(2)
        writer.begin()
        gone = leader if is_primary else other
        gone.kill()
        time.sleep(8)
        writer.end()
        times.append(writer.longest_s)
        gone.start()
    return shown(times, "primary lost" if is_primary else "secondary lost")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    promises = {"cost": cost, "switch": switch, "failover": failover, "stall": stall}
    arguments = harness.parse(parser, promises, "mirror")
    shutil.rmtree(arguments.work, ignore_errors=True)
    os.makedirs(arguments.work)
    sites = Sites(arguments.aljibe, arguments.work)
    is_kept = True
    try:
        for name in arguments.promise or promises:
            print(name, flush=True)
            for what, found, sign, limit in promises[name](sites, arguments.rounds):
                is_good = found <= limit if sign == "<=" else found >= limit
                is_kept = is_kept and is_good
                print(f"{name}: {found:.3f} {what}, {sign} {limit}: {'kept' if is_good else 'BROKEN'}", flush=True)
    finally:
        sites.stop()
        shutil.rmtree(arguments.work, ignore_errors=True)
    sys.exit(0 if is_kept else 1)


if __name__ == "__main__":
    main()
