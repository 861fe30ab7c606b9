#!/usr/bin/env bash
# Makes a bootable disk image: an MBR partition table, GRUB where it is installed, one ext4 partition with files.
# Usage: scripts/disk-image.sh IMAGE SIZE_MIB
# The files' checksums are in /data/SHA256SUMS of the partition, which begins at 1 MiB. Needs no root.
set -euo pipefail
image="$1"
size_mib="$2"
PATH="$PATH:/usr/sbin:/sbin"

tree="$(mktemp -d)"
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree/boot/grub" "$tree/etc" "$tree/data"
echo aljibe-demo >"$tree/etc/hostname"
cp -r /usr/share/common-licenses/. "$tree/data/" 2>/dev/null || true
for number in 1 2 3 4 5 6 7 8; do
    head -c $((number * 1000003)) /dev/urandom >"$tree/data/random-$number"
done
(cd "$tree/data" && find . -type f ! -name SHA256SUMS -print0 | sort -z | xargs -0 sha256sum >SHA256SUMS)
cat >"$tree/boot/grub/grub.cfg" <<'GRUB'
serial --unit=0
terminal_output serial
echo "Booted from the volume:"
cat /etc/hostname
halt
GRUB

rm -f "$image"
truncate -s "${size_mib}M" "$image"
printf 'label: dos\nstart=2048, type=83, bootable\n' | sfdisk --quiet "$image"
# The file system ends with the partition.
mkfs.ext4 -q -F -L aljibe-demo -d "$tree" -E offset=$((1 << 20)) "$image" "$((size_mib - 1))M"

modules=/usr/lib/grub/i386-pc
if command -v grub-mkimage >/dev/null && [ -e "$modules/boot.img" ]; then
    printf 'set root=(hd0,msdos1)\nconfigfile /boot/grub/grub.cfg\n' >"$tree/early.cfg"
    grub-mkimage -O i386-pc -c "$tree/early.cfg" -p '(hd0,msdos1)/boot/grub' -o "$tree/core.img" \
        biosdisk part_msdos ext2 configfile normal serial terminal echo cat halt
    # The code of the boot sector ends before the partition table; the rest goes into the gap before 1 MiB.
    dd if="$modules/boot.img" of="$image" bs=440 count=1 conv=notrunc status=none
    dd if="$tree/core.img" of="$image" bs=512 seek=1 conv=notrunc status=none
fi
