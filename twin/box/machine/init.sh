#!/bin/bash
# The first process of a box, in namespaces of its own: puts its root together, then is its service manager.
#   init.sh LOWER BOX: LOWER are the folders below its root, BOX holds what is its own
set -euo pipefail
lower=$1 box=$2

if [ "${3:-}" != inside ]; then
  mount --make-rprivate /
  mkdir -p "$box/work" "$box/docker" "$box/mount" "$box/root/dev/pts" "$box/root/dev/shm" "$box/root/run/ec2-instance-connect"
  mount -t overlay box -o "lowerdir=$lower,upperdir=$box/root,workdir=$box/work" "$box/mount"
  connect="$box/root/run/ec2-instance-connect" devices="$box/root/dev"
  cd "$box/mount"
  mount --bind "$devices" dev
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
  mount -t tmpfs -o mode=1777 shm dev/shm
  mount -t proc proc proc
  mount -t sysfs -o ro sysfs sys
  [ ! -d /sys/fs/cgroup ] || mount --rbind /sys/fs/cgroup sys/fs/cgroup
  mount -t tmpfs -o mode=755 run run
  mount -t tmpfs -o mode=1777 tmp tmp
  if [ -n "${TRACE:-}" ]; then
    mkdir -p ".$TRACE"
    mount --bind "$TRACE" ".$TRACE"
  fi
  mkdir -p run/ec2-instance-connect run/sshd var/lib/docker
  mount --bind "$connect" run/ec2-instance-connect
  mount --bind "$box/docker" var/lib/docker
  hostname box
  pivot_root . mnt
  cd /
  umount -l /mnt
  # Without CAP_SYS_BOOT no mistake in here turns the machine off.
  exec setpriv --bounding-set -sys_boot --inh-caps -sys_boot -- /bin/bash /opt/box/init.sh "$lower" "$box" inside
fi

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root

# As at a shutdown: services end in order, file systems are written back, then whatever is left dies with this process.
finish() {
  trap - TERM
  kill -TERM -1 2>/dev/null || true
  for _ in $(seq 60); do
    [ "$(ps -e -o pid= | wc -l)" -gt 4 ] || break
    sleep 0.05
  done
  grep ' /mnt/' /proc/self/mounts | cut -d ' ' -f 2 | while read -r directory; do umount -l "$directory" || true; done
  sync
  exit 0
}
trap finish TERM

for link in fd:/proc/self/fd stdin:/proc/self/fd/0 stdout:/proc/self/fd/1 stderr:/proc/self/fd/2 ptmx:pts/ptmx; do
  ln -sfn "${link#*:}" "/dev/${link%%:*}"
done
# A mount outlives no boot, and fstab is read at each of them.
mount -a 2>/dev/null || true

# The service that keeps docker running.
while :; do
  dockerd --exec-opt native.cgroupdriver=cgroupfs </dev/null >>/var/log/dockerd.log 2>&1 || true
  sleep 1
done &
echo $! >/run/docker-service.pid
touch /run/booted
while :; do
  sleep 3600 &
  wait $! || true
done
