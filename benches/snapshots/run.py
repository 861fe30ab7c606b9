#!/usr/bin/env python3
"""What snapshots, clones and images cost, against their promised numbers. Needs fio with its nbd engine, nbdcopy, qemu-img,
qemu-nbd.

    run.py [create] [first-write] [thousand] [depth] [image] [diff] [--aljibe PROGRAM] [--work DIR] [--rounds N] [--size-mib N]

create       a snapshot under load is taken in under 10 ms (99 of 100), whatever the size; beside it, what one bare sync of a
             block costs on this disk under the same load, which no durable answer can be under, and how long writes wait
first-write  the first 4 KiB write in each 64 KiB after a snapshot, depth 32: 20 times qemu-nbd on a qcow2 with an internal
             snapshot, and within 10 % of our own without one
thousand     1,000 snapshots under write load, then all deleted: the space is back, and no write waits over 100 ms for it
depth        random reads through a chain of 50 clones against a single one
image        a volume is made of an image in under a second, by the command: the median of 20 of the image's size, and of 20
             of twice that; the fiftieth is as soon there as the first
diff         what differs of 64 TiB in 1,000 places is told in under a second, and of every other block of 1 GiB
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
from harness import MIB, Failed, fio, fio_command, run

CREATE_MS_MAX = 10
STALL_MS_MAX = 100
PEER_RATIO_MIN = 20
OWN_RATIO_MIN = 0.9
SNAPSHOTS_UNDER_LOAD = 100
DIFF_SECONDS_MAX = 1
DIFF_ALL_SECONDS_MAX = 10
CREATE_RATE = 40000
THOUSAND = 1000
DEPTH = 50
IMAGE_VOLUMES = 20
IMAGE_SECONDS_MAX = 1
SPACE_SECONDS_MAX = 60
READ_SECONDS = 4


class Daemon(harness.Daemon):
    """A daemon with room for some volumes of the size asked for."""

    def __init__(self, arguments):
        super().__init__(arguments, "--pool-size", f"{arguments.size_mib * 4 + 2048}M")

    def snapshot(self, name):
        return self.ask("POST", "/v1/snapshots", {"snapshots": [name]})[1]

    def delete_snapshot(self, name):
        return self.ask("DELETE", f"/v1/snapshots/{name}")[1]

    def slots_used(self):
        return self.slots()["used"]


class Load:
    """4 KiB random writes at a fixed rate, until it is ended; the longest that one of them took."""

    def __init__(self, uri, rate, *options):
        self.process = subprocess.Popen(
            fio_command(uri, "--rw=randwrite", "--bs=4k", f"--rate_iops={rate}", "--norandommap", "--time_based",
                        "--runtime=3600", *options),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(2)

    def end(self):
        self.process.send_signal(signal.SIGINT)
        text, _ = self.process.communicate(timeout=60)
        start = text.find("{\n")
        if start < 0:
            raise Failed(f"fio says nothing: {text[-500:]}")
        write = json.loads(text[start:])["jobs"][0]["write"]
        return write["clat_ns"]["max"] / 1e6, write["total_ios"]


def source_of(arguments):
    source = os.path.join(arguments.work, "source.raw")
    if not os.path.exists(source):
        with open(source, "wb") as file:
            for _ in range(0, arguments.size_mib, 8):
                file.write(os.urandom(8 * MIB))
    return source


def fill(arguments, uri):
    source = source_of(arguments)
    run(["nbdcopy", "--flush", source, uri])
    return source


def drop_caches():
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write("3")
    except OSError:
        print("not root: the page cache is as it is", file=sys.stderr)


def create(arguments):
    with Daemon(arguments) as daemon:
        found = []
        for size in ("1G", "64T"):
            name = f"v{size}".lower()
            daemon.command("volume", "create", name, "--size", size)
            with open(os.path.join(arguments.work, "bare"), "wb") as file:
                told("a bare sync", size, *under_load(daemon, name, lambda _: bare_sync(file)))
            most = told("a snapshot", size, *under_load(daemon, name, lambda n: daemon.snapshot(f"{name}@s{n}")))
            found.append((f"ms for 99 of 100 snapshots of {size} under load", most, CREATE_MS_MAX, "at most"))
        return found


def under_load(daemon, name, act):
    """Acts some times beside a load; returns the milliseconds of each, and of the longest write."""
    load = Load(daemon.uri(name), CREATE_RATE, "--iodepth=32", "--size=1G")
    times = []
    for number in range(SNAPSHOTS_UNDER_LOAD):
        times.append(act(number))
        time.sleep(0.05)
    longest, _ = load.end()
    return sorted(times), longest


def bare_sync(file):
    os.pwrite(file.fileno(), b"x" * 4096, 0)
    begin = time.monotonic()
    os.fdatasync(file.fileno())
    return 1000 * (time.monotonic() - begin)


def told(what, size, times, longest):
    most = times[int(len(times) * 0.99) - 1]
    print(f"create: {size}: {what}: median {statistics.median(times):.1f} ms, 99 of 100 in {most:.1f} ms, longest "
          f"{times[-1]:.1f} ms; the longest write beside them {longest:.1f} ms", flush=True)
    return most


FIRST_WRITES = ("--rw=write:60k", "--bs=4k", "--iodepth=32")


def first_write(arguments):
    count = arguments.size_mib * MIB // (64 << 10)
    pattern = (*FIRST_WRITES, f"--number_ios={count}", f"--size={arguments.size_mib}M")
    without, after, peer = [], [], []
    for number in range(1, arguments.rounds + 1):
        with Daemon(arguments) as daemon:
            daemon.command("volume", "create", "bench", "--size", f"{arguments.size_mib}M")
            source = fill(arguments, daemon.uri("bench"))
            drop_caches()
            without.append(fio(daemon.uri("bench"), *pattern)["write"]["iops"])
            daemon.snapshot("bench@first")
            drop_caches()
            after.append(fio(daemon.uri("bench"), *pattern)["write"]["iops"])
        peer.append(qcow2(arguments, source, pattern))
        print(f"first-write: round {number}: without {without[-1]:,.0f} IOPS, after a snapshot {after[-1]:,.0f}, "
              f"qcow2 {peer[-1]:,.0f}", flush=True)
    without, after, peer = (statistics.median(values) for values in (without, after, peer))
    return [("of a qcow2 with an internal snapshot", after / peer, PEER_RATIO_MIN, "at least"),
            ("of our own without a snapshot", after / without, OWN_RATIO_MIN, "at least")]


def qcow2(arguments, source, pattern):
    image = os.path.join(arguments.work, "peer.qcow2")
    path = os.path.join(arguments.work, "peer.sock")
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", source, image])
    run(["qemu-img", "snapshot", "-c", "first", image])
    drop_caches()
    server = subprocess.Popen(["qemu-nbd", "-t", "-f", "qcow2", "--cache=writeback", "-x", "bench", "-k", path, image],
                              stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not os.path.exists(path):
            if server.poll() is not None or time.monotonic() > deadline:
                raise Failed("qemu-nbd does not serve")
            time.sleep(0.05)
        return fio(f"nbd+unix:///bench?socket={path}", *pattern)["write"]["iops"]
    finally:
        server.terminate()
        server.wait(60)
        os.unlink(image)


def thousand(arguments):
    with Daemon(arguments) as daemon:
        daemon.command("volume", "create", "bench", "--size", f"{arguments.size_mib}M")
        fill(arguments, daemon.uri("bench"))
        rate = 2000
        alone, _ = timed_load(daemon, rate, lambda: time.sleep(10))
        before = daemon.slots_used()
        begin = time.monotonic()
        taking, _ = timed_load(daemon, rate,
                               lambda: [daemon.snapshot(f"bench@s{number}") for number in range(THOUSAND)])
        print(f"thousand: taken in {time.monotonic() - begin:.1f} s; longest write {taking:.1f} ms, {alone:.1f} ms "
              f"without; {daemon.slots_used() - before} more slots", flush=True)
        begin = time.monotonic()
        deleting, _ = timed_load(daemon, rate,
                                 lambda: [daemon.delete_snapshot(f"bench@s{number}") for number in range(THOUSAND)])
        print(f"thousand: deleted in {time.monotonic() - begin:.1f} s; longest write {deleting:.1f} ms", flush=True)
        begin = time.monotonic()
        slack = max(2, before // 4)
        while daemon.slots_used() > before + slack and time.monotonic() - begin < 4 * SPACE_SECONDS_MAX:
            time.sleep(0.5)
        seconds = time.monotonic() - begin
        print(f"thousand: {daemon.slots_used()} slots used, {before} before the first", flush=True)
        return [("ms, the longest write while they were taken", taking, STALL_MS_MAX, "at most"),
                ("ms, the longest write while they were deleted", deleting, STALL_MS_MAX, "at most"),
                ("s until the space was back", seconds, SPACE_SECONDS_MAX, "at most")]


def timed_load(daemon, rate, act):
    load = Load(daemon.uri("bench"), rate, "--iodepth=4")
    try:
        act()
    finally:
        longest = load.end()
    return longest


def depth(arguments):
    with Daemon(arguments) as daemon:
        daemon.command("volume", "create", "bench-0", "--size", f"{arguments.size_mib}M")
        fill(arguments, daemon.uri("bench-0"))
        for level in range(1, DEPTH + 1):
            daemon.snapshot(f"bench-{level - 1}@s")
            daemon.command("volume", "clone", f"bench-{level - 1}@s", f"bench-{level}")
            # Something of each level's own is in the way of the next.
            fio(daemon.uri(f"bench-{level}"), "--rw=randwrite", "--bs=4k", "--number_ios=100", "--norandommap")
        figures = {}
        for level in (1, DEPTH):
            for state in ("cold", "warm"):
                if state == "cold":
                    drop_caches()
                job = fio(daemon.uri(f"bench-{level}"), "--rw=randread", "--bs=4k", "--iodepth=32", "--norandommap",
                          "--time_based", f"--runtime={READ_SECONDS}")
                figures[level, state] = job["read"]["iops"]
                print(f"depth: {level} {state}: {figures[level, state]:,.0f} IOPS", flush=True)
        return [(f"of the reads at depth 1 at depth {DEPTH}, warm", figures[DEPTH, "warm"] / figures[1, "warm"], 0.8,
                 "at least")]


def image(arguments):
    with Daemon(arguments) as daemon:
        begin = time.monotonic()
        daemon.command("image", "import", source_of(arguments), "base")
        print(f"image: imported {arguments.size_mib} MiB in {time.monotonic() - begin:.1f} s", flush=True)
        found = []
        for what, size in (("of the image's size", ()), ("of twice that", ("--size", f"{2 * arguments.size_mib}M"))):
            times = []
            for _ in range(IMAGE_VOLUMES):
                name = f"v{len(found)}-{len(times)}"
                begin = time.monotonic()
                daemon.command("volume", "create", name, "--image", "base", *size)
                times.append(time.monotonic() - begin)
            print(f"image: {what}: median {statistics.median(times):.3f} s, longest {max(times):.3f} s", flush=True)
            found.append((f"s, the median of {IMAGE_VOLUMES} volumes {what}", statistics.median(times)))
        last = 0
        for number in range(2 * IMAGE_VOLUMES, 50):
            begin = time.monotonic()
            daemon.command("volume", "create", f"v{number}", "--image", "base")
            last = time.monotonic() - begin
        found.append(("s, the fiftieth volume", last))
        return [(what, seconds, IMAGE_SECONDS_MAX, "at most") for what, seconds in found]


def diff(arguments):
    with Daemon(arguments) as daemon:
        found = []
        few = ("--rw=randwrite", "--bs=4k", "--number_ios=1000", "--norandommap")
        every_other = ("--rw=write:4k", "--bs=4k", "--iodepth=32", "--size=1G", "--number_ios=131072")
        for what, size, pattern, bound in (("1,000 blocks of 64 TiB", "64T", few, DIFF_SECONDS_MAX),
                                           ("every other block of 1 GiB", "1G", every_other, DIFF_ALL_SECONDS_MAX)):
            name = f"d{size}".lower()
            daemon.command("volume", "create", name, "--size", size)
            daemon.snapshot(f"{name}@a")
            fio(daemon.uri(name), *pattern)
            daemon.snapshot(f"{name}@b")
            begin = time.monotonic()
            extents = json.loads(daemon.command("snapshot", "diff", f"{name}@a", f"{name}@b", "--json"))
            seconds = time.monotonic() - begin
            print(f"diff: {what}: {len(extents)} extents in {seconds:.2f} s", flush=True)
            found.append((f"s to tell {what}", seconds, bound, "at most"))
        return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    promises = {"create": create, "first-write": first_write, "thousand": thousand, "depth": depth, "image": image,
                "diff": diff}
    parser.add_argument("--rounds", type=int, default=3, help="rounds of first-write (3)")
    parser.add_argument("--size-mib", type=int, default=2048, help="size of a volume (2048)")
    harness.judge(harness.parse(parser, promises, "bench-snapshots"), promises)


if __name__ == "__main__":
    main()
