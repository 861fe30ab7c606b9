#!/usr/bin/python3
"""Two sites, their witness and clients as real processes, with a link that is cut, stalled and flaps, and processes that are stopped.

    faults.py --aljibe PROGRAM [--seconds N] [CASE ...]

Each case runs clients (history.py) that hold every answer against what they know, at both sites, while something goes wrong again and again for so
many seconds (60 unless said otherwise); then all is well, both sites have to come to be in sync, and the clients to find nothing lost and nothing stale.
`make faults-mirror` runs all cases. With `--pass-on` sites pass requests on.
"""

import argparse
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from sites import Sites, free_ports

HERE = os.path.dirname(os.path.abspath(__file__))


class Relay(threading.Thread):
    """Carries connections to a port, in both directions, as far as it is let to."""

    def __init__(self, port, to):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", port))
        self.to = to
        self.pairs = {}
        self.is_cut = False
        # Which directions stand still: from who connected, and back.
        self.is_still = [False, False]
        self.start()

    def run(self):
        while True:
            readers = [self.listener]
            for (one, other) in list(self.pairs.items()):
                if not self.is_still[other[1]]:
                    readers.append(one)
            ready, _, _ = select.select(readers, [], [], 0.02)
            if self.is_cut:
                self.close_all()
            for one in ready:
                if one is self.listener:
                    self.accept()
                elif one in self.pairs:
                    self.carry(one)

    def accept(self):
        client, _ = self.listener.accept()
        if self.is_cut:
            return client.close()
        try:
            server = socket.create_connection(("127.0.0.1", self.to), timeout=1)
        except OSError:
            return client.close()
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.settimeout(5)
        self.pairs[client], self.pairs[server] = (server, 0), (client, 1)
        return None

    def carry(self, one):
        other = self.pairs[one][0]
        try:
            data = one.recv(1 << 18)
            if data:
                return other.sendall(data)
        except OSError:
            pass
        for end in (one, other):
            self.pairs.pop(end, None)
            end.close()
        return None

    def close_all(self):
        for one in list(self.pairs):
            one.close()
        self.pairs.clear()


class World:
    """Sites whose link goes through a relay in each direction."""

    def __init__(self, program, work, more):
        ports = free_ports(2)
        self.sites = Sites(program, work, more, 64, ports, self.start_relays)
        self.random = random.Random(1)

    def start_relays(self, links, ports):
        # Who connects to port N reaches site N+1.
        self.relays = [Relay(port, link) for port, link in zip(ports, links)]

    def leader(self):
        for site in self.sites.sites:
            if site.mirror().get("serves"):
                return site
        return self.sites.sites[0]

    def still(self, directions):
        for relay in self.relays:
            relay.is_still = list(directions)

    def cut(self, is_cut):
        for relay in self.relays:
            relay.is_cut = is_cut

    def freeze(self, site, seconds):
        site.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        site.process.send_signal(signal.SIGCONT)


def flaps_by_resets(world):
    time.sleep(1)
    world.cut(True)
    time.sleep(3)
    world.cut(False)


def flaps_in_silence(world):
    time.sleep(1)
    world.still([True, True])
    time.sleep(3)
    world.still([False, False])


def one_way(world):
    direction = world.random.randrange(2)
    world.still([direction == 0, direction == 1])
    time.sleep(world.random.choice([0.5, 1.5, 4]))
    world.still([False, False])
    time.sleep(world.random.choice([1, 6]))


def leader_stops(world):
    world.freeze(world.leader(), 10)
    time.sleep(5)


def short_stops(world):
    world.freeze(world.random.choice(world.sites.sites), world.random.choice([0.3, 1.2, 2.5, 3.5]))
    time.sleep(world.random.choice([0.2, 3]))


def witness_is_lost(world):
    world.sites.witness.freeze()
    time.sleep(8)
    if world.random.random() < 0.5:
        world.cut(True)
        time.sleep(world.random.choice([1, 4]))
        world.cut(False)
    world.sites.witness.thaw()
    time.sleep(6)


def kills(world):
    site = world.random.choice(world.sites.sites)
    site.kill()
    time.sleep(world.random.choice([0.1, 1, 4]))
    site.start()
    time.sleep(world.random.choice([0.5, 3, 8]))


CASES = {case.__name__: case for case in
         (flaps_by_resets, flaps_in_silence, one_way, leader_stops, short_stops, witness_is_lost, kills)}


def run_case(name, options):
    work = tempfile.mkdtemp(prefix="aljibe-faults-")
    world = World(options.aljibe, work, ["--mirror-pass-on"] if options.pass_on else [])
    stop_file = os.path.join(work, "stop")
    uris = [site.uri("vm") for site in world.sites.sites]
    clients = subprocess.Popen(
        [sys.executable, os.path.join(HERE, "history.py"), str(options.seconds + 600), "4", *uris],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "STOP_FILE": stop_file, "PAUSE_MS": "3"})
    is_good = True
    try:
        time.sleep(2)
        end = time.monotonic() + options.seconds
        while time.monotonic() < end and clients.poll() is None:
            CASES[name](world)
        world.sites.wait_in_sync()
        open(stop_file, "w").close()
        told, _ = clients.communicate(timeout=120)
        is_good = clients.returncode == 0
        print(f"{name}: {'well' if is_good else 'BROKEN'}: {told.strip()}", flush=True)
    except SystemExit as ended:
        is_good = False
        print(f"{name}: BROKEN: {ended}: {[site.mirror() for site in world.sites.sites]}", flush=True)
    finally:
        clients.kill()
        world.sites.stop()
        if is_good:
            shutil.rmtree(work)
        else:
            print(f"what it left is in {work}", flush=True)
    return is_good


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--aljibe", required=True)
    options.add_argument("--seconds", type=int, default=60)
    options.add_argument("--pass-on", action="store_true")
    options.add_argument("case", nargs="*", choices=[[], *CASES])
    options = options.parse_args()
    results = [run_case(name, options) for name in options.case or CASES]
    sys.exit(0 if all(results) else 1)


main()
