#!/bin/sh
# Stands for `mountpoint [-q] DIRECTORY`.
quiet=no
[ "$1" != -q ] || { quiet=yes; shift; }
[ $# -eq 1 ] || { echo "mountpoint: bad usage: this emulated mountpoint takes -q and one DIRECTORY" >&2; exit 1; }
if cut -f 2 "$BOX_ROOT/etc/mtab" 2>/dev/null | grep -Fxq -e "${1%/}"; then
  [ $quiet = yes ] || echo "$1 is a mountpoint"
else
  [ $quiet = yes ] || echo "$1 is not a mountpoint" >&2
  exit 32
fi
