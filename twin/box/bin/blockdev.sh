#!/bin/sh
# Stands for `blockdev --getsize64 DEVICE`: the size of a disk in bytes.
case "$# $1" in
  "2 --getsize64") ;;
  *) echo "blockdev: this emulated blockdev knows only: --getsize64 DEVICE" >&2; exit 1 ;;
esac
[ -s "$2/size" ] || { echo "blockdev: cannot open $2: No such file or directory" >&2; exit 1; }
echo $(($(cat "$2/size") * 1073741824))
