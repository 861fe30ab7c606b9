#!/usr/bin/env python3
"""The fio matrix: Aljibe and other NBD servers in turns on the same disk. Standard library only.

Rounds go over all cases, cases over all servers, and the order of servers is rotated from slot to slot. A slot is a fresh
server process, content and page cache in the state that the case names, then one run of the client. A failed slot makes
the run a failed run (exit 1). Beside the table are the machine, kernel, versions, commands and raw output.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time

import cases as matrix
import measure
import report
import servers as programs
from servers import SlotFailed

CACHE = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))
STATE = os.environ.get("XDG_STATE_HOME", os.path.expanduser("~/.local/state"))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(CACHE, "aljibe", "target"))
RAW = {"raw-direct": 1, "raw-buffered": 0}
SYSCALL_SECONDS = 2


def main():
    arguments = parse_arguments()
    chosen_cases = choose(matrix.all_cases(), arguments.only, lambda case: case.name, "case")
    everything = [(server.name, server) for server in programs.ALL] + [(name, None) for name in RAW]
    chosen = choose(everything, arguments.servers, lambda entry: entry[0], "server", exactly=True)
    for _, server in chosen:
        if server and server.missing_tool():
            sys.exit(f"{server.missing_tool()} is not installed: scripts/install-deps.sh test")
    os.makedirs(arguments.work, exist_ok=True)
    os.makedirs(os.path.join(arguments.results, "raw"), exist_ok=True)
    # What an earlier run left behind may be of another size or version.
    shutil.rmtree(os.path.join(arguments.work, "aljibe"), ignore_errors=True)
    bench = programs.Bench(arguments.work, arguments.size_mib << 20, arguments.aljibe)
    bench.make_source()
    bench.make_certificates()
    run = Run(bench, arguments, chosen)
    write(arguments.results, "machine.txt", describe_machine(arguments))
    for round_number in range(1, arguments.rounds + 1):
        for index, case in enumerate(chosen_cases):
            turn = (round_number + index) % len(chosen)
            for name, _ in chosen[turn:] + chosen[:turn]:
                run.slot(case, name, round_number)
    finish(run, chosen_cases, chosen, arguments)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of 2 seconds")
    parser.add_argument("--only", metavar="CASE,...", help="cases by name, or the beginning of names")
    parser.add_argument("--servers", metavar="NAME,...", help="servers by name; raw-direct and raw-buffered are two")
    parser.add_argument("--rounds", type=int, help="rounds (3)")
    parser.add_argument("--seconds", type=int, help="seconds of each slot (5)")
    parser.add_argument("--size-mib", type=int, default=2048, help="size of the export (2048)")
    parser.add_argument("--syscalls", action="store_true", help="count system calls in a short run after each slot")
    parser.add_argument("--list", action="store_true", help="list cases and servers")
    parser.add_argument("--aljibe", default=os.path.join(TARGET, "release", "aljibe"), help="the program to measure")
    parser.add_argument("--work", default=os.path.join(CACHE, "aljibe", "bench"), help="folder on the disk to measure")
    parser.add_argument("--results", help="folder for the results (below ~/.local/state/aljibe/bench)")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(f"{case.name:20} {case.title}" for case in matrix.all_cases()))
        print("servers:", ", ".join([server.name for server in programs.ALL] + list(RAW)))
        sys.exit(0)
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 3)
    arguments.seconds = arguments.seconds or (2 if arguments.quick else 5)
    arguments.results = arguments.results or os.path.join(STATE, "aljibe", "bench", time.strftime("%Y-%m-%d-%H%M%S"))
    return arguments


def choose(items, names, name_of, noun, exactly=False):
    if not names:
        return items
    found = []
    for name in names.split(","):
        matching = [item for item in items
                    if name_of(item) == name or (not exactly and name_of(item).startswith(name))]
        if not matching:
            sys.exit(f"no {noun} is called {name}: see --list")
        found += [item for item in matching if item not in found]
    return found


class Run:
    """The state of a run: servers with what is on their disks, slots done, slots failed."""

    def __init__(self, bench, arguments, chosen):
        self.bench = bench
        self.arguments = arguments
        self.servers = {name: server(bench) for name, server in chosen if server}
        self.raw_is_dirty = True
        self.slots = []
        self.failures = []
        self.environment = bench.client_environment()

    def slot(self, case, name, round_number):
        """One server's turn in one case; a failure is noted and the run goes on."""
        server = self.servers.get(name)
        if (case.tls and not (server and server.can_tls)) or (server is None and not case.has_raw):
            return
        label = f"round {round_number}: {case.name}: {name}"
        try:
            figures, raw_output = self.measured(case, name, server)
        except (SlotFailed, OSError, subprocess.SubprocessError) as failure:
            print(f"{label}: FAILED: {failure}", flush=True)
            self.failures.append({"case": case.name, "server": name, "round": round_number, "reason": str(failure)})
            return
        figures.update(case=case.name, server=name, round=round_number)
        figures["speed"] = figures["iops"] if case.unit == "IOPS" else figures["mib_per_second"]
        self.slots.append(figures)
        write(os.path.join(self.arguments.results, "raw"), f"{round_number}-{case.name}-{name}.json", raw_output)
        cost = figures.get("server_us")
        print(f"{label}: {figures['speed']:,.0f} {case.unit}"
              + (f", {cost:.1f} us of its processor time each" if cost is not None else ""), flush=True)

    def measured(self, case, name, server):
        self.bring_to_state(case, server)
        if server is None:
            return self.measured_raw(case, name)
        try:
            server.start(tls=case.tls)
            self.warm(case, server)
            if case.before_seconds:
                self.client(case, server, case.before_seconds)
            meter = measure.ProcessorTime(server.pid)
            figures, raw_output = self.client(case, server, self.arguments.seconds)
            used = meter.end()
            figures["server_us"] = used["server_seconds"] * 1e6 / figures["operations"]
            figures["machine_us"] = used["machine_seconds"] * 1e6 / figures["operations"]
            if case.tool == "copy-in":
                self.verify(server)
            if self.arguments.syscalls and case.tool == "fio":
                counter = measure.SyscallCount(server.pid)
                counted, _ = self.client(case, server, SYSCALL_SECONDS)
                figures["syscalls"] = counter.end() / counted["operations"]
        finally:
            server.stop()
        return figures, raw_output

    def bring_to_state(self, case, server):
        """Fills if the case asks for it and the content is not the source's, then empties the page cache."""
        is_peer = server is None or server.is_peer
        is_dirty = self.raw_is_dirty if is_peer else server.dirty
        if is_dirty:
            (server or programs.Nbdkit(self.bench)).fill()
        if is_peer:
            self.raw_is_dirty = case.writes
        else:
            server.dirty = case.writes
        self.bench.drop_caches([self.bench.source] + (server.paths() if server else [self.bench.raw]))

    def warm(self, case, server):
        if case.state == "warm":
            self.bench.run(["nbdcopy", "--connections=1", server.uri, "null:"], env=self.environment)
        if case.state == "random-warm":
            job = {"rw": "randread", "bs": "4k", "iodepth": 32, "io_size": self.bench.size_bytes, "norandommap": 0}
            self.read_once(["--ioengine=nbd", f"--uri={server.uri}"], job)
        if case.tool == "copy-in":
            self.bench.run(["dd", f"if={self.bench.source}", "of=/dev/null", "bs=4M"])

    def read_once(self, target, job):
        command = ["fio", "--name=warm", *target, *(f"--{key}={value}" for key, value in job.items())]
        self.bench.run(command, env=self.environment, cwd=self.bench.work)

    def client(self, case, server, seconds):
        if case.tool == "fio":
            target = ["--ioengine=nbd", f"--uri={server.uri}"]
            output = measure.run_fio(self.bench, target, case.fio, seconds, self.environment)
            return measure.figures_of(output), json.dumps(output, indent=1)
        ends = [server.uri, "null:"] if case.tool == "copy-out" else ["--flush", self.bench.source, server.uri]
        figures = measure.run_copy(self.bench, ["nbdcopy", "--connections=4", *ends], self.environment)
        return figures, json.dumps(figures, indent=1)

    def verify(self, server):
        """What was copied in must come out again."""
        copy = os.path.join(self.bench.work, "copy.raw")
        try:
            self.bench.run(["nbdcopy", server.uri, copy], env=self.environment)
            self.bench.run(["cmp", self.bench.source, copy])
        finally:
            if os.path.exists(copy):
                os.unlink(copy)

    def measured_raw(self, case, name):
        """The same job on the raw file itself, without a server: by io_uring, direct or through the page cache."""
        direct = RAW[name]
        # fio would empty the file's page cache first; the case says what is in it.
        target = ["--ioengine=io_uring", f"--filename={self.bench.raw}", f"--direct={direct}", "--invalidate=0"]
        job = dict(case.fio)
        if "fsync" in job:
            job["fdatasync"] = job.pop("fsync")
        if case.state == "warm" and not direct:
            self.bench.run(["dd", f"if={self.bench.raw}", "of=/dev/null", "bs=1M"])
        if case.state == "random-warm" and not direct:
            self.read_once(target, {"rw": "randread", "bs": "4k", "iodepth": 32})
        if case.before_seconds:
            measure.run_fio(self.bench, target, job, case.before_seconds, self.environment)
        output = measure.run_fio(self.bench, target, job, self.arguments.seconds, self.environment)
        return measure.figures_of(output), json.dumps(output, indent=1)


def finish(run, chosen_cases, chosen, arguments):
    rows = [(name, server is not None and server.is_peer) for name, server in chosen]
    text = report.render(chosen_cases, rows, report.summarize(run.slots), run.failures)
    head = (f"# NBD servers side by side\n\n{arguments.rounds} round(s) of {arguments.seconds} s, an export of "
            f"{arguments.size_mib} MiB of random bytes, medians; spread is (largest - smallest) / median.\n"
            "Peers serve one raw file, written before; Aljibe serves a volume in a pool whose slots were used before.\n"
            "A ratio where flushes bound the speed says little on a disk whose flush is cheap; see raw-direct beside it.\n"
            "fio at a depth above 1 repeats a flush until one completes, so flushes are counted, not assumed.\n\n"
            "```\n" + describe_machine(arguments) + "```\n")
    write(arguments.results, "report.md", head + text)
    write(arguments.results, "slots.json", json.dumps(run.slots, indent=1))
    write(arguments.results, "commands.txt", "\n".join(run.bench.commands) + "\n")
    print(text)
    print(f"results: {arguments.results}")
    shutil.rmtree(os.path.join(arguments.work, "aljibe"), ignore_errors=True)
    if os.path.exists(run.bench.raw):
        os.unlink(run.bench.raw)
    if run.failures:
        sys.exit(f"{len(run.failures)} slots failed: this run is a failed run")


def describe_machine(arguments):
    def first_line(*command):
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        except OSError:
            return f"{command[0]}: not installed"
        return (done.stdout + done.stderr).strip().split("\n", maxsplit=1)[0]

    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = file.readline().split()[1]
    filesystem = subprocess.run(["df", "--output=fstype,size,avail", arguments.work], capture_output=True, text=True,
                                check=False).stdout.strip().split("\n")[-1]
    lines = [f"kernel: {first_line('uname', '-srm')}", f"processors: {len(models)} of {models[0] if models else '?'}",
             f"memory: {int(memory) // 1024} MiB", f"disk: {filesystem.strip()} (type, KiB, KiB free)",
             f"load at start: {' '.join(str(load) for load in os.getloadavg())}"]
    for command in (["fio", "--version"], ["nbdcopy", "--version"], ["nbdkit", "--version"], ["qemu-nbd", "--version"],
                    ["qemu-storage-daemon", "--version"], ["nbd-server", "-V"], [arguments.aljibe, "--version"]):
        lines.append(f"{os.path.basename(command[0])}: {first_line(*command)}")
    return "\n".join(lines) + "\n"


def write(folder, name, text):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    main()
