"""One measured run of a client against a server: operations, latencies, flushes, processor time, system calls.

Processor time of a server is what the kernel accounts to its process, all threads and children, from before the client
starts to after it has ended, divided by all operations of the client. The machine's is everything that was not idle,
so it has the client and the kernel's own threads (write-back) in it too.
"""

import json
import os
import signal
import subprocess
import time

from servers import SlotFailed

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
CLIENT_GRACE_SECONDS = 120
MIB = 1 << 20


def run_fio(bench, target, job, seconds, environment):
    """Runs one fio job and returns its JSON; `target` is the part that names engine and file or export.

    A job with `loops` ends when the export was gone through so often, any other after `seconds`.
    """
    timing = [] if "loops" in job else ["--time_based", f"--runtime={seconds}"]
    command = ["fio", "--name=slot", *target, *timing, "--randrepeat=0", "--norandommap", "--group_reporting",
               "--output-format=json",
               *(f"--{key}={value}" for key, value in job.items())]
    bench.note(command)
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                              env=environment, cwd=bench.work, timeout=seconds + CLIENT_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        raise SlotFailed(f"{' '.join(command)}: does not end") from None
    start = done.stdout.find("{\n")
    if done.returncode != 0 or start < 0:
        raise SlotFailed(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[:1000]}{done.stderr[-1000:]}")
    report = json.loads(done.stdout[start:])
    for one in report["jobs"]:
        if one["error"] != 0:
            raise SlotFailed(f"{' '.join(command)}: error {one['error']}")
    return report


def figures_of(report):
    """What the table needs of fio's JSON. Flushes are those that fio saw answered, as servers count them too."""
    one = report["jobs"][0]
    read, write, sync = one["read"], one["write"], one.get("sync", {})
    operations = read["total_ios"] + write["total_ios"]
    seconds = max(read["runtime"], write["runtime"]) / 1000
    if operations == 0 or seconds == 0:
        raise SlotFailed("fio did nothing")
    slowest = max((side.get("clat_ns", {}).get("percentile", {}).get("99.000000", 0) for side in (read, write)))
    return {
        "operations": operations,
        "seconds": seconds,
        "iops": operations / seconds,
        "mib_per_second": (read["io_bytes"] + write["io_bytes"]) / MIB / seconds,
        "flushes": sync.get("total_ios", 0),
        "p99_us": slowest / 1000,
    }


def run_copy(bench, command, environment):
    """Runs nbdcopy over the whole export and returns figures in the same shape."""
    bench.note(command)
    start = time.monotonic()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                          env=environment, timeout=CLIENT_GRACE_SECONDS + 300)
    seconds = time.monotonic() - start
    if done.returncode != 0:
        raise SlotFailed(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-1000:]}")
    mib = bench.size_bytes / MIB
    return {"operations": mib, "seconds": seconds, "iops": mib / seconds, "mib_per_second": mib / seconds, "flushes": 0,
            "p99_us": 0}


class ProcessorTime:
    """Processor time of a process with its threads and children, and of the whole machine."""

    def __init__(self, pid):
        self.pid = pid
        self.server_start = tree_seconds(pid) if pid else 0
        self.machine_start = machine_seconds()

    def end(self):
        server = tree_seconds(self.pid) - self.server_start if self.pid else None
        return {"server_seconds": server, "machine_seconds": machine_seconds() - self.machine_start}


def tree_seconds(pid):
    """Seconds of `pid` and its living descendants, with what was reaped of dead ones."""
    children = {}
    times = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as file:
                fields = file.read().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        children.setdefault(int(fields[1]), []).append(int(name))
        times[int(name)] = sum(int(field) for field in fields[11:15]) / TICKS_PER_SECOND
    if pid not in times:
        raise SlotFailed(f"the server (process {pid}) is gone")
    total, open_pids = 0, [pid]
    while open_pids:
        one = open_pids.pop()
        total += times.get(one, 0)
        open_pids.extend(children.get(one, []))
    return total


def machine_seconds():
    """Seconds that the machine's processors were not idle. Stolen time is not ours and left out."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _idle, _iowait, irq, softirq = (int(field) for field in file.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / TICKS_PER_SECOND


class SyscallCount:
    """Counts a server's system calls with `perf stat`, in a run of its own since counting costs time."""

    def __init__(self, pid):
        self.process = subprocess.Popen(
            ["perf", "stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", str(pid)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        time.sleep(0.5)

    def end(self):
        self.process.send_signal(signal.SIGINT)
        _, text = self.process.communicate(timeout=30)
        for line in text.splitlines():
            fields = line.split(",")
            if len(fields) > 2 and fields[2] == "raw_syscalls:sys_enter" and fields[0].isdigit():
                return int(fields[0])
        raise SlotFailed(f"perf stat counted nothing: {text}")
