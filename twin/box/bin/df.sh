#!/bin/sh
# Stands for `df -Pk PATH` where PATH is on a volume: the size of its file system, and what its files take; else the real df.
for path; do :; done
volume=$(readlink -f "${path:-/}")
while [ "$volume" != / ] && [ ! -s "$volume/formatted" ]; do volume=$(dirname "$volume"); done
if [ "$volume" = / ] || [ "$1" != -Pk ] || [ $# -ne 2 ]; then
  exec /bin/df "$@"
fi
size=$(($(cat "$volume/formatted") * 1048576))
used=$(du -sk "$volume/data" | cut -f 1)
[ ! -e "$volume/full" ] || used=$size
echo "Filesystem 1024-blocks Used Available Capacity Mounted on"
printf '/dev/%s %s %s %s %s%% %s\n' "$(basename "$volume")" "$size" "$used" $((size > used ? size - used : 0)) $((used * 100 / size)) "$path"
