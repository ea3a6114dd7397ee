#!/bin/sh
# Stands for `wipefs -n DEVICE`: lists signatures, prints nothing for a blank disk; never wipes.
if [ $# -ne 2 ] || [ "$1" != -n ]; then
  echo "wipefs: this emulated wipefs knows only: wipefs -n DEVICE" >&2
  exit 1
fi
[ -e "$2" ] || { echo "wipefs: error: $2: probing initialization failed: No such file or directory" >&2; exit 1; }
[ ! -e "$2/unreadable" ] || { echo "wipefs: error: $2: probing initialization failed: Input/output error" >&2; exit 1; }
[ -s "$2/filesystem" ] || exit 0
echo "DEVICE OFFSET TYPE UUID LABEL"
echo "$(basename "$2") 0x438 $(cat "$2/filesystem") - -"
