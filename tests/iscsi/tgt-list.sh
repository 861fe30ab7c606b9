#!/usr/bin/env bash
# Writes to stdout which cases of libiscsi's suite run and pass against Debian's tgt: the measure of what Aljibe must
# run. tests/iscsi/tgt-runs.txt is what it said last. Needs root (tgtd's control socket), tgt and libiscsi-bin.
# Usage: tests/iscsi/tgt-list.sh > tests/iscsi/tgt-runs.txt
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"

here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
daemon=
# tgtd heeds no other signal.
trap '[ -z "$daemon" ] || kill -KILL "$daemon"; rm -rf "$folder"' EXIT

# Both from what is free now; tgtd takes no port 0, and its control port, of 32767 at most, only names a socket.
port=$(/usr/bin/python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
control=$((port % 30000 + 1))
target=iqn.2026-11.io.aljibe.test:tgt
url=iscsi://127.0.0.1:$port/$target/1

tgtd -f -C "$control" --iscsi "portal=127.0.0.1:$port" >"$folder/log" 2>&1 &
daemon=$!
disown
admin() { tgtadm -C "$control" --lld iscsi "$@"; }
for _ in $(seq 100); do
    ! admin --mode sys --op show >/dev/null 2>&1 || break
    sleep 0.1
done
truncate -s 256M "$folder/disk"
admin --mode target --op new --tid 1 --targetname "$target"
# Thin, so that cases of UNMAP and GET LBA STATUS run too.
admin --mode logicalunit --op new --tid 1 --lun 1 --backing-store "$folder/disk"
admin --mode logicalunit --op update --tid 1 --lun 1 --params thin_provisioning=1
admin --mode target --op bind --tid 1 --initiator-address ALL

echo "# Cases of iscsi-test-cu (libiscsi-bin $(dpkg-query -W -f '${Version}' libiscsi-bin)) that run and pass"
echo "# against tgtd (tgt $(dpkg-query -W -f '${Version}' tgt)); made by tests/iscsi/tgt-list.sh."
# Some of its cases wait for ever for an answer that tgtd does not give: one by one, each with an end.
for case in $(iscsi-test-cu --list 2>/dev/null | sed -n 's/^ALL\.\([^.]*\.[^.]*\)$/\1/p'); do
    timeout --kill-after=5 60 iscsi-test-cu -d "--test=ALL.$case" "$url" "$url" >"$folder/said" 2>&1 || true
    awk -f "$here/verdicts.awk" "$folder/said" | sed -n 's/ ran$//p'
done
