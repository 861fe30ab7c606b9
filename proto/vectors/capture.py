#!/usr/bin/env python3
"""Records what real NBD clients and servers say to each other, for the golden tests.

Puts a proxy between a client and a server on unix sockets and writes each conversation to DIRECTORY/NAME.hex: lines that
begin with ">" are bytes of the client, "<" of the server, in the order they passed. Needs qemu-nbd, qemu-io, qemu-img,
nbdkit, nbdsh, nbdinfo and nbd-client.

    proto/vectors/capture.py DIRECTORY
"""

import os
import selectors
import socket
import subprocess
import sys
import tempfile
import threading

NBDSH_TOUR = """
h.set_strict_mode(0)
h.add_meta_context("base:allocation")
h.connect_unix("{socket}")
h.pwrite(b"aljibe" * 100, 4096)
h.pwrite(b"12345", 10, nbd.CMD_FLAG_FUA)
h.pread(16, 8)
h.pread(600, 4096, nbd.CMD_FLAG_DF)
h.zero(512, 4608, nbd.CMD_FLAG_NO_HOLE)
h.trim(4096, 65536)
h.cache(4096, 0)
h.flush()
h.block_status(131072, 0, lambda *args: 0)
h.block_status(4096, 0, lambda *args: 0, nbd.CMD_FLAG_REQ_ONE)
for illegal in (lambda: h.pread(512, 1 << 40), lambda: h.pwrite(b"x", 1 << 20), lambda: h.flush(0x80)):
    try:
        illegal()
    except nbd.Error:
        pass
h.shutdown()
"""

NBDSH_SIMPLE = """
h.set_request_structured_replies(False)
h.set_handshake_flags({flags})
h.set_export_name("")
h.connect_unix("{socket}")
h.pwrite(b"simple", 0)
h.pread(6, 0)
h.shutdown()
"""

NBDSH_OPTIONS = """
h.set_opt_mode(True)
h.set_full_info(True)
h.add_meta_context("base:allocation")
h.connect_unix("{socket}")
h.opt_list(lambda *args: 0)
h.opt_list_meta_context(lambda *args: 0)
h.clear_meta_contexts()
h.opt_list_meta_context(lambda *args: 0)
h.opt_info()
h.set_export_name("nosuch")
try:
    h.opt_info()
except nbd.Error:
    pass
h.opt_abort()
"""


class Proxy(threading.Thread):
    """Passes one connection on and keeps what passed."""

    def __init__(self, listen_path, server_path):
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(listen_path)
        self.listener.listen()
        self.server_path = server_path
        self.conversations = []

    def run(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.socket(socket.AF_UNIX)
            server.connect(self.server_path)
            self.conversations.append([])
            self.relay(client, server, self.conversations[-1])

    def relay(self, client, server, said):
        selector = selectors.DefaultSelector()
        selector.register(client, selectors.EVENT_READ, (">", server))
        selector.register(server, selectors.EVENT_READ, ("<", client))
        while True:
            for key, _ in selector.select():
                mark, other = key.data
                try:
                    data = key.fileobj.recv(1 << 20)
                except ConnectionResetError:
                    data = b""
                if not data:
                    client.close()
                    server.close()
                    return
                if said and said[-1][0] == mark:
                    said[-1][1].extend(data)
                else:
                    said.append((mark, bytearray(data)))
                try:
                    other.sendall(data)
                except BrokenPipeError:
                    pass  # A client may leave without waiting for the answer to its farewell.


def first_line(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).splitlines()[0].strip()


def start_server(kind, directory):
    path = os.path.join(directory, "server")
    image = os.path.join(directory, "image")
    with open(image, "wb") as file:
        file.truncate(1 << 20)
    if kind == "nbdkit":
        command = ["nbdkit", "-f", "-U", path, "memory", "1M"]
    else:
        command = ["qemu-nbd", "-k", path, "-f", "raw", "-t", "-e", "4", "-x", "disk", "-D", "a disk", image]
        command += ["--discard=unmap"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        try:
            probe = socket.socket(socket.AF_UNIX)
            probe.connect(path)
            probe.close()
            return process, path
        except OSError:
            if process.poll() is not None:
                raise
            threading.Event().wait(0.05)


def capture(out_directory, name, server, about, command):
    with tempfile.TemporaryDirectory() as directory:
        process, path = start_server(server, directory)
        listen = os.path.join(directory, "proxy")
        proxy = Proxy(listen, path)
        proxy.start()
        filled = [part.replace("{socket}", listen) for part in command]
        done = subprocess.run(filled, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{name}: {done.stderr}")
        threading.Event().wait(0.3)
        process.terminate()
        process.wait()
    said = max(proxy.conversations, key=lambda said: sum(len(data) for _, data in said))
    with open(os.path.join(out_directory, name + ".hex"), "w", encoding="ascii") as file:
        file.write(f"# {about}\n# Recorded with capture.py.\n")
        for mark, data in said:
            for start in range(0, len(data), 48):
                file.write(f"{mark} {data[start:start + 48].hex()}\n")


def main():
    out_directory = sys.argv[1]
    nbdkit, qemu = first_line("nbdkit", "--version"), first_line("qemu-nbd", "--version")
    libnbd = "libnbd " + first_line("nbdsh", "--version").split()[-1]
    qemu_io = ["qemu-io", "-f", "raw", "nbd+unix:///{}?socket={socket}"]

    def nbdsh(script, **fields):
        text = script.strip().replace("{flags}", str(fields.get("flags", 0)))
        return ["nbdsh", "-c", text]

    capture(out_directory, "nbdsh-nbdkit", "nbdkit", f"nbdsh ({libnbd}) to {nbdkit}: structured replies", nbdsh(NBDSH_TOUR))
    capture(out_directory, "nbdsh-nbdkit-simple", "nbdkit", f"nbdsh ({libnbd}) to {nbdkit}: simple replies, NBD_OPT_GO",
            nbdsh(NBDSH_SIMPLE, flags=3))
    capture(out_directory, "nbdsh-nbdkit-export-name", "nbdkit",
            f"nbdsh ({libnbd}) to {nbdkit}: no handshake flags, so NBD_OPT_EXPORT_NAME with zeroes", nbdsh(NBDSH_SIMPLE))
    tour = NBDSH_TOUR.replace('h.connect', 'h.set_export_name("disk")\nh.connect')
    capture(out_directory, "nbdsh-qemu", "qemu-nbd", f"nbdsh ({libnbd}) to {qemu}: structured replies", nbdsh(tour))
    options = NBDSH_OPTIONS.replace('h.connect', 'h.set_export_name("disk")\nh.connect')
    capture(out_directory, "nbdsh-qemu-options", "qemu-nbd", f"nbdsh ({libnbd}) to {qemu}: options, then NBD_OPT_ABORT",
            nbdsh(options))
    commands = ["write -P 7 4096 1024", "write -f -P 8 10240 512", "read 4096 512", "read 1048064 512", "discard 65536 65536",
                "write -z 131072 65536", "write -z -u 200704 4096", "flush"]
    command = [part.replace("{}", "disk") for part in qemu_io]
    for text in commands:
        command += ["-c", text]
    capture(out_directory, "qemu-io-qemu", "qemu-nbd", f"qemu-io to {qemu}: extended headers", command)
    capture(out_directory, "qemu-img-map-qemu", "qemu-nbd", f"qemu-img map to {qemu}: block status, extended headers",
            ["qemu-img", "map", "-f", "raw", "nbd+unix:///disk?socket={socket}"])
    capture(out_directory, "qemu-img-map-nbdkit", "nbdkit", f"qemu-img map ({qemu}) to {nbdkit}: block status",
            ["qemu-img", "map", "-f", "raw", "nbd+unix:///?socket={socket}"])
    capture(out_directory, "nbdinfo-list-qemu", "qemu-nbd", f"nbdinfo --list ({libnbd}) to {qemu}",
            ["nbdinfo", "--list", "nbd+unix:///?socket={socket}"])
    client = first_line("dpkg-query", "-W", "-f", "${Version}", "nbd-client")
    capture(out_directory, "nbd-client-list-qemu", "qemu-nbd", f"nbd-client {client} -l to {qemu}",
            ["nbd-client", "-l", "-unix", "{socket}"])


main()
