#!/usr/bin/env python3
"""What compaction costs and gives, against its promises. Needs fio with its nbd engine.

    run.py [uniform] [zipf] [latency] [space] [--aljibe PROGRAM] [--work DIR] [--pool-mib N] [--slot-mib N] [--live PERCENT]
           [--depth N] [--rate N]

uniform  steady state: a volume that fills --live of the pool (75), overwritten twice at random at --depth (64): bytes appended
         and moved for each byte that the client wrote, during the second time; how long writes took
zipf     the same, but by zipf 0.99: a promise of docs/decisions/0007-compaction.md, which says why it is not less
latency  4 KiB writes at --rate a second (4000) in a pool that is half live, while compaction goes on: the time in which 99 of 100
         are answered, against the same in a pool that has no need of compaction
space    1 GiB in 4 GiB, trimmed in random blocks of 4 KiB: seconds until as many slots are free, and the same where a volume
         of that size is deleted
"""

import argparse
import os
import re
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import harness
from harness import MIB, fio

BLOCK = 4096
UNIFORM_MAX = 2.5
ZIPF_MAX = 2.0
LATENCY_RATIO_MAX = 5
SPACE_SECONDS_MAX = 60
LATENCY_SECONDS = 45
LATENCY_LIVE = 50


class Daemon(harness.Daemon):
    """A daemon whose pool and slots have the sizes asked for."""

    def __init__(self, arguments, pool_mib):
        super().__init__(arguments, "--pool-size", f"{pool_mib}M", "--slot-size", f"{arguments.slot_mib}M")

    def bytes_so_far(self):
        """Bytes that clients wrote, that were appended to logs, and that compaction moved."""
        text, _ = self.ask("GET", "/metrics")
        names = [r'aljibe_request_bytes_total\{[^}]*operation="write"[^}]*\}', r"aljibe_log_appended_bytes_total\{[^}]*\}",
                 "aljibe_compaction_moved_bytes_total"]
        return [sum(float(value) for value in re.findall(rf"^{name} (\S+)$", text, re.MULTILINE)) for name in names]

    def create(self, name, size_mib):
        self.command("volume", "create", name, "--size", f"{size_mib}M")

    def fio(self, volume, *options):
        """Runs fio on a volume and returns its JSON of the one job."""
        return fio(self.uri(volume), "--randrepeat=1", "--percentile_list=50:99:99.9:99.99", *options)

    def fill(self, volume):
        # Small enough that the end of a slot is not left empty.
        self.fio(volume, "--rw=write", "--bs=64k", "--iodepth=16")


class Watch:
    """What was written and moved, each quarter of a second."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.samples = [daemon.bytes_so_far()]
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.look)
        self.thread.start()

    def look(self):
        while not self.is_over.wait(0.25):
            self.samples.append(self.daemon.bytes_so_far())

    def end(self):
        self.is_over.set()
        self.thread.join()
        self.samples.append(self.daemon.bytes_so_far())

    def amplification(self, start, end):
        """Between two shares of what the client wrote: in blocks, and with headers and footers."""
        first = self.samples[0][0]
        total = self.samples[-1][0] - first

        def at(share):
            return next(sample for sample in self.samples if sample[0] - first >= share * total)

        written, appended, moved = (after - before for before, after in zip(at(start), at(end)))
        return (written + moved) / written, (appended + moved) / written


def times(job):
    """Median, 99 %, 99.9 % and longest time of a write, in milliseconds."""
    found = job["write"]["clat_ns"]
    return [found["percentile"][f"{percent:.6f}"] / 1e6 for percent in (50, 99, 99.9)] + [found["max"] / 1e6]


def told(found):
    return "median {:.2f}, 99 % {:.2f}, 99.9 % {:.2f}, longest {:.0f} ms".format(*found)


def overwrite(daemon, depth, size_mib, times_over, *options):
    count = int(size_mib * MIB / BLOCK * times_over)
    return daemon.fio("bench", "--rw=randwrite", "--bs=4k", f"--iodepth={depth}", "--norandommap", f"--number_ios={count}",
                      f"--io_size={count * BLOCK}", f"--size={size_mib}M", *options)


def steady_state(arguments, name, bound, *options):
    size_mib = arguments.pool_mib * arguments.live // 100
    with Daemon(arguments, arguments.pool_mib) as daemon:
        daemon.create("bench", size_mib)
        daemon.fill("bench")
        watch = Watch(daemon)
        try:
            job = overwrite(daemon, arguments.depth, size_mib, 2, *options)
        finally:
            watch.end()
        for half in range(4):
            blocks, device = watch.amplification(half / 4, (half + 1) / 4)
            print(f"{name}: {half * 50} to {half * 50 + 50} % of the volume written: {blocks:.2f} in blocks, {device:.2f} with "
                  f"headers", flush=True)
        print(f"{name}: {job['write']['iops']:,.0f} IOPS at depth {arguments.depth}; {told(times(job))}", flush=True)
        blocks, device = watch.amplification(0.5, 1)
        return [(f"write amplification in blocks at {arguments.live} % live", blocks, bound, "at most"),
                (f"write amplification with headers at {arguments.live} % live", device, bound, "at most")]


def uniform(arguments):
    return steady_state(arguments, "uniform", UNIFORM_MAX)


def zipf(arguments):
    return steady_state(arguments, "zipf", ZIPF_MAX, "--random_distribution=zipf:0.99")


def latency(arguments):
    found = {}
    size_mib = arguments.pool_mib * LATENCY_LIVE // 100
    # The one pool is full of what may be compacted, the other a quarter overwritten in one that is not half full.
    states = (("without", 3 * arguments.pool_mib, 0.25), ("with", arguments.pool_mib, 1.2 * (100 - LATENCY_LIVE) / LATENCY_LIVE))
    paced = ("--rw=randwrite", "--bs=4k", "--iodepth=16", "--norandommap", f"--rate_iops={arguments.rate}", "--time_based",
             f"--runtime={LATENCY_SECONDS}", f"--size={size_mib}M")
    for name, pool_mib, times_over in states:
        with Daemon(arguments, pool_mib) as daemon:
            daemon.create("bench", size_mib)
            daemon.fill("bench")
            overwrite(daemon, arguments.depth, size_mib, times_over)
            before = daemon.bytes_so_far()
            job = daemon.fio("bench", *paced)
            written, _, moved = (after - begun for begun, after in zip(before, daemon.bytes_so_far()))
            found[name] = times(job)
            print(f"latency: {name} compaction: {job['write']['iops']:,.0f} IOPS, {told(found[name])}; {moved / written:.2f} "
                  f"moved for each byte written", flush=True)
    return [("times as long for 99 of 100 writes with compaction", found["with"][1] / found["without"][1], LATENCY_RATIO_MAX,
             "at most")]


def space(arguments):
    quarter_mib = arguments.pool_mib // 4
    found = []
    for what in ("trim", "delete"):
        with Daemon(arguments, arguments.pool_mib) as daemon:
            daemon.create("bench", 2 * quarter_mib)
            daemon.create("other", quarter_mib)
            daemon.fill("bench")
            daemon.fill("other")
            time.sleep(3)
            before = daemon.slots()["free"]
            begin = time.monotonic()
            if what == "trim":
                daemon.fio("bench", "--rw=randtrim", "--bs=4k", "--iodepth=32", f"--io_size={quarter_mib}M",
                           f"--size={2 * quarter_mib}M")
            else:
                daemon.ask("DELETE", "/v1/volumes/other")
            done = time.monotonic()
            # Whole slots, and what the parcels' headers take.
            wanted = before + quarter_mib // arguments.slot_mib * 97 // 100
            while daemon.slots()["free"] < wanted and time.monotonic() - done < 4 * SPACE_SECONDS_MAX:
                time.sleep(0.25)
            seconds = time.monotonic() - done
            gained = daemon.slots()["free"] - before
            print(f"space: {what}: asked for in {done - begin:.1f} s; {gained} of {quarter_mib // arguments.slot_mib} slots back "
                  f"{seconds:.1f} s after", flush=True)
            found.append((f"s until {quarter_mib} MiB were free after a {what}", seconds, SPACE_SECONDS_MAX, "at most"))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    promises = {"uniform": uniform, "zipf": zipf, "latency": latency, "space": space}
    parser.add_argument("--pool-mib", type=int, default=4096, help="size of the pool (4096)")
    parser.add_argument("--slot-mib", type=int, default=8, help="size of a slot (8: 512 of them, as in 16 GiB of 32 MiB)")
    parser.add_argument("--live", type=int, default=75, help="percent of the pool that the volume takes (75)")
    parser.add_argument("--depth", type=int, default=64, help="writes in flight where they are not paced (64)")
    parser.add_argument("--rate", type=int, default=4000, help="paced writes a second (4000)")
    harness.judge(harness.parse(parser, promises, "bench-compaction"), promises)


if __name__ == "__main__":
    main()
