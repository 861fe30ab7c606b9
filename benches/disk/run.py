#!/usr/bin/env python3
"""What this disk says to the open questions of the engine. Standard library and fio only.

    run.py [append] [uring] [read] [device] [slots] [--rounds N] [--seconds N] [--work DIR]

append  batches of 8 KiB and 128 KiB at the end of a log, alone and each followed by fdatasync: through the page cache
        or direct, into extents never written, written before, and recycled with their old pages still cached
uring   the same append through the page cache, by io_uring or by a plain pwrite, with the processor time it costs
read    4 KiB random reads, direct and from the page cache
device  direct appends into a file and into a block device (a loop device stands in where no free disk is named)
slots   what the size of a slot costs, by arithmetic alone

Figures are medians over rounds, with the spread (largest - smallest) / median. Each run is a fresh fio.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

CACHE = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
FILE_BYTES = 2 * GIB


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    questions = {"append": append, "uring": uring, "read": read, "device": device, "slots": slots}
    parser.add_argument("question", nargs="*", help="append, uring, read, device, slots (all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--device", help="a free block device, whose content is LOST")
    parser.add_argument("--work", default=os.path.join(CACHE, "aljibe", "disk-bench"))
    arguments = parser.parse_args()
    unknown = set(arguments.question) - set(questions)
    if unknown:
        parser.error(f"no question is called {', '.join(unknown)}")
    os.makedirs(arguments.work, exist_ok=True)
    print(f"kernel {os.uname().release}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, "
          f"{arguments.rounds} rounds of {arguments.seconds} s, folder on {file_system(arguments.work)}")
    path = os.path.join(arguments.work, "pool")
    try:
        for name in arguments.question or questions:
            print(f"\n## {name}\n")
            questions[name](path, arguments)
    finally:
        if os.path.exists(path):
            os.unlink(path)


def file_system(folder):
    return run(["df", "--output=fstype,source", folder]).strip().split("\n")[-1]


def run(command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def fio(path, seconds, **job):
    """Runs one job and returns operations per second, 99th percentile in us, processor us per operation.

    fio is told to leave the page cache as it finds it, since that is what differs between runs.
    """
    command = ["fio", "--name=q", f"--filename={path}", f"--size={FILE_BYTES}", "--time_based", f"--runtime={seconds}",
               "--fallocate=none", "--invalidate=0", "--output-format=json", *(f"--{key}={value}" for key, value in job.items())]
    text = run(command)
    one = json.loads(text[text.index("{\n"):])["jobs"][0]
    side = one["write"] if one["write"]["total_ios"] else one["read"]
    seconds = side["runtime"] / 1000
    processor = (one["usr_cpu"] + one["sys_cpu"]) / 100 * seconds
    return (side["total_ios"] / seconds, side["clat_ns"]["percentile"]["99.000000"] / 1000,
            processor * 1e6 / side["total_ios"])


def drop_caches():
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write("3")
    except OSError:
        sys.exit("only root can empty the page cache, and cached pages are the question here")


def fresh(path):
    """Extents that were never written."""
    if os.path.exists(path):
        os.unlink(path)
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, FILE_BYTES)
        os.fsync(file.fileno())
    drop_caches()


def written(path):
    """Extents that hold data, with nothing cached."""
    if not os.path.exists(path) or os.path.getsize(path) != FILE_BYTES or is_unwritten(path):
        fresh(path)
        run(["dd", "if=/dev/urandom", f"of={path}", "bs=4M", f"count={FILE_BYTES // (4 * MIB)}",
             "conv=notrunc,fdatasync"])
    drop_caches()


def is_unwritten(path):
    return "unwritten" in run(["filefrag", "-v", path])


def cached_by_reading(path):
    """Written extents whose pages a sequential read has cached: large folios, by readahead."""
    written(path)
    run(["dd", f"if={path}", "of=/dev/null", "bs=1M"])


def cached_by_writing(path):
    """Written extents whose pages are those of the writes that came before, clean by now."""
    written(path)
    run(["dd", "if=/dev/zero", f"of={path}", "bs=128K", f"count={FILE_BYTES // (128 * KIB)}", "conv=notrunc,fdatasync"])


STATES = [("never written", fresh), ("written, not cached", written), ("cached by a read", cached_by_reading),
          ("cached by writes", cached_by_writing)]


def table(heads, rows):
    """`rows` give a label tuple and a list of (rate, p99, processor) over rounds."""
    print("| " + " | ".join([*heads, "per second", "spread", "p99 us", "processor us each"]) + " |")
    print("|" + " --- |" * len(heads) + " ---: | ---: | ---: | ---: |")
    for labels, results in rows:
        rates = [result[0] for result in results]
        middle = statistics.median(rates)
        print("| " + " | ".join(labels) + f" | {middle:,.0f} | {100 * (max(rates) - min(rates)) / middle:.0f} % | "
              f"{statistics.median(result[1] for result in results):,.0f} | "
              f"{statistics.median(result[2] for result in results):.1f} |", flush=True)


def in_rounds(arguments, variants, measure):
    """Measures every variant once a round, so that slow drifts hit all alike."""
    results = {variant: [] for variant in variants}
    for _ in range(arguments.rounds):
        for variant in variants:
            results[variant].append(measure(*variant))
    return results


def append(path, arguments):
    variants = [(batch, synced, direct, state) for state in range(len(STATES)) for batch in (8, 128)
                for synced in (0, 1) for direct in (0, 1)]

    def measure(batch, synced, direct, state):
        STATES[state][1](path)
        job = {"fdatasync": 1} if synced else {}
        return fio(path, arguments.seconds, rw="write", bs=f"{batch}k", ioengine="psync", direct=direct, **job)

    results = in_rounds(arguments, variants, measure)
    table(["extents", "batch", "by", "fdatasync"],
          [((STATES[state][0], f"{batch} KiB", "direct" if direct else "page cache", "each" if synced else "none"), result)
           for (batch, synced, direct, state), result in results.items()])


def uring(path, arguments):
    engines = [("psync", 1), ("io_uring", 1), ("io_uring", 8)]
    variants = [(batch, engine, depth) for batch in (8, 128) for engine, depth in engines]

    def measure(batch, engine, depth):
        written(path)
        return fio(path, arguments.seconds, rw="write", bs=f"{batch}k", ioengine=engine, iodepth=depth, direct=0)

    results = in_rounds(arguments, variants, measure)
    table(["batch", "by", "depth"],
          [((f"{batch} KiB", engine, str(depth)), result) for (batch, engine, depth), result in results.items()])


def read(path, arguments):
    variants = [(state, direct, depth) for state, direct in (("cached", 0), ("not cached", 0), ("not cached", 1))
                for depth in (1, 32)]

    def measure(state, direct, depth):
        (cached_by_reading if state == "cached" else written)(path)
        return fio(path, arguments.seconds, rw="randread", bs="4k", ioengine="io_uring", iodepth=depth, direct=direct,
                   norandommap=1)

    results = in_rounds(arguments, variants, measure)
    table(["state", "by", "depth"],
          [((state, "direct" if direct else "page cache", str(depth)), result)
           for (state, direct, depth), result in results.items()])


def device(path, arguments):
    target, is_loop = arguments.device, False
    if not target:
        print("No free block device was named (--device): a loop device with direct I/O over a file of its own stands in;\n"
              "it adds a layer that a disk would not have, so it bounds the gain from below.\n")
        backing = path + ".loop"
        with open(backing, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, FILE_BYTES)
        run(["dd", "if=/dev/urandom", f"of={backing}", "bs=4M", f"count={FILE_BYTES // (4 * MIB)}",
             "conv=notrunc,fdatasync"])
        target, is_loop = run(["losetup", "--find", "--show", "--direct-io=on", backing]).strip(), True
    try:
        variants = [(place, batch, synced) for batch in (8, 128) for synced in (0, 1) for place in ("file", "device")]

        def measure(place, batch, synced):
            if place == "file":
                written(path)
            drop_caches()
            job = {"fdatasync": 1} if synced else {}
            return fio(path if place == "file" else target, arguments.seconds, rw="write", bs=f"{batch}k",
                       ioengine="psync", direct=1, **job)

        results = in_rounds(arguments, variants, measure)
        table(["pool on", "batch", "fdatasync"],
              [((place, f"{batch} KiB", "each" if synced else "none"), result)
               for (place, batch, synced), result in results.items()])
    finally:
        if is_loop:
            run(["losetup", "--detach", target])
            os.unlink(path + ".loop")


# docs/format.md: a footer has an entry for each operation and check data for each block, and its own block.
FOOTER_OPERATION_BYTES = 36
FOOTER_CHECK_BYTES = 16
SCAN_BYTES_PER_SECOND = 1000 * MIB


def footer_bytes(slot, blocks_each):
    """The footer of a slot full of batches of 32 operations of `blocks_each` blocks, in whole blocks."""
    payload = slot // 4096
    return (-(-(payload // blocks_each * FOOTER_OPERATION_BYTES + payload * FOOTER_CHECK_BYTES) // 4096) + 1) * 4096


def slots(_path, _arguments):
    print(f"A scan of an unsealed slot is taken as {SCAN_BYTES_PER_SECOND // MIB} MiB/s.\n")
    print("| slot | slots per TiB | footer, 4 KiB writes | footer, 128 KiB writes | seals/s at 1 GiB/s | open slots of 1,000 "
          "busy volumes | scan of an open slot | smallest pool (3 free slots at 25 %) |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for slot_mib in (8, 32, 128):
        slot = slot_mib * MIB
        small, large = footer_bytes(slot, 1), footer_bytes(slot, 32)
        print(f"| {slot_mib} MiB | {1024 * GIB // slot:,} | {small // KIB} KiB, {100 * small / slot:.2f} % | "
              f"{large // KIB} KiB, {100 * large / slot:.2f} % | {GIB / slot:.0f} | {1000 * slot / GIB:.1f} GiB | "
              f"{1000 * slot / SCAN_BYTES_PER_SECOND:.0f} ms | {12 * slot_mib} MiB |")


if __name__ == "__main__":
    main()
