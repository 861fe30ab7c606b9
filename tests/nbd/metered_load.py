#!/usr/bin/python3
"""Loads volumes whose server is killed, remembering what they hold and what was asked when; then judges what the meter said.

    metered_load.py begin SOCKET STATE                     makes `busy` and `still` hold data
    metered_load.py load SOCKET STATE --kill PID           loads `busy` and `changing`, and kills a process meanwhile
    metered_load.py settle SOCKET STATE                    finds out what became of requests that the kill caught
    metered_load.py judge STATE FILE...                    FILE: readings, as they were shown one after the other

`still` is never touched again. `busy` is read and overwritten, so that it holds the same all the time. Blocks of `changing` are
written and trimmed. A block of it has at most one request in flight.

An operation counts from the mark before it, which is at most a second old. So a block holds data from a second before the
write was asked for at the earliest, and from its answer on at the latest; and the same of a trim. Where nothing changed the two
bounds are one number, and the register has to say just that.
"""

import argparse
import collections
import json
import os
import random
import signal
import struct
import sys
import time

import nbd

BLOCK = 4096
BUSY_BLOCKS, STILL_BLOCKS, CHANGING_BLOCKS = 4096, 1000, 2048
SIZES = {"busy": 64 << 20, "still": 32 << 20, "changing": 128 << 20}
IN_FLIGHT_MAX = 8
# What a kill may lose of the counts of requests.
LOST_MS = 2000
MARK_MS = 1000
# How far the wall clock of a reading may be from ours.
SLACK_MS = 50
BYTES_BY_TIME = ("provisioned", "written", "snapshots", "history", "physical")
COUNTS = ("reads", "writes", "read_bytes", "write_bytes")


def now_ms():
    return time.time_ns() // 1_000_000


class State:
    """What lives through all rounds, in a file."""

    def __init__(self, path):
        self.path = path
        # Of each volume: [block, whether it is written, when that was asked for, when it was answered or null].
        self.events = {volume: [] for volume in SIZES}
        # Of the beginning and of each round: what the registers have to have, at least and at most.
        self.asked = []
        self.rounds = 0
        if os.path.exists(path):
            with open(path, encoding="ascii") as file:
                stored = json.load(file)
            self.events, self.asked, self.rounds = stored["events"], stored["asked"], stored["rounds"]

    def save(self):
        with open(self.path + ".new", "w", encoding="ascii") as file:
            json.dump({"events": self.events, "asked": self.asked, "rounds": self.rounds}, file)
        os.replace(self.path + ".new", self.path)

    def holds(self, volume):
        """The last event of each block."""
        return {event[0]: event for event in self.events[volume]}


class Client:
    """A volume's client, which counts what it asks for and is told."""

    def __init__(self, socket, volume):
        self.volume = volume
        self.handle = nbd.NBD()
        self.handle.connect_uri(f"nbd+unix:///{volume}?socket={socket}")
        # (answered when or None, register of requests, register of bytes, bytes)
        self.requests = []

    def ask(self, command, block, blocks=1, then=lambda at: None):
        request = [None, "reads" if command == "read" else "writes", blocks * BLOCK if command != "trim" else 0]
        self.requests.append(request)

        def completed(error):
            if not error:
                request[0] = now_ms()
                then(request[0])
            return 1

        at, size = block * BLOCK, blocks * BLOCK
        if command == "read":
            self.handle.aio_pread(nbd.Buffer(size), at, completion=completed)
        elif command == "write":
            content = struct.pack("<QQ", block + 1, len(self.requests)) * (size // 16)
            self.handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(content)), at, completion=completed)
        else:
            self.handle.aio_trim(size, at, completion=completed)

    def drain(self):
        while self.handle.aio_in_flight():
            self.handle.poll(100)

    def counts(self, is_counted):
        counts = collections.Counter()
        for answered, register, size in self.requests:
            if is_counted(answered):
                counts[register] += 1
                counts[register.replace("s", "_bytes")] += size
        return counts

    def change(self, state, command, block):
        event = [block, command == "write", now_ms(), None]
        state.events[self.volume].append(event)

        def answered(at):
            event[3] = at

        self.ask(command, block, then=answered)


def begin(arguments, state):
    clients = [Client(arguments.socket, volume) for volume in ("busy", "still")]
    for client, blocks in zip(clients, (BUSY_BLOCKS, STILL_BLOCKS)):
        for block in range(blocks):
            client.change(state, "write", block)
            while client.handle.aio_in_flight() >= IN_FLIGHT_MAX:
                client.handle.poll(100)
        client.drain()
    note(state, clients, lambda answered: answered is not None)


def note(state, clients, is_sure):
    """Notes what was asked until the next reading: what the registers have to have of it, and what they may have."""
    asked = state.asked[state.rounds :] or [{"surely": {}, "perhaps": {}}]
    state.asked[state.rounds :] = asked
    for which, is_counted in (("surely", is_sure), ("perhaps", lambda answered: True)):
        for client in clients:
            before = collections.Counter(asked[0][which].get(client.volume, {}))
            asked[0][which][client.volume] = before + client.counts(is_counted)


def load(arguments, state):
    state.rounds += 1
    chance = random.Random(state.rounds)
    # Every other time `changing` rests, and half of the loads are over before a count is sure to be noted.
    busy, changing = Client(arguments.socket, "busy"), Client(arguments.socket, "changing")
    clients = [busy, changing] if state.rounds % 2 else [busy]
    lasts_ms = chance.randrange(50, 1500) if state.rounds % 4 < 2 else chance.randrange(2300, 4000)
    killed_at, began = None, now_ms()
    pending = state.holds("changing")
    try:
        while True:
            if killed_at is None and now_ms() - began >= lasts_ms:
                killed_at = now_ms()
                os.kill(arguments.kill, signal.SIGKILL)
            while busy.handle.aio_in_flight() < IN_FLIGHT_MAX:
                blocks = chance.choice((1, 1, 2, 16))
                busy.ask(chance.choice(("read", "write")), chance.randrange(BUSY_BLOCKS - blocks), blocks)
            # Some hundreds of changes a second: each is remembered.
            if changing in clients and changing.handle.aio_in_flight() < IN_FLIGHT_MAX and chance.random() < 0.2:
                block = chance.randrange(CHANGING_BLOCKS)
                if block not in pending or pending[block][3] is not None:
                    changing.change(state, chance.choice(("write", "write", "trim")), block)
                    pending[block] = state.events["changing"][-1]
            for client in clients:
                client.handle.poll(1)
    except nbd.Error:
        pass
    if killed_at is None:
        sys.exit("the server ended before it was killed")
    note(state, clients, lambda answered: answered is not None and answered < killed_at - LOST_MS)
    print(f"killed after {lasts_ms} ms: {sum(len(client.requests) for client in clients)} requests")


def settle(arguments, state):
    """Reads what requests that were not answered have left behind; they came, or never will."""
    client = Client(arguments.socket, "changing")
    for event in [event for event in state.events["changing"] if event[3] is None]:
        buffer = client.handle.pread(BLOCK, event[0] * BLOCK)
        client.requests.append([now_ms(), "reads", BLOCK])
        if any(buffer) == event[1]:
            event[3] = now_ms()
        else:
            state.events["changing"].remove(event)
    note(state, [client], lambda answered: answered is not None)


def bounds(events, begin, end):
    """How many byte-milliseconds there were at least and at most from `begin` to `end`."""
    least = most = 0
    by_block = collections.defaultdict(list)
    for block, is_written, asked, answered in events:
        if by_block[block][-1:] == [] or by_block[block][-1][0] != is_written:
            by_block[block].append((is_written, asked - MARK_MS - SLACK_MS, answered + SLACK_MS))
    for changes in by_block.values():
        for (is_written, earliest, latest), after in zip(changes, [*changes[1:], (False, end, end)]):
            if is_written:
                least += BLOCK * max(0, min(after[1], end) - max(latest, begin))
                most += BLOCK * max(0, min(after[2], end) - max(earliest, begin))
    return least, most


def hold(condition, *what):
    if not condition:
        sys.exit(" ".join(str(one) for one in what))


def judge(arguments, state):
    shown = collections.defaultdict(list)
    stages = []
    for name in arguments.files:
        with open(name, encoding="ascii") as file:
            newest = {}
            for reading in map(json.loads, file):
                reading["registers"] = {dimension: int(text) for dimension, text in reading["registers"].items()}
                shown[reading["resource"]].append(reading)
                newest[reading["resource"]] = reading
        for resource, reading in (stages[-1][1] if stages else {}).items():
            hold(newest[resource]["at"] >= reading["at"], name, "is behind what was shown", reading)
        stages.append((os.path.basename(name), newest))
    hold(len(shown) == len(SIZES), f"{len(shown)} volumes were read")
    exact = {}
    for (volume, size), readings in zip(SIZES.items(), (shown[resource] for resource in sorted(shown))):
        exact[volume] = judge_time(volume, size, readings, state)
    judge_counts(stages, state)
    print(f"{sum(map(len, shown.values()))} readings, exact from one to the next: {exact}")


def judge_time(volume, size, readings, state):
    """Holds bytes by time against what was there; returns from how many readings to the next that is one number."""
    hold(readings[0]["sequence"] == 0 and not any(readings[0]["registers"].values()), "no beginning", readings[0])
    exact, seen, last = 0, {}, readings[0]
    for reading in readings[1:]:
        registers = reading["registers"]
        same = seen.setdefault(reading["at"], registers)
        hold(all(same[of] == registers[of] for of in BYTES_BY_TIME), volume, "one moment, two numbers", reading, same)
        # Those that were there already are shown again.
        if reading["at"] <= last["at"]:
            continue
        hold(reading["sequence"] > 0 and reading["mark"] == "usual", volume, reading)
        more = {of: registers[of] - last["registers"][of] for of in registers}
        hold(min(more.values()) >= 0, volume, "went back", last, reading)
        passed, begin = reading["at"] - last["at"], last["wall_ms"]
        hold(abs(reading["wall_ms"] - begin - passed) <= SLACK_MS, volume, "time was lost", last, reading)
        hold(more["provisioned"] == size * passed, volume, "provisioned", more, passed)
        least, most = bounds(state.events[volume], begin, begin + passed)
        hold(least <= more["written"] <= most, volume, f"written: {more['written']}, not {least} to {most}", last, reading)
        exact += least == most
        last = reading
    return exact


def judge_counts(stages, state):
    """Holds requests against what was asked: of each stage that ends something asked, from the stage before it on."""
    ended = [(name, newest) for name, newest in stages if name.endswith("next")]
    hold(len(ended) == len(state.asked), f"{len(ended)} readings for {len(state.asked)} loads")
    names = dict(zip(sorted(stages[0][1]), SIZES))
    before = {resource: dict.fromkeys(COUNTS, 0) for resource in names}
    for (name, newest), asked in zip(ended, state.asked):
        for resource, volume in names.items():
            counted = {of: newest[resource]["registers"][of] for of in COUNTS}
            more = {of: counted[of] - before[resource][of] for of in COUNTS}
            surely, perhaps = (collections.Counter(asked[which].get(volume, {})) for which in ("surely", "perhaps"))
            hold(all(surely[of] <= more[of] <= perhaps[of] for of in COUNTS), name, volume, more, surely, perhaps)
            before[resource] = counted


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("begin", "load", "settle"):
        command = commands.add_parser(name)
        command.add_argument("socket")
        command.add_argument("state")
        if name == "load":
            command.add_argument("--kill", type=int, required=True, metavar="PID")
    command = commands.add_parser("judge")
    command.add_argument("state")
    command.add_argument("files", nargs="+")
    arguments = parser.parse_args()
    state = State(arguments.state)
    {"begin": begin, "load": load, "settle": settle, "judge": judge}[arguments.command](arguments, state)
    if arguments.command != "judge":
        state.save()


if __name__ == "__main__":
    main()
