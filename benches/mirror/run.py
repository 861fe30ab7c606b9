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
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time

import nbd

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import harness

PATIENCE_S = 60
SECONDS_OF_FIO = 10


def free_ports(count):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def wait_until(what, is_so):
    begin = time.monotonic()
    while not is_so():
        if time.monotonic() - begin > PATIENCE_S:
            sys.exit(f"not within {PATIENCE_S} s: {what}")
        time.sleep(0.02)


class Witness:
    """Three members of etcd."""

    def __init__(self, work):
        clients, peers = free_ports(3), free_ports(3)
        cluster = ",".join(f"m{index}=http://127.0.0.1:{port}" for index, port in enumerate(peers))
        self.processes = []
        for index, (client, peer) in enumerate(zip(clients, peers)):
            at = {"client": f"http://127.0.0.1:{client}", "peer": f"http://127.0.0.1:{peer}"}
            with open(os.path.join(work, f"etcd-{index}.log"), "wb") as log:
                self.processes.append(subprocess.Popen(
                    ["etcd", "--name", f"m{index}", "--data-dir", os.path.join(work, f"etcd-{index}"),
                     "--listen-client-urls", at["client"], "--advertise-client-urls", at["client"],
                     "--listen-peer-urls", at["peer"], "--initial-advertise-peer-urls", at["peer"],
                     "--initial-cluster", cluster, "--initial-cluster-state", "new"],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        self.url = "etcd://" + ",".join(f"127.0.0.1:{port}" for port in clients) + "/bench"

    def freeze(self):
        for process in self.processes:
            process.send_signal(signal.SIGSTOP)

    def thaw(self):
        for process in self.processes:
            process.send_signal(signal.SIGCONT)

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()


class Site:
    """A daemon."""

    def __init__(self, program, work, number, links, witness, more):
        other = 3 - number
        self.program, self.number = program, number
        self.data = os.path.join(work, f"site-{number}")
        self.socket = os.path.join(work, f"nbd-{number}.sock")
        pem = os.path.join(work, "pem")
        self.command = [
            program, "serve", "--data", self.data, "--nbd", f"unix:{self.socket}", "--api", "127.0.0.1:0",
            "--pool-size", "8G", "--site", str(number), "--peer-site", str(other),
            "--mirror-listen", f"127.0.0.1:{links[0][number - 1]}", "--mirror-peer", f"127.0.0.1:{links[1][other - 1]}",
            "--mirror-cert", f"{pem}/site-{number}.pem", "--mirror-key", f"{pem}/site-{number}-key.pem",
            "--mirror-pin", f"{pem}/site-{other}.pem", "--witness", witness.url, *more]
        self.log = open(os.path.join(work, f"site-{number}.log"), "ab")
        self.process = None

    def start(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=self.log, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("ready"):
            sys.exit(f"site {self.number} does not serve: {line}")

    def kill(self, number=signal.SIGKILL):
        if self.process:
            self.process.send_signal(number)
            self.process.wait()
            self.process = None

    def run(self, *arguments):
        return subprocess.run([self.program, *arguments, "--data", self.data], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)

    def mirror(self):
        told = self.run("why", "vm", "--json")
        return json.loads(told.stdout) if told.returncode == 0 else {}

    def uri(self, volume):
        return f"nbd+unix:///{volume}?socket={self.socket}"


class Sites:
    """Two sites with a mirrored volume, and one that is not."""

    def __init__(self, program, work, more=(), mib=256, reached_at=None, start_relays=None):
        """The sites reach each other at other ports than those where they listen, where relays are started."""
        make_certificates(os.path.join(work, "pem"))
        self.witness = Witness(work)
        links = free_ports(2)
        if start_relays:
            start_relays(links, reached_at)
        links = (links, reached_at or links)
        self.sites = [Site(program, work, number, links, self.witness, more) for number in (1, 2)]
        for site in self.sites:
            site.start()
        for volume in ("vm", "plain"):
            done = self.sites[0].run("volume", "create", volume, "--size", f"{mib}M")
            if done.returncode:
                sys.exit(done.stderr)
        wait_until("the volume is mirrored",
                   lambda: self.sites[0].run("volume", "mirror", "vm", "--to", "2").returncode == 0)
        self.wait_in_sync()

    def wait_in_sync(self):
        """Returns the site that leads, and the other one."""
        found = []

        def is_so():
            states = [site.mirror() for site in self.sites]
            for at, state in enumerate(states):
                other = states[1 - at]
                if state.get("role") == "primary" and other.get("role") == "secondary" and other.get("in_sync"):
                    found.append((self.sites[at], self.sites[1 - at]))
            return bool(found)

        wait_until("both sites are in sync", is_so)
        return found[0]

    def stop(self):
        for site in self.sites:
            site.kill()
        self.witness.stop()


def make_certificates(folder):
    os.makedirs(folder)
    for number in (1, 2):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
             "-subj", f"/CN=site-{number}", "-addext", f"subjectAltName=DNS:site-{number}.aljibe",
             "-keyout", f"{folder}/site-{number}-key.pem", "-out", f"{folder}/site-{number}.pem"],
            check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


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
