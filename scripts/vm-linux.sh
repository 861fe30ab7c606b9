#!/usr/bin/env bash
# Brings a small Linux for virtual machines: Debian's kernel for clouds and a static busybox, unpacked into a folder and not installed. Prints the
# folder. Quick when it is there.
# Usage: scripts/vm-linux.sh FOLDER
set -euo pipefail

folder=${1:?usage: scripts/vm-linux.sh FOLDER}
if [ -e "$folder/done" ]; then
    echo "$folder"
    exit 0
fi
rm -rf "$folder"
mkdir -p "$folder"
cd "$folder"
kernel_of() {
    apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/ { print $2; exit }'
}
kernel=$(kernel_of)
if [ -z "$kernel" ] || ! apt-get download -qq "$kernel" busybox-static 2>/dev/null; then
    if [ "$(id -u)" -eq 0 ]; then apt-get update -qq; else sudo apt-get update -qq; fi
    kernel=$(kernel_of)
    apt-get download -qq "${kernel:?there is no linux-image-cloud-amd64}" busybox-static
fi
for package in ./*.deb; do
    dpkg-deb -x "$package" .
    rm "$package"
done
touch done
echo "$folder"
