#!/usr/bin/env bash
# The demo: a bootable disk image goes into a volume and comes back byte for byte; servers are made of an image, one is
# rolled back; a kill -9 under load loses nothing that was acknowledged. Everything happens in a temporary folder, on unix sockets. `make demo` runs it.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin:/sbin"
target="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/aljibe/target}"
aljibe="${ALJIBE:-$target/release/aljibe}"
work="$(mktemp -d "${TMPDIR:-/tmp}/aljibe-demo.XXXXXX")"
daemon=
load=

clean_up() {
    status=$?
    [ -z "$load" ] || kill "$load" 2>/dev/null || true
    if [ -n "$daemon" ]; then
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    fi
    if [ "$status" -ne 0 ]; then
        echo
        echo "The demo FAILED (exit $status). The daemon's last words:"
        tail -n 20 "$work/daemon.log" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap clean_up EXIT

say() {
    if [ -t 1 ]; then printf '\n\033[1m%s\033[0m\n' "$*"; else printf '\n%s\n' "$*"; fi
}

# Runs a command and shows it with what it says; $W stands for the temporary folder.
shown() {
    local line="$*"
    line="${line//$aljibe/aljibe}"
    echo "  \$ ${line//$work/\$W}"
    "$@" 2>&1 | sed "s|$work|\$W|g; s/^/    /"
}

uri() {
    echo "nbd+unix:///$1?socket=$work/nbd.sock"
}

start_daemon() {
    rm -f "$work/ready"
    "$aljibe" serve --data "$work/data" --nbd "unix:$work/nbd.sock" --api "unix:$work/api.sock" --iscsi 127.0.0.1:0 \
        >"$work/ready" 2>>"$work/daemon.log" &
    daemon=$!
    for _ in $(seq 1 600); do
        ! grep -q '^ready' "$work/ready" || return 0
        kill -0 "$daemon" || return 1
        sleep 0.05
    done
    return 1
}

say "1. Start the daemon: one program, one folder"
start_daemon
echo "  \$ aljibe serve --data \$W/data --nbd unix:\$W/nbd.sock --api unix:\$W/api.sock --iscsi 127.0.0.1:0"
sed "s|$work|\$W|g; s/^/    /" "$work/ready"

say "2. Make a real disk image: partition table, boot loader, ext4 with files"
scripts/disk-image.sh "$work/disk.raw" 1024
shown sfdisk --quiet --list -o Device,Boot,Start,Size,Type "$work/disk.raw"

say "3. Create a thin volume and write the image into it"
shown "$aljibe" volume create vm1 --size 1G --data "$work/data"
shown qemu-img convert -n -f raw -O raw "$work/disk.raw" "$(uri vm1)"
shown "$aljibe" volume show vm1 --data "$work/data"

say "4. Read it back through two independent clients: every byte is the same"
shown qemu-img compare -f raw -F raw "$work/disk.raw" "$(uri vm1)"
shown nbdcopy --connections=4 "$(uri vm1)" "$work/back.raw"
shown cmp "$work/disk.raw" "$work/back.raw"
echo "    identical"

say "    and through a third, over iSCSI, of which the same volume is LUN 0"
portal="$(sed -n 's/^ready .* iscsi=//p' "$work/ready")"
shown iscsi-ls -s "iscsi://$portal"
shown qemu-img compare -f raw -F raw "$work/disk.raw" "iscsi://$portal/iqn.2026-11.io.aljibe:default/0"

say "5. Check the file system that came back, and the checksums of its files"
shown e2fsck -f -n "$work/back.raw?offset=1048576"
mkdir "$work/files"
debugfs -R "rdump /data $work/files" "$work/back.raw?offset=1048576" 2>/dev/null
(cd "$work/files/data" && sha256sum --quiet -c SHA256SUMS)
echo "    $(wc -l <"$work/files/data/SHA256SUMS") files have the right checksums"

say "6. Boot a virtual machine from the volume"
if command -v qemu-system-x86_64 >/dev/null && command -v grub-mkimage >/dev/null; then
    timeout 120 qemu-system-x86_64 -m 128 -display none -monitor none -nic none -no-reboot -serial stdio \
        -drive "file=$(uri vm1),format=raw,if=ide" </dev/null >"$work/console" 2>&1
    grep -a -A 1 'Booted from the volume' "$work/console" | sed 's/^.*Booted/    Booted/; s/^aljibe/    aljibe/'
    grep -aq aljibe-demo "$work/console"
else
    echo "    SKIPPED: qemu-system-x86_64 or GRUB is not installed (apt-get install qemu-system-x86 grub-pc-bin)"
fi

say "7. Make an image of it, and servers of the image: each at once, and together they cost one"
shown "$aljibe" image import "$work/disk.raw" debian --data "$work/data"
for name in web1 web2 web3; do
    start="$(date +%s%N)"
    "$aljibe" volume create "$name" --image debian --data "$work/data" >/dev/null
    echo "    $name is ready after $((($(date +%s%N) - start) / 1000000)) ms"
done
shown qemu-img compare -f raw -F raw "$work/disk.raw" "$(uri web3)"
shown "$aljibe" pool show --data "$work/data"

say "8. A snapshot, a change that goes wrong, and the way back"
shown "$aljibe" snapshot create web1@before --data "$work/data"
shown qemu-io -f raw -c "write -P 0xee 0 64M" "$(uri web1)"
shown qemu-img compare -f raw -F raw "$work/disk.raw" "$(uri web1@before)"
shown "$aljibe" volume rollback web1@before --data "$work/data"
shown qemu-img compare -f raw -F raw "$work/disk.raw" "$(uri web1)"
shown "$aljibe" snapshot list web1 --data "$work/data"

say "9. kill -9 under load, three times: nothing acknowledged may be missing"
"$aljibe" volume create load --size 10G --data "$work/data" >/dev/null
for round in 1 2 3; do
    rm -f "$work/started"
    /usr/bin/python3 tests/nbd/verifying_writer.py write "$(uri load)" "$work/journal" --ready "$work/started" \
        >"$work/writer" &
    load=$!
    while [ ! -e "$work/started" ]; do kill -0 "$load"; sleep 0.05; done
    sleep 2
    kill -9 "$daemon"
    wait "$daemon" 2>/dev/null || true
    daemon=
    wait "$load"
    load=
    echo "    round $round: killed; $(sed 's/ (.*//' "$work/writer")"
    start="$(date +%s%N)"
    start_daemon
    echo "             serving again after $((($(date +%s%N) - start) / 1000000)) ms"
    echo "             $(/usr/bin/python3 tests/nbd/verifying_writer.py check "$(uri load)" "$work/journal")"
done

say "10. The disk image beside it is untouched, and the pool is sound"
shown qemu-img compare -f raw -F raw "$work/disk.raw" "$(uri vm1)"
kill "$daemon"
wait "$daemon"
daemon=
shown "$aljibe" pool check --data "$work/data"

say "Done."
