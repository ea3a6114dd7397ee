#!/bin/sh
# Stands for `findmnt --noheadings --output SOURCE --mountpoint DIRECTORY`: the device that is mounted there.
if [ $# -ne 5 ] || [ "$1 $2 $3 $4" != "--noheadings --output SOURCE --mountpoint" ]; then
  echo "findmnt: this emulated findmnt knows only: --noheadings --output SOURCE --mountpoint DIRECTORY" >&2
  exit 1
fi
found=$(grep -F -e "	${5%/}" "$BOX_ROOT/etc/mtab" 2>/dev/null | tail -n 1)
[ -n "$found" ] || exit 1
printf '%s\n' "${found%%	*}"
