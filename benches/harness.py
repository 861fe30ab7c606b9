"""What the benches with promised numbers share: a daemon of their own, its API, fio on its volumes, and the verdicts.
Standard library only.
"""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

CACHE = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(CACHE, "aljibe", "target"))
MIB = 1 << 20


class Failed(Exception):
    """A program did not do what was asked: the run is a failed run."""


def run(command):
    """Runs a program to its end and returns what it says."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
    return done.stdout


class Daemon:
    """The daemon with a new pool in the work folder, gone at the end; its API without the start of a program in between."""

    def __init__(self, arguments, *options):
        self.program = arguments.aljibe
        self.data = os.path.join(arguments.work, "data")
        self.nbd = os.path.join(arguments.work, "nbd.sock")
        self.api = os.path.join(arguments.work, "api.sock")
        self.process = subprocess.Popen(
            [self.program, "serve", "--data", self.data, "--nbd", f"unix:{self.nbd}", "--api", f"unix:{self.api}", *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("ready"):
            raise Failed(f"the daemon does not serve: {line}")
        self.ready = dict(word.split("=", 1) for word in line.split()[1:])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(60)
            print("the daemon did not stop in a minute", file=sys.stderr)
        shutil.rmtree(self.data)

    def command(self, *words):
        return run([self.program, *words, "--data", self.data])

    def ask(self, method, path, body=None):
        """One request; returns the text of its answer and the milliseconds that it took."""
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.api)
        begin = time.monotonic()
        connection.request(method, path, json.dumps(body) if body else None, {"content-type": "application/json", "authorization": f"Bearer {self.token()}"})
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
        milliseconds = 1000 * (time.monotonic() - begin)
        connection.close()
        if answer.status >= 300:
            raise Failed(f"{method} {path}: {answer.status} {text}")
        return text, milliseconds

    def token(self):
        with open(os.path.join(self.data, "token"), encoding="ascii") as file:
            return file.read().strip()

    def slots(self):
        return json.loads(self.ask("GET", "/v1/pool")[0])["slots"]

    def uri(self, export):
        return f"nbd+unix:///{export}?socket={self.nbd}"


def fio_command(uri, *options, before=()):
    """The command of fio on an export, behind the words `before`; of options that are given twice the last one counts."""
    return [*before, "fio", "--name=bench", "--ioengine=nbd", f"--uri={uri}", "--output-format=json", "--randrepeat=0", *options]


def fio(uri, *options, before=()):
    """Runs fio on an export and returns its JSON of the one job."""
    text = run(fio_command(uri, *options, before=before))
    one = json.loads(text[text.index("{\n"):])["jobs"][0]
    if one["error"] != 0:
        raise Failed(f"fio: error {one['error']}")
    return one


def parse(parser, promises, folder):
    """Adds what all benches take, and parses the command line."""
    parser.add_argument("promise", nargs="*", help=f"{', '.join(promises)} (all)")
    parser.add_argument("--aljibe", default=os.path.join(TARGET, "release", "aljibe"))
    parser.add_argument("--work", default=os.path.join(CACHE, "aljibe", folder))
    arguments = parser.parse_args()
    unknown = set(arguments.promise) - set(promises)
    if unknown:
        parser.error(f"no promise is called {', '.join(unknown)}")
    return arguments


def judge(arguments, promises):
    """Measures the promises that were asked for, each in an empty work folder; exits with 1 when one is not kept."""
    is_kept = True
    for name in arguments.promise or promises:
        shutil.rmtree(arguments.work, ignore_errors=True)
        os.makedirs(arguments.work)
        try:
            for what, found, bound, side in promises[name](arguments):
                keeps = found <= bound if side == "at most" else found >= bound
                is_kept = is_kept and keeps
                print(f"{name}: {found:.2f} {what}, {side} {bound}: {'kept' if keeps else 'MISSED'}", flush=True)
        except Failed as failure:
            is_kept = False
            print(f"{name}: FAILED: {failure}", flush=True)
        finally:
            shutil.rmtree(arguments.work, ignore_errors=True)
    sys.exit(0 if is_kept else 1)
