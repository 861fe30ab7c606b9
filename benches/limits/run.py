#!/usr/bin/env python3
"""Promises with a number: each is measured and the run fails when one is not kept. Needs fio and python3-libnbd.

    run.py [restart] [idle] [--aljibe PROGRAM] [--work DIR]

restart  serving again in under 2 s after kill -9, with a 100 GiB volume that has 4 GiB of random 4 KiB blocks written
idle     under 0.5 % of a processor and under 100 MiB resident with 100 idle volumes attached
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time

import nbd

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import harness

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
RESTART_SECONDS_MAX = 2.0
WRITTEN_BYTES = 4 << 30
IDLE_VOLUMES = 100
IDLE_SECONDS = 30
IDLE_PROCESSOR_PERCENT_MAX = 0.5
IDLE_RESIDENT_MIB_MAX = 100


class Daemon:
    """The daemon in a folder of its own."""

    def __init__(self, program, work):
        self.program = program
        self.data = os.path.join(work, "data")
        self.socket = os.path.join(work, "nbd.sock")
        self.process = None

    def start(self):
        """Starts it and returns the seconds to its ready line."""
        begin = time.monotonic()
        self.process = subprocess.Popen(
            [self.program, "serve", "--data", self.data, "--nbd", f"unix:{self.socket}", "--api", "127.0.0.1:0",
             "--pool-size", "16G"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("ready"):
            sys.exit(f"the daemon does not serve: {line}")
        return time.monotonic() - begin

    def kill(self, number):
        self.process.send_signal(number)
        self.process.wait()

    def volume(self, *arguments):
        subprocess.run([self.program, "volume", *arguments, "--data", self.data], check=True, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL)

    def connect(self, volume):
        handle = nbd.NBD()
        handle.set_export_name(volume)
        handle.connect_unix(self.socket)
        return handle

    def uri(self, volume):
        return f"nbd+unix:///{volume}?socket={self.socket}"


def restart(daemon):
    daemon.start()
    daemon.volume("create", "wide", "--size", "100G")
    subprocess.run(["fio", "--name=fill", "--ioengine=nbd", f"--uri={daemon.uri('wide')}", "--rw=randwrite", "--bs=4k",
                    "--iodepth=64", f"--io_size={WRITTEN_BYTES}", "--norandommap", "--minimal"], check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    # The kill comes in the middle of more of the same, so that there is a tail to recover.
    writer = subprocess.Popen(["fio", "--name=more", "--ioengine=nbd", f"--uri={daemon.uri('wide')}", "--rw=randwrite",
                               "--bs=4k", "--iodepth=64", "--time_based", "--runtime=60", "--norandommap"],
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(5)
    daemon.kill(signal.SIGKILL)
    writer.wait()
    ready = daemon.start()
    begin = time.monotonic()
    handle = daemon.connect("wide")
    handle.pread(4096, 50 << 30)
    handle.pwrite(bytes(4096), 50 << 30)
    served = ready + time.monotonic() - begin
    daemon.kill(signal.SIGTERM)
    return [("seconds from kill -9 to a read and a write served", served, RESTART_SECONDS_MAX)]


def idle(daemon):
    daemon.start()
    handles = []
    for number in range(IDLE_VOLUMES):
        name = f"idle-{number}"
        daemon.volume("create", name, "--size", "10G")
        handle = daemon.connect(name)
        handle.pwrite(bytes([1]) * 65536, 0)
        handle.flush()
        handles.append(handle)
    # What follows the last write by itself is over.
    time.sleep(10)
    before = processor_seconds(daemon.process.pid)
    time.sleep(IDLE_SECONDS)
    percent = 100 * (processor_seconds(daemon.process.pid) - before) / IDLE_SECONDS
    resident = resident_mib(daemon.process.pid)
    for handle in handles:
        handle.pread(4096, 0)
    daemon.kill(signal.SIGTERM)
    return [("percent of a processor while idle", percent, IDLE_PROCESSOR_PERCENT_MAX),
            ("MiB resident while idle", resident, IDLE_RESIDENT_MIB_MAX)]


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def resident_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS:"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    promises = {"restart": restart, "idle": idle}
    arguments = harness.parse(parser, promises, "limits")
    is_kept = True
    for name in arguments.promise or promises:
        shutil.rmtree(arguments.work, ignore_errors=True)
        os.makedirs(arguments.work)
        daemon = Daemon(arguments.aljibe, arguments.work)
        try:
            for what, found, most in promises[name](daemon):
                verdict = "kept" if found <= most else "BROKEN"
                is_kept = is_kept and found <= most
                print(f"{name}: {found:.2f} {what}, at most {most}: {verdict}", flush=True)
        finally:
            if daemon.process and daemon.process.poll() is None:
                daemon.kill(signal.SIGKILL)
            shutil.rmtree(arguments.work, ignore_errors=True)
    sys.exit(0 if is_kept else 1)


if __name__ == "__main__":
    main()
