"""The servers under test: how each is started on the shared disk, filled with data, and stopped.

Every peer serves the same raw file, one server at a time, so that all have the same extents on the same disk; Aljibe
serves a volume in its own data folder beside it. A server is a fresh process in every slot.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 30
THREADS = 16
CONNECTIONS_MAX = 32


class SlotFailed(Exception):
    """A server or client did not do what the slot asked; the run is a failed run."""


class Bench:
    """Folders and files that all servers share."""

    def __init__(self, work, size_bytes, aljibe_binary):
        self.work = work
        self.size_bytes = size_bytes
        self.aljibe_binary = aljibe_binary
        self.source = os.path.join(work, "source.raw")
        self.raw = os.path.join(work, "peer.raw")
        self.certificates = os.path.join(work, "pki")
        self.commands = []

    def run(self, command, **options):
        """Runs a command to its end and notes it; a failure fails the slot."""
        self.note(command)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **options)
        if done.returncode != 0:
            raise SlotFailed(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def note(self, command):
        line = " ".join(command)
        if line not in self.commands:
            self.commands.append(line)

    def make_source(self):
        """Random bytes, the same for all servers, kept between runs."""
        if os.path.exists(self.source) and os.path.getsize(self.source) == self.size_bytes:
            return
        with open(self.source, "wb") as file:
            left = self.size_bytes
            while left > 0:
                left -= file.write(os.urandom(min(left, 8 << 20)))
            os.fsync(file.fileno())

    def make_certificates(self):
        """A certificate authority and a server certificate for localhost, made by certtool."""
        if os.path.exists(os.path.join(self.certificates, "server-cert.pem")):
            return
        os.makedirs(self.certificates, exist_ok=True)

        def at(name):
            return os.path.join(self.certificates, name)

        with open(at("ca.info"), "w", encoding="ascii") as file:
            file.write("cn = bench\nca\ncert_signing_key\nexpiration_days = 3650\n")
        with open(at("server.info"), "w", encoding="ascii") as file:
            file.write("cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\ntls_www_server\n"
                       "signing_key\nencryption_key\nexpiration_days = 3650\n")
        for key in ("ca-key.pem", "server-key.pem"):
            self.run(["certtool", "--generate-privkey", "--key-type=rsa", "--bits=2048", "--outfile", at(key)])
        self.run(["certtool", "--generate-self-signed", "--load-privkey", at("ca-key.pem"), "--template",
                  at("ca.info"), "--outfile", at("ca-cert.pem")])
        self.run(["certtool", "--generate-certificate", "--load-ca-certificate", at("ca-cert.pem"),
                  "--load-ca-privkey", at("ca-key.pem"), "--load-privkey", at("server-key.pem"), "--template",
                  at("server.info"), "--outfile", at("server-cert.pem")])
        # Where libnbd looks by default, below the HOME that clients are given.
        pki = os.path.join(self.work, "home", ".config", "pki", "libnbd")
        os.makedirs(pki, exist_ok=True)
        shutil.copy(at("ca-cert.pem"), os.path.join(pki, "ca-cert.pem"))

    def client_environment(self):
        """The environment of fio and nbdcopy: libnbd finds the certificate authority under HOME."""
        return dict(os.environ, HOME=os.path.join(self.work, "home"))

    def drop_caches(self, paths):
        """Empties the page cache of what is on the disk: all of it as root, else file by file."""
        os.sync()
        try:
            with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
                file.write("3")
            return
        except OSError:
            pass
        for path in paths:
            files = [path] if os.path.isfile(path) else [
                os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
            for name in files:
                with open(name, "rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Server:
    """One program that serves one export; subclasses say how. `tls` means TCP on loopback with TLS required."""

    name = ""
    export = "bench"
    is_peer = True
    can_tls = False

    def __init__(self, bench):
        self.bench = bench
        self.process = None
        self.pid = None
        self.uri = None
        self.output = []
        self.dirty = True

    @classmethod
    def missing_tool(cls):
        """The name of the program that is not installed, or None."""
        return None if shutil.which(cls.name) else cls.name

    def paths(self):
        return [self.bench.raw]

    def command(self, socket_path, tls_port):
        raise NotImplementedError

    def fill(self):
        """Brings the content back to the source's bytes, durably. The server is not running."""
        self.bench.run(["dd", f"if={self.bench.source}", f"of={self.bench.raw}", "bs=4M", "conv=notrunc,fdatasync"])

    def start(self, tls=False):
        socket_path = os.path.join(self.bench.work, "nbd.sock")
        if os.path.exists(socket_path):
            os.unlink(socket_path)
        port = free_port() if tls else None
        self.spawn(self.command(socket_path, port))
        if tls:
            self.uri = f"nbds://localhost:{port}/{self.export}"
            self.wait_for(lambda: can_connect(socket.AF_INET, ("127.0.0.1", port)))
        else:
            self.uri = f"nbd+unix:///{self.export}?socket={socket_path}"
            self.wait_for(lambda: can_connect(socket.AF_UNIX, socket_path))

    def spawn(self, command):
        self.bench.note(command)
        self.output = []
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, errors="replace")
        self.pid = self.process.pid
        reader = threading.Thread(target=lambda out: self.output.extend(out), args=(self.process.stdout,), daemon=True)
        reader.start()

    def has_died(self):
        return self.process is not None and self.process.poll() is not None

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            pass

    def wait_for(self, is_ready):
        deadline = time.monotonic() + START_SECONDS_MAX
        while not is_ready():
            if self.has_died() or time.monotonic() > deadline:
                raise SlotFailed(f"{self.name} does not serve: {''.join(self.output)[-2000:]}")
            time.sleep(0.02)

    def stop(self):
        """Ends the server; one that died before, or does not end when asked, fails the slot."""
        if self.pid is None:
            return
        pid, died = self.pid, self.has_died()
        if not died:
            self.terminate()
            if not self.has_died():
                os.kill(pid, signal.SIGKILL)
                raise SlotFailed(f"{self.name} does not stop")
        self.pid, self.process = None, None
        if died:
            raise SlotFailed(f"{self.name} died: {''.join(self.output)[-2000:]}")


class Nbdkit(Server):
    name = "nbdkit"
    can_tls = True

    def command(self, socket_path, tls_port):
        listen = ["-U", socket_path]
        if tls_port:
            listen = ["-i", "127.0.0.1", "-p", str(tls_port), "--tls=require",
                      f"--tls-certificates={self.bench.certificates}"]
        return ["nbdkit", "-f", "-t", str(THREADS), *listen, "file", self.bench.raw]


class QemuNbd(Server):
    can_tls = True
    cache = []

    @classmethod
    def missing_tool(cls):
        return None if shutil.which("qemu-nbd") else "qemu-nbd"

    def command(self, socket_path, tls_port):
        listen = ["-k", socket_path]
        if tls_port:
            creds = f"tls-creds-x509,id=tls0,endpoint=server,verify-peer=off,dir={self.bench.certificates}"
            listen = ["-b", "127.0.0.1", "-p", str(tls_port), "--object", creds, "--tls-creds", "tls0"]
        return ["qemu-nbd", "-t", "-f", "raw", "-e", str(CONNECTIONS_MAX), "-x", self.export, *self.cache, *listen,
                self.bench.raw]


class QemuNbdWriteback(QemuNbd):
    name = "qemu-nbd-writeback"
    cache = ["--cache=writeback"]


class QemuNbdNone(QemuNbd):
    name = "qemu-nbd-none"
    cache = ["--cache=none", "--aio=native"]


class QemuStorageDaemon(Server):
    name = "qemu-storage-daemon"

    def command(self, socket_path, tls_port):
        return ["qemu-storage-daemon",
                "--blockdev", f"driver=file,node-name=disk,filename={self.bench.raw},aio=io_uring",
                "--nbd-server", f"addr.type=unix,addr.path={socket_path},max-connections={CONNECTIONS_MAX}",
                "--export", f"type=nbd,id=export,node-name=disk,name={self.export},writable=on"]


class NbdServer(Server):
    """Goes into the background by itself, since it serves only one connection in the foreground."""

    name = "nbd-server"

    def command(self, socket_path, tls_port):
        configuration = os.path.join(self.bench.work, "nbd-server.conf")
        with open(configuration, "w", encoding="ascii") as file:
            file.write(f"[generic]\nunixsock = {socket_path}\nlistenaddr = 127.0.0.1\nport = {free_port()}\n"
                       f"[{self.export}]\nexportname = {self.bench.raw}\nflush = true\nfua = true\ntrim = true\n")
        return ["nbd-server", "-C", configuration, "-p", self.pid_file()]

    def pid_file(self):
        return os.path.join(self.bench.work, "nbd-server.pid")

    def spawn(self, command):
        if os.path.exists(self.pid_file()):
            os.unlink(self.pid_file())
        self.bench.run(command)
        deadline = time.monotonic() + START_SECONDS_MAX
        while not (os.path.exists(self.pid_file()) and os.path.getsize(self.pid_file())):
            if time.monotonic() > deadline:
                raise SlotFailed("nbd-server writes no pid file")
            time.sleep(0.02)
        with open(self.pid_file(), encoding="ascii") as file:
            self.pid = int(file.read())

    def has_died(self):
        """It is no child of ours, so look for it; what only waits to be reaped is dead."""
        try:
            with open(f"/proc/{self.pid}/stat", encoding="ascii") as file:
                return file.read().rsplit(")", 1)[1].split()[0] == "Z"
        except OSError:
            return self.pid is not None

    def terminate(self):
        os.kill(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS_MAX
        while not self.has_died() and time.monotonic() < deadline:
            time.sleep(0.02)


class Aljibe(Server):
    name = "aljibe"
    is_peer = False
    can_tls = True

    def __init__(self, bench):
        super().__init__(bench)
        self.data = os.path.join(bench.work, "aljibe")

    @classmethod
    def missing_tool(cls):
        return None

    def paths(self):
        return [self.data]

    def command(self, socket_path, tls_port):
        listen = ["--nbd", f"unix:{socket_path}"]
        if tls_port:
            pki = self.bench.certificates
            listen = ["--nbd", f"127.0.0.1:{tls_port}", "--tls-cert", os.path.join(pki, "server-cert.pem"),
                      "--tls-key", os.path.join(pki, "server-key.pem"), "--tls", "required"]
        return [self.bench.aljibe_binary, "serve", "--data", self.data, *listen, "--pool-size", str(self.pool_bytes()),
                "--api", f"unix:{os.path.join(self.bench.work, 'api.sock')}"]

    def pool_bytes(self):
        return 6 * self.bench.size_bytes + (4 << 30)

    def wait_for(self, is_ready):
        super().wait_for(lambda: any(re.match(r"ready\b", line) for line in self.output))
        super().wait_for(is_ready)

    def volume(self, *arguments):
        return self.bench.run([self.bench.aljibe_binary, "volume", *arguments, "--data", self.data])

    def fill(self):
        """A new volume with the source's bytes. Its pool is one whose slots were used before, as the peers' file is."""
        is_new = not os.path.exists(self.data)
        self.start()
        try:
            if is_new:
                self.age()
            else:
                self.volume("delete", self.export, "--force")
            self.volume("create", self.export, "--size", str(self.bench.size_bytes))
            self.bench.run(["nbdcopy", "--flush", self.bench.source, self.uri])
        finally:
            self.stop()

    def age(self):
        """Writes most of the pool once and gives it back."""
        names = [f"age-{number}" for number in range(int(0.8 * self.pool_bytes() / self.bench.size_bytes))]
        for name in names:
            self.volume("create", name, "--size", str(self.bench.size_bytes))
            self.bench.run(["nbdcopy", "--flush", self.bench.source, self.uri.replace(f"/{self.export}", f"/{name}", 1)])
        for name in names:
            self.volume("delete", name)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def can_connect(family, address):
    with socket.socket(family) as probe:
        try:
            probe.connect(address)
            return True
        except OSError:
            return False


ALL = [Aljibe, Nbdkit, QemuNbdWriteback, QemuNbdNone, QemuStorageDaemon, NbdServer]
