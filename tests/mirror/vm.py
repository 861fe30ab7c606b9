#!/usr/bin/python3
"""A virtual machine whose disk is mirrored keeps running: through planned switches, the loss of the site that leads, and its return.

    vm.py --aljibe PROGRAM --linux DIR

The machine is a small Linux under software emulation (qemu-system-x86_64, Debian's cloud kernel, busybox; `make vm-mirror` brings all of it):
it writes files to an ext4 file system, syncs each, holds all of them against their checksums, and says on its console how far it is. Its disk
is at site 2, which passes on what is asked while site 1 leads. What is shown: no request of it ever fails, and it is never silent for
long; what it had synced is there, and the same at both sites, when it is shut down in the end; its file system checks clean.
"""

import argparse
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from sites import Sites, wait_until

DISK_MIB = 256
# The modules that a disk on virtio needs, in their order.
MODULES = ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk"]
# A machine that says nothing for so long has lost its disk.
SILENCE_S = 60

INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /mnt
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin
export PATH=/bin
for module in %(modules)s; do insmod /modules/$module.ko || echo "FAULT no module $module"; done
mount -t ext4 -o errors=panic /dev/vda /mnt || { echo "FAULT the disk cannot be mounted"; poweroff -f; }
echo "BEGINS"
n=0
while ! read -t 0 -r command; do
    n=$((n + 1))
    file=/mnt/$((n %% 40))
    dd if=/dev/urandom of=$file.new bs=4k count=$((1 + n %% 64)) conv=fsync 2>/dev/null || { echo "FAULT write $n"; break; }
    sum=$(sha256sum $file.new); sum=${sum%%%% *}
    echo $sum > $file.sum.new && sync && mv $file.new $file && mv $file.sum.new $file.sum && sync || { echo "FAULT rename $n"; break; }
    if [ $((n %% 8)) = 0 ]; then
        echo 3 > /proc/sys/vm/drop_caches
        for sums in /mnt/*.sum; do
            found=$(sha256sum ${sums%%.sum}); found=${found%%%% *}
            [ "$found" = "$(cat $sums)" ] || echo "FAULT $sums after $n"
        done
    fi
    echo "BEAT $n"
done
umount /mnt && echo "UNMOUNTED $n"
dmesg | grep -i -e 'I/O error' -e 'EXT4-fs error' | sed 's/^/FAULT /'
poweroff -f
"""


def cpio_of(files):
    """A cpio archive (newc) of (name, mode, bytes)."""
    out = bytearray()
    for number, (name, mode, data) in enumerate(files + [("TRAILER!!!", 0, b"")], 1):
        fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        out += b"\0" * (-len(out) % 4) + data
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def make_initramfs(linux, path):
    def content(pattern):
        found = glob.glob(os.path.join(linux, pattern), recursive=True)
        return open(found[0], "rb").read() if found else None

    modules = {name: content(f"lib/modules/**/{name}.ko") for name in MODULES}
    there = [name for name in MODULES if modules[name]]
    init = INIT % {"modules": " ".join(there)}
    files = [("dev", 0o040755, b""), ("bin", 0o040755, b""), ("modules", 0o040755, b""),
             ("bin/busybox", 0o100755, content("bin/busybox")), ("init", 0o100755, init.encode())]
    files += [(f"modules/{name}.ko", 0o100644, modules[name]) for name in there]
    with open(path, "wb") as file:
        file.write(cpio_of(files))


class Machine(threading.Thread):
    """The virtual machine and its console."""

    def __init__(self, linux, initramfs, socket):
        super().__init__(daemon=True)
        kernel = glob.glob(os.path.join(linux, "boot/vmlinuz-*"))[0]
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-machine", "pc,accel=tcg", "-cpu", "max", "-m", "256", "-nographic", "-no-reboot", "-nodefaults",
             "-serial", "stdio", "-kernel", kernel, "-initrd", initramfs, "-append", "console=ttyS0 quiet panic=-1",
             "-blockdev", f"driver=nbd,node-name=disk,export=vm,server.type=unix,server.path={socket}",
             "-device", "virtio-blk-pci,drive=disk,rerror=report,werror=report"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.beats, self.longest_s, self.last, self.faults, self.lines = 0, 0.0, None, [], []
        self.start()

    def run(self):
        for line in self.process.stdout:
            text = line.decode(errors="replace").strip()
            self.lines.append(text)
            if "FAULT" in text or "panic" in text.lower():
                self.faults.append(text)
            beat = re.search(r"BEAT (\d+)", text)
            if beat or "BEGINS" in text:
                now = time.monotonic()
                self.longest_s = max(self.longest_s, now - self.last) if self.last else 0.0
                self.last = now
                self.beats = int(beat.group(1)) if beat else 0

    def wait_for_beats(self, more):
        wanted, begin = self.beats + more, time.monotonic()
        while self.beats < wanted:
            if self.faults or self.process.poll() is not None or time.monotonic() - begin > SILENCE_S:
                sys.exit("the machine does not go on:\n" + "\n".join(self.lines[-30:]))
            time.sleep(0.05)

    def take_longest(self):
        longest, self.longest_s = max(self.longest_s, time.monotonic() - self.last), 0.0
        return longest

    def shut_down(self):
        self.process.stdin.write(b"end\n")
        self.process.stdin.flush()
        self.process.wait(SILENCE_S)
        self.join(SILENCE_S)


def check(site, work, name):
    """The file system as a site shows it."""
    image = os.path.join(work, f"{name}.img")
    subprocess.run(["qemu-img", "convert", "-O", "raw", site.uri("vm"), image], check=True)
    checked = subprocess.run(["e2fsck", "-fn", image], capture_output=True, text=True, check=False)
    if checked.returncode:
        sys.exit(f"at {name} the file system is not clean:\n{checked.stdout}{checked.stderr}")
    return image


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--aljibe", required=True)
    options.add_argument("--linux", required=True, help="what scripts/vm-linux.sh brings")
    options = options.parse_args()
    work = tempfile.mkdtemp(prefix="aljibe-vm-")
    sites = Sites(options.aljibe, work, ["--mirror-pass-on"], DISK_MIB)
    machine = None
    try:
        first, second = sites.sites
        image = os.path.join(work, "fresh.img")
        with open(image, "wb") as file:
            file.truncate(DISK_MIB << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
        subprocess.run(["qemu-img", "convert", "-n", "-O", "raw", image, first.uri("vm")], check=True)
        initramfs = os.path.join(work, "initramfs")
        make_initramfs(options.linux, initramfs)
        machine = Machine(options.linux, initramfs, second.socket)
        machine.wait_for_beats(1)

        def move(from_site, to_site):
            wait_until("the volume moves", lambda: from_site.run("volume", "move", "vm", "--to", str(to_site.number)).returncode == 0
                       or to_site.mirror().get("serves"))
            wait_until("it leads", lambda: to_site.mirror().get("serves"))

        machine.wait_for_beats(10)
        machine.take_longest()
        for what, act in [
            ("nothing happens", lambda: time.sleep(5)),
            ("a planned switch to its site", lambda: move(first, second)),
            ("a planned switch away from it", lambda: move(second, first)),
            ("the loss of the site that leads", first.kill),
            ("that site's return", lambda: (first.start(), sites.wait_in_sync())),
            ("a planned switch back", lambda: move(second, first)),
        ]:
            act()
            machine.wait_for_beats(10)
            print(f"{what}: longest time between two signs of life {machine.take_longest() * 1000:.0f} ms", flush=True)
        sites.wait_in_sync()
        machine.shut_down()
        if machine.faults or not any("UNMOUNTED" in line for line in machine.lines):
            sys.exit("the machine tells of faults:\n" + "\n".join(machine.faults + machine.lines[-10:]))
        sites.wait_in_sync()
        at_first = check(first, work, "site 1")
        move(first, second)
        at_second = check(second, work, "site 2")
        if subprocess.run(["cmp", at_first, at_second], check=False).returncode:
            sys.exit("the two sites show different disks")
        print(f"{machine.beats} files written and synced, none lost; the file system is clean, and the same at both sites")
    finally:
        if machine and machine.process.poll() is None:
            machine.process.kill()
        sites.stop()
        shutil.rmtree(work)


main()
