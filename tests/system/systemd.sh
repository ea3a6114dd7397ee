#!/bin/bash
# A small system whose first process is this machine's own systemd: its own processes, mounts, names, network and group of processes.
#   systemd.sh FOLDER: keeps what the system changes in FOLDER/up, from one boot to the next; it sees FOLDER as /run/probe
set -euo pipefail
folder=$1

if [ "${2:-}" != inside ]; then
  [ -d /sys/fs/cgroup/systemd ] && groups=/sys/fs/cgroup/systemd || groups=/sys/fs/cgroup
  group="$groups/$(basename "$folder").$$"
  mkdir "$group"
  echo $$ >"$group/cgroup.procs"
  # Whatever way it ends, its processes are gone, and their groups can go.
  trap 'echo $$ >"$groups/cgroup.procs"; find "$group" -depth -type d -exec rmdir {} \;' EXIT
  unshare --mount --pid --fork --kill-child=SIGKILL --uts --ipc --net --cgroup setpriv --pdeathsig KILL bash "$0" "$folder" inside
  exit
fi

mkdir -p "$folder/up" "$folder/work" "$folder/root"
mount -t overlay system -o "lowerdir=/,upperdir=$folder/up,workdir=$folder/work" "$folder/root"
cd "$folder/root"
# Nothing of this machine's own services starts, and nothing of its kernel's settings can be changed.
[ -f "$folder/booted" ] || rm -rf etc/systemd/system/*.wants
touch "$folder/booted"
: >etc/fstab
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,ro,bind proc/sys
mount -t sysfs -o ro sysfs sys
if [ -d /sys/fs/cgroup/systemd ]; then
  mount -t tmpfs groups sys/fs/cgroup
  mkdir sys/fs/cgroup/systemd
  mount -t cgroup -o none,name=systemd groups sys/fs/cgroup/systemd
else
  mount -t cgroup2 groups sys/fs/cgroup
fi
mount -t tmpfs dev dev
mkdir dev/pts dev/shm
while read -r name major minor; do mknod -m 666 "dev/$name" c "$major" "$minor"; done <<<$'null 1 3\nzero 1 5\nfull 1 7\nrandom 1 8\nurandom 1 9'
ln -s /proc/self/fd dev/fd
mount -t tmpfs run run
mount -t tmpfs tmp tmp
mkdir -p "run/probe"
mount --bind "$folder" run/probe
pivot_root . mnt
cd /
umount -l /mnt
export container=probe
exec /lib/systemd/systemd --unit=multi-user.target --log-target=console --show-status=no
