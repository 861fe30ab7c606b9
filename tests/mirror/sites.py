"""Two sites, each a daemon, and their witness, three members of etcd, as processes: for benches and for tests that are scripts."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

PATIENCE_S = 60


def free_ports(count):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def wait_until(what, is_so):
    begin = time.monotonic()
    while not is_so():
        if time.monotonic() - begin > PATIENCE_S:
            sys.exit(f"not within {PATIENCE_S} s: {what}")
        time.sleep(0.02)


class Witness:
    """Three members of etcd."""

    def __init__(self, work):
        clients, peers = free_ports(3), free_ports(3)
        cluster = ",".join(f"m{index}=http://127.0.0.1:{port}" for index, port in enumerate(peers))
        self.processes = []
        for index, (client, peer) in enumerate(zip(clients, peers)):
            at = {"client": f"http://127.0.0.1:{client}", "peer": f"http://127.0.0.1:{peer}"}
            with open(os.path.join(work, f"etcd-{index}.log"), "wb") as log:
                self.processes.append(subprocess.Popen(
                    ["etcd", "--name", f"m{index}", "--data-dir", os.path.join(work, f"etcd-{index}"),
                     "--listen-client-urls", at["client"], "--advertise-client-urls", at["client"],
                     "--listen-peer-urls", at["peer"], "--initial-advertise-peer-urls", at["peer"],
                     "--initial-cluster", cluster, "--initial-cluster-state", "new"],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        self.url = "etcd://" + ",".join(f"127.0.0.1:{port}" for port in clients) + "/bench"

    def freeze(self):
        for process in self.processes:
            process.send_signal(signal.SIGSTOP)

    def thaw(self):
        for process in self.processes:
            process.send_signal(signal.SIGCONT)

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()


class Site:
    """A daemon."""

    def __init__(self, program, work, number, links, witness, more):
        other = 3 - number
        self.program, self.number = program, number
        self.data = os.path.join(work, f"site-{number}")
        self.socket = os.path.join(work, f"nbd-{number}.sock")
        pem = os.path.join(work, "pem")
        self.command = [
            program, "serve", "--data", self.data, "--nbd", f"unix:{self.socket}", "--api", "127.0.0.1:0",
            "--pool-size", "8G", "--site", str(number), "--peer-site", str(other),
            "--mirror-listen", f"127.0.0.1:{links[0][number - 1]}", "--mirror-peer", f"127.0.0.1:{links[1][other - 1]}",
            "--mirror-cert", f"{pem}/site-{number}.pem", "--mirror-key", f"{pem}/site-{number}-key.pem",
            "--mirror-pin", f"{pem}/site-{other}.pem", "--witness", witness.url, *more]
        self.log = open(os.path.join(work, f"site-{number}.log"), "ab")
        self.process = None

    def start(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=self.log, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("ready"):
            sys.exit(f"site {self.number} does not serve: {line}")

    def kill(self, number=signal.SIGKILL):
        if self.process:
            self.process.send_signal(number)
            self.process.wait()
            self.process = None

    def run(self, *arguments):
        return subprocess.run([self.program, *arguments, "--data", self.data], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)

    def mirror(self):
        told = self.run("why", "vm", "--json")
        return json.loads(told.stdout) if told.returncode == 0 else {}

    def uri(self, volume):
        return f"nbd+unix:///{volume}?socket={self.socket}"


class Sites:
    """Two sites with a mirrored volume, and one that is not."""

    def __init__(self, program, work, more=(), mib=256, reached_at=None, start_relays=None):
        """The sites reach each other at other ports than those where they listen, where relays are started."""
        make_certificates(os.path.join(work, "pem"))
        self.witness = Witness(work)
        links = free_ports(2)
        if start_relays:
            start_relays(links, reached_at)
        links = (links, reached_at or links)
        self.sites = [Site(program, work, number, links, self.witness, more) for number in (1, 2)]
        for site in self.sites:
            site.start()
        for volume in ("vm", "plain"):
            done = self.sites[0].run("volume", "create", volume, "--size", f"{mib}M")
            if done.returncode:
                sys.exit(done.stderr)
        wait_until("the volume is mirrored",
                   lambda: self.sites[0].run("volume", "mirror", "vm", "--to", "2").returncode == 0)
        self.wait_in_sync()

    def wait_in_sync(self):
        """Returns the site that leads, and the other one."""
        found = []

        def is_so():
            states = [site.mirror() for site in self.sites]
            for at, state in enumerate(states):
                other = states[1 - at]
                if state.get("role") == "primary" and other.get("role") == "secondary" and other.get("in_sync"):
                    found.append((self.sites[at], self.sites[1 - at]))
            return bool(found)

        wait_until("both sites are in sync", is_so)
        return found[0]

    def stop(self):
        for site in self.sites:
            site.kill()
        self.witness.stop()


def make_certificates(folder):
    os.makedirs(folder)
    for number in (1, 2):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
             "-subj", f"/CN=site-{number}", "-addext", f"subjectAltName=DNS:site-{number}.aljibe",
             "-keyout", f"{folder}/site-{number}-key.pem", "-out", f"{folder}/site-{number}.pem"],
            check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
