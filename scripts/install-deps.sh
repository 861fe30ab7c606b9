#!/usr/bin/env bash
# Installs the Debian packages that building and testing need and that this machine lacks, and gives it the id that tests need.
# Quick and silent when nothing is missing; needs root or sudo only when something is.
# Usage: scripts/install-deps.sh [build|test|demo|vm]...   (default: test; each but vm includes those before it, vm includes test)
set -euo pipefail

# The RocksDB crate is C++ and reads its headers through libclang.
BUILD=(build-essential clang libclang-dev pkg-config)
# Real clients and servers: fio, libnbd's tools and Python module, libiscsi's and its suite, the peers, etcd (whose service on port
# 2379 no test uses), TLS certificates, file system tools.
TEST=(fio libnbd-bin python3 python3-venv python3-libnbd nbdkit nbd-server fuse2fs fuse3 qemu-utils qemu-block-extra gnutls-bin e2fsprogs fdisk
    libiscsi-bin libiscsi-dev tgt etcd-server jq curl procps strace)
# A boot loader for the disk image that the demo makes.
DEMO=(grub-common grub-pc-bin)
# A virtual machine under software emulation.
VM=(qemu-system-x86 openssl)

wanted=()
for group in "${@:-test}"; do
    case "$group" in
        build) wanted+=("${BUILD[@]}") ;;
        test) wanted+=("${BUILD[@]}" "${TEST[@]}") ;;
        demo) wanted+=("${BUILD[@]}" "${TEST[@]}" "${DEMO[@]}") ;;
        vm) wanted+=("${BUILD[@]}" "${TEST[@]}" "${VM[@]}") ;;
        *) echo "install-deps: no group '$group' (build, test, demo or vm)" >&2; exit 2 ;;
    esac
done

is_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing=()
for package in "${wanted[@]}"; do
    is_installed "$package" || missing+=("$package")
done
# Debian 12 ships qemu-storage-daemon in qemu-system-common, later releases in qemu-utils.
if [[ " ${wanted[*]} " == *" qemu-utils "* ]] && grep -q '^VERSION_ID="12"' /etc/os-release &&
    ! command -v qemu-storage-daemon >/dev/null; then
    missing+=(qemu-system-common)
fi
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "install-deps: run this as root, it has to: $*" >&2
        return 1
    fi
}

# The witness's register tells machines apart by this, which a container may lack.
if [[ " ${wanted[*]} " == *" etcd-server "* ]] && ! [ -s /etc/machine-id ] && ! [ -s /var/lib/dbus/machine-id ]; then
    echo "install-deps: making /etc/machine-id"
    tr -d - </proc/sys/kernel/random/uuid | as_root tee /etc/machine-id >/dev/null
fi
[ "${#missing[@]}" -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "install-deps: this is no Debian; install the equivalents of: ${missing[*]}" >&2
    exit 1
fi
echo "install-deps: installing ${missing[*]}"
as_root apt-get -qq update
as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${missing[@]}" </dev/null
