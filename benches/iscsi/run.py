#!/usr/bin/env python3
"""Aljibe's iSCSI beside Debian's tgt, in the same run on the same disk, against the promised ratios. Needs tgt, a C compiler and root.

    run.py [randread] [randwrite] [seqread] [seqwrite] [--aljibe PROGRAM] [--work DIR] [--results DIR] [--seconds N] [--rounds N]

randread, randwrite    4 KiB at random, depth 1 and depth 32
seqread, seqwrite      1 MiB one behind the other, depth 8

The peer is tgtd with a file, by its `rdwr` backing store (16 threads, page cache) and by `aio` (around the page cache); the faster one of
each case counts. Both are told the lengths that Aljibe agrees to, since tgt's own are short. All servers are there all the time,
and asked in turns; what is read has been written and read before. The initiator is benches/iscsi/load.c, one session with one connection.

Processor time is the kernel's account of the server's process with all its threads, from before a run of its own to before the next
one, so that what it does later for what it was asked is its own too. What the kernel's threads write back is nobody's.
The initiator's own processor time is told too: where it is most of what there is, no server can be much faster than another. And so
is what the least server takes, benches/iscsi/least.c, which has no storage at all: what it costs is the sockets' and the wakes', and
nothing that keeps data can do better. Where a promised ratio lies beyond it, the promise cannot be kept on that machine.
Ratios are of one round; the median round counts. Server and initiator want a core each, and quiet ones: where others work beside, figures are rough.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import harness
from harness import MIB, Failed, run

SIZE_MIB = 256
PEERS = ("rdwr", "aio")
TARGET = "iqn.2026-11.io.aljibe:default"
PEER_TARGET = "iqn.2026-11.io.aljibe:peer"
LENGTHS = {"InitialR2T": "No", "ImmediateData": "Yes", "MaxRecvDataSegmentLength": 262144, "MaxXmitDataSegmentLength": 262144,
           "FirstBurstLength": 262144, "MaxBurstLength": 1048576}

# Pattern, bytes, depth, and the promised ratio to the peer's speed.
CASES = {
    "randread": [("randread", 4096, 1, 1.0), ("randread", 4096, 32, 2.0)],
    "randwrite": [("randwrite", 4096, 1, 1.0), ("randwrite", 4096, 32, 2.0)],
    "seqread": [("read", MIB, 8, 2.0)],
    "seqwrite": [("write", MIB, 8, 2.0)],
}
PROCESSOR_MAX = 0.5


def processor_seconds(pid):
    """What a process took of processors so far, all its threads together."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Aljibe(harness.Daemon):
    """The daemon, with one volume behind the default target."""

    name = "aljibe"

    def __init__(self, arguments):
        super().__init__(arguments, "--pool-size", "16G", "--iscsi", "127.0.0.1:0")
        self.command("volume", "create", "bench", "--size", f"{SIZE_MIB}M")
        self.pid = self.process.pid
        host, port = self.ready["iscsi"].rsplit(":", 1)
        self.lun = [host, port, TARGET, "0"]


class Tgt:
    """A tgtd of its own in the foreground, spoken to by a socket in the work folder, with one file as a LUN."""

    def __init__(self, arguments, store):
        self.name = f"tgt-{store}"
        self.environment = dict(os.environ, TGT_IPC_SOCKET=os.path.join(arguments.work, f"{store}.sock"))
        self.file = os.path.join(arguments.work, f"{store}.raw")
        with open(self.file, "wb") as file:
            file.truncate(SIZE_MIB * MIB)
        port = str(free_port())
        self.lun = ["127.0.0.1", port, PEER_TARGET, "1"]
        self.log = open(os.path.join(arguments.work, f"{store}.log"), "w+", encoding="utf-8")
        self.process = subprocess.Popen(["tgtd", "-f", "-C", "0", "--iscsi", f"portal=127.0.0.1:{port}"], stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=subprocess.STDOUT, env=self.environment)
        self.pid = self.process.pid
        try:
            self.prepare(store)
        except Failed:
            self.__exit__()
            raise

    def prepare(self, store):
        deadline = time.monotonic() + 30
        while not self.is_there():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.log.seek(0)
                raise Failed(f"tgtd does not serve: {self.log.read()[-1000:]}")
            time.sleep(0.05)
        self.admin("--op", "new", "--mode", "target", "--tid", "1", "-T", PEER_TARGET)
        for name, value in LENGTHS.items():
            self.admin("--op", "update", "--mode", "target", "--tid", "1", "--name", name, "--value", str(value))
        self.admin("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", self.file, "--bstype", store)
        self.admin("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")

    def is_there(self):
        """Whether it answers, and its portal is open."""
        done = subprocess.run(["tgtadm", "-C", "0", "--op", "show", "--mode", "system"], capture_output=True, env=self.environment,
                              check=False)
        return done.returncode == 0

    def admin(self, *words):
        command = ["tgtadm", "-C", "0", "--lld", "iscsi", *words]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, check=False)
        if done.returncode != 0:
            raise Failed(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-1000:]}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            # It waits for sessions that it knows of; there is none, and nothing that is missed.
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(60)
        self.log.close()


class Least:
    """The server without storage."""

    name = "least"

    def __init__(self, program):
        self.process = subprocess.Popen([program, str(SIZE_MIB)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.pid = self.process.pid
        port = self.process.stdout.readline().strip()
        if not port:
            raise Failed(f"{program} does not listen: exit {self.process.wait(10)}")
        self.lun = ["127.0.0.1", port, TARGET, "0"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(60)
        self.process.stdout.close()


class Bench:
    """The load generator, and what was found."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.rows = []
        self.rounds = []
        self.load = self.least = None

    def build(self):
        self.load, self.least = (self.build_one(name) for name in ("load", "least"))

    def build_one(self, name):
        program = os.path.join(self.arguments.work, name)
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{name}.c")
        run([os.environ.get("CC", "cc"), "-O2", "-o", program, source])
        return program

    def ask(self, server, pattern, block, depth, seconds):
        """Runs the load on a server's LUN; 0 seconds are once through."""
        return json.loads(run([self.load, *server.lun, pattern, str(block), str(depth), str(seconds)]))

    def case(self, servers, pattern, block, depth):
        """Measures one case in turns; returns what was found of each server, round by round."""
        found = {server.name: [] for server in servers}
        for number in range(self.arguments.rounds):
            # Who comes first changes.
            for server in servers[::1 if number % 2 else -1]:
                os.sync()
                before = processor_seconds(server.pid)
                one = self.ask(server, pattern, block, depth, self.arguments.seconds)
                one.update(per_second=one["operations"] / one["seconds"], before=before)
                found[server.name].append(one)
        for server in servers:
            rounds = found[server.name]
            ends = [one["before"] for one in rounds[1:]] + [processor_seconds(server.pid)]
            for one, end in zip(rounds, ends):
                one["processor_us"] = 1e6 * (end - one.pop("before")) / one["operations"]
        return found

    def measure(self, name):
        self.build()
        with contextlib.ExitStack() as stack:
            servers = [stack.enter_context(Aljibe(self.arguments))]
            servers += [stack.enter_context(Tgt(self.arguments, store)) for store in PEERS]
            servers.append(stack.enter_context(Least(self.least)))
            for server in servers:
                self.ask(server, "write", MIB, 8, 0)
                self.ask(server, "read", MIB, 4, 0)
            judged = []
            for pattern, block, depth, ratio_min in CASES[name]:
                found = self.case(servers, pattern, block, depth)
                judged += self.judge((pattern, block, depth), found, ratio_min)
            return judged

    def judge(self, case, found, ratio_min):
        pattern, block, depth = case
        middle = {server: {key: statistics.median(one[key] for one in rounds) for key in rounds[0]} for server, rounds in found.items()}
        peer = max((f"tgt-{store}" for store in PEERS), key=lambda server: middle[server]["per_second"])
        pairs = list(zip(found["aljibe"], found[peer]))
        speed = statistics.median(ours["per_second"] / theirs["per_second"] for ours, theirs in pairs)
        processor = statistics.median(ours["processor_us"] / max(theirs["processor_us"], 1e-9) for ours, theirs in pairs)
        title = f"{pattern} of {block >> 10} KiB at depth {depth}"
        for server, one in middle.items():
            row = (title, server, one["per_second"], one["per_second"] * block / MIB, one["p50_us"], one["p99_us"], one["processor_us"], one["own_us"])
            self.rows.append(row)
            print(f"{title}: {server}: {row[2]:,.0f} a second, {row[3]:,.0f} MiB/s, {row[4]:,.0f} us (99 %: {row[5]:,.0f}), "
                  f"{row[6]:.1f} us of a processor each, and the initiator {row[7]:.1f}", flush=True)
        self.rounds.append({"case": title, "peer": peer, "speed_ratio": speed, "speed_ratio_promised": ratio_min,
                            "processor_ratio": processor, "processor_ratio_promised": PROCESSOR_MAX, "rounds": found})
        self.write()
        return [(f"times the speed of {peer}, {title}", speed, ratio_min, "at least"),
                (f"of the processor time of {peer} for each, {title}", processor, PROCESSOR_MAX, "at most")]

    def write(self):
        """Writes what was found so far, as a table and as it was measured."""
        machine = {"kernel": os.uname().release, "processors": os.cpu_count(), "load": os.getloadavg(),
                   "aljibe": run([self.arguments.aljibe, "--version"]).strip(), "tgt": run(["tgtd", "--version"]).strip(),
                   "seconds": self.arguments.seconds, "rounds": self.arguments.rounds}
        lines = ["# iSCSI beside tgt", "", *(f"- {key}: {value}" for key, value in machine.items()), "",
                 "| case | server | a second | MiB/s | p50 us | p99 us | processor us each | initiator's |",
                 "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
        lines += [f"| {title} | {server} | {speed:,.0f} | {mib:,.0f} | {p50:,.0f} | {p99:,.0f} | {processor:.1f} | {own:.1f} |"
                  for title, server, speed, mib, p50, p99, processor, own in self.rows]
        lines += ["", "| case | peer | speed | promised | | processor time | promised | |", "| --- | --- | ---: | ---: | --- | ---: | ---: | --- |"]
        for one in self.rounds:
            is_fast = one["speed_ratio"] >= one["speed_ratio_promised"]
            is_cheap = one["processor_ratio"] <= PROCESSOR_MAX
            lines.append(f"| {one['case']} | {one['peer']} | {one['speed_ratio']:.2f}x | >= {one['speed_ratio_promised']}x | "
                         f"{'kept' if is_fast else 'MISSED'} | {one['processor_ratio']:.2f}x | <= {PROCESSOR_MAX}x | "
                         f"{'kept' if is_cheap else 'MISSED'} |")
        os.makedirs(self.arguments.results, exist_ok=True)
        with open(os.path.join(self.arguments.results, "iscsi.md"), "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        with open(os.path.join(self.arguments.results, "iscsi.json"), "w", encoding="utf-8") as file:
            json.dump({"machine": machine, "cases": self.rounds}, file, indent=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement (5)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each kind, of which the median counts (5)")
    parser.add_argument("--results", default=os.path.join(harness.CACHE, "aljibe", "results"), help="where iscsi.md and iscsi.json come to be")
    arguments = harness.parse(parser, CASES, "bench-iscsi")
    missing = [tool for tool in ("tgtd", "tgtadm") if not shutil.which(tool)]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)} (Debian: tgt)")
    bench = Bench(arguments)
    harness.judge(arguments, {name: lambda _, name=name: bench.measure(name) for name in CASES})


if __name__ == "__main__":
    main()
