#!/bin/sh
# Stands for `resize2fs DEVICE`: the file system takes the whole of its disk.
[ $# -eq 1 ] || { echo "resize2fs: this emulated resize2fs takes one DEVICE" >&2; exit 1; }
volume=$(readlink -f "$1")
if [ "$(cat "$volume/filesystem" 2>/dev/null)" != ext4 ]; then
  echo "resize2fs: Bad magic number in super-block while trying to open $1" >&2
  exit 1
fi
if cmp -s "$volume/size" "$volume/formatted"; then
  echo "The filesystem is already $(($(cat "$volume/size") * 262144)) (4k) blocks long.  Nothing to do!" >&2
else
  cp "$volume/size" "$volume/formatted"
  echo "The filesystem on $1 is now $(($(cat "$volume/size") * 262144)) (4k) blocks long."
fi
