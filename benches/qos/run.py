#!/usr/bin/env python3
"""What fair shares and ceilings do, and what they cost, against their promises. Needs fio with its nbd engine.

    run.py [neighbour] [large] [cost] [ceiling] [--aljibe PROGRAM] [--before PROGRAM] [--work DIR] [--seconds N] [--rounds N]
           [--realtime]

neighbour  one client that asks for one thing after the other, in a volume beside another one on the same shard that is flooded
           with 64 requests of 4 KiB, reads or writes: how much longer its requests take than alone, at the median and for 99 of
           100, with fair shares and without
large      the same beside requests of 1 MiB
cost       requests a second of one volume, at depth 1 and at depth 64, and processor time of each, with fair shares and a ceiling that is never reached,
           against the same without either; or, with --before, against a program that knows neither these nor the meter, built of
           commit a4aefc3, the last one before them: what metering, shares and ceilings cost together
ceiling    requests and bytes a second of a volume with a ceiling, in parts of that

All ratios are of one run, in turns. The shard, not the disk, is what is shared here: volumes are small and have been read
before, so that the page cache has them. The daemon, the quiet client and the flooding one want a core each, and quiet ones;
where there are fewer, or others work beside, --realtime gives all three real-time priorities (as root), the quiet client the highest
and the flood the lowest, so that what is measured is the daemon and not who gets the processor.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import harness
from harness import fio, fio_command

SIZE_MIB = 192
NEIGHBOUR_MAX = 2.0
COST_MAX = 1.02
CASES = [(pattern, depth) for pattern in ("randread", "randwrite") for depth in (1, 64)]
RATE = 2000
BANDWIDTH_MIB = 20


class Daemon(harness.Daemon):
    """A daemon with one shard, and two volumes that are written and read."""

    def __init__(self, arguments, *options):
        super().__init__(arguments, "--pool-size", "24G", "--shards", "1", *options)
        for name in ("quiet", "flood"):
            self.command("volume", "create", name, "--size", f"{SIZE_MIB}M")
            for pattern in ("write", "read"):
                fio(self.uri(name), f"--rw={pattern}", "--bs=256k", "--iodepth=8", f"--size={SIZE_MIB}M")
        self.before = []
        if arguments.realtime:
            self.before = ["chrt", "--fifo", "3"]
            for thread in os.listdir(f"/proc/{self.process.pid}/task"):
                os.sched_setscheduler(int(thread), os.SCHED_FIFO, os.sched_param(2))

    def processor_seconds(self):
        """What the daemon took of processors so far."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def run(self, volume, pattern, depth, seconds, *options):
        """Runs fio for a time; returns what it tells of reads or writes."""
        one = fio(self.uri(volume), f"--rw={pattern}", "--bs=4k", f"--iodepth={depth}", f"--size={SIZE_MIB}M", "--time_based",
                  f"--runtime={seconds}", "--percentile_list=50:99", *options, before=self.before)
        return one[pattern.removeprefix("rand")]


class Flood:
    """Requests on the other volume, until the end of the block."""

    def __init__(self, daemon, pattern, size):
        command = fio_command(daemon.uri("flood"), f"--rw={pattern}", f"--bs={size}", "--iodepth=64", f"--size={SIZE_MIB}M",
                              "--time_based", "--runtime=600", before=["chrt", "--fifo", "1"] if daemon.before else [])
        self.pattern = pattern
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        text=True)

    def __enter__(self):
        time.sleep(0.5)
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        text, _ = self.process.communicate(timeout=60)
        found = json.loads(text[text.index("{\n"):])["jobs"][0][self.pattern.removeprefix("rand")]
        self.mib = found["bw_bytes"] / harness.MIB
        self.iops = found["iops"]


def times(found):
    """Median and 99 % of how long requests took, in microseconds."""
    return [found["clat_ns"]["percentile"][f"{percent:.6f}"] / 1e3 for percent in (50, 99)]


def beside(arguments, size):
    ratios = {}
    for fair_shares in ("off", "volumes"):
        with Daemon(arguments, "--fair-shares", fair_shares) as daemon:
            for quiet in ("randread", "randwrite"):
                for pattern in ("randread", "randwrite"):
                    alone, flooded = [], []
                    for _ in range(arguments.rounds):
                        alone.append(times(daemon.run("quiet", quiet, 1, arguments.seconds)))
                        with Flood(daemon, pattern, size) as flood:
                            flooded.append(times(daemon.run("quiet", quiet, 1, arguments.seconds)))
                    medians = [[statistics.median(column) for column in zip(*rows)] for rows in (alone, flooded)]
                    of_case = [after / before for before, after in zip(*medians)]
                    ratios[fair_shares, quiet, pattern] = of_case
                    print(f"{size} {pattern} flood, shares {fair_shares}: {quiet} alone {medians[0][0]:.0f} us (99 %: "
                          f"{medians[0][1]:.0f}), beside it {medians[1][0]:.0f} ({medians[1][1]:.0f}): {of_case[0]:.2f} times "
                          f"({of_case[1]:.2f}); the flood got {flood.iops:,.0f} IOPS, {flood.mib:,.0f} MiB/s", flush=True)
    fair = [ratio for (fair_shares, *_), ratio in ratios.items() if fair_shares == "volumes"]
    return [(f"times as long at the median beside a flood of {size}", max(median for median, _ in fair), NEIGHBOUR_MAX, "at most"),
            (f"times as long for 99 of 100 beside a flood of {size}", max(late for _, late in fair), NEIGHBOUR_MAX, "at most")]


def neighbour(arguments):
    return beside(arguments, "4k")


def large(arguments):
    return beside(arguments, "1m")


def cost(arguments):
    # Two daemons, asked in turns: what changes with the machine changes for both.
    found = {}

    def beneath(name, **changed):
        changed["work"] = os.path.join(arguments.work, name)
        os.makedirs(changed["work"])
        return argparse.Namespace(**{**vars(arguments), **changed})

    if arguments.before:
        off = Daemon(beneath("off", aljibe=arguments.before))
    else:
        off = Daemon(beneath("off"), "--fair-shares", "off")
    with off:
        with Daemon(beneath("on"), "--fair-shares", "tenants") as on:
            ceilings = {"iops": 1 << 30, "bandwidth_bytes": 1 << 40, "operation_bytes": 1 << 18}
            on.ask("POST", "/v1/volumes/quiet/qos", ceilings)
            # Reads first: behind writes, what is read comes from the disk.
            for pattern, depth in CASES:
                for number in range(4 * arguments.rounds):
                    # Who comes first changes.
                    for name, daemon in [("off", off), ("on", on)][::1 if number % 2 else -1]:
                        before = daemon.processor_seconds()
                        done = daemon.run("quiet", pattern, depth, arguments.seconds)
                        micros = 1e6 * (daemon.processor_seconds() - before) / done["total_ios"]
                        found.setdefault((pattern, depth, name), []).append((done["iops"], micros))
    judged = []
    for pattern, depth in CASES:
        off, on = found[pattern, depth, "off"], found[pattern, depth, "on"]
        middle = [[statistics.median(column) for column in zip(*rows)] for rows in (off, on)]
        print(f"cost: {pattern} at depth {depth}: {middle[0][0]:,.0f} IOPS and {middle[0][1]:.2f} us of a processor each without, "
              f"{middle[1][0]:,.0f} and {middle[1][1]:.2f} with", flush=True)
        ratio = statistics.median(before / after for (before, _), (after, _) in zip(off, on))
        judged.append((f"times the IOPS without, {pattern} at depth {depth}", ratio, COST_MAX, "at most"))
    return judged


def ceiling(arguments):
    with Daemon(arguments, "--fair-shares", "tenants") as daemon:
        daemon.ask("POST", "/v1/volumes/quiet/qos", {"iops": RATE, "iops_burst": RATE // 10})
        operations = daemon.run("quiet", "randread", 32, 3 * arguments.seconds)["iops"] / RATE
        daemon.ask("POST", "/v1/volumes/quiet/qos", {"iops": 0, "bandwidth_bytes": BANDWIDTH_MIB * harness.MIB,
                                                     "bandwidth_burst_bytes": BANDWIDTH_MIB * harness.MIB // 10})
        found = daemon.run("quiet", "randwrite", 32, 3 * arguments.seconds, "--bs=128k")
        moved = found["bw_bytes"] / harness.MIB / BANDWIDTH_MIB
        # The burst is a tenth of a second's, over all of the time.
        most = 1 + 0.1 / (3 * arguments.seconds) + 0.02
        return [("of a ceiling of operations", operations, most, "at most"), ("of it", operations, 0.97, "at least"),
                ("of a ceiling of bytes", moved, most, "at most"), ("of it", moved, 0.97, "at least")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    promises = {"neighbour": neighbour, "large": large, "cost": cost, "ceiling": ceiling}
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement (5)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each kind, of which the median counts (3)")
    parser.add_argument("--realtime", action="store_true", help="clients and daemon before all else, by chrt")
    parser.add_argument("--before", metavar="PROGRAM", help="a program without metering, which cost is measured against")
    harness.judge(harness.parse(parser, promises, "bench-qos"), promises)


if __name__ == "__main__":
    main()
