#!/bin/sh
# Stands for `blkid -p -o value -s TYPE DEVICE`: the type of the file system, or exit code 2 when there is none.
if [ "$#" -ne 6 ] || [ "$1 $2 $3 $4 $5" != "-p -o value -s TYPE" ]; then
  echo "blkid: this emulated blkid knows only: blkid -p -o value -s TYPE DEVICE" >&2
  exit 4
fi
[ -e "$6" ] || { echo "blkid: error: $6: No such file or directory" >&2; exit 2; }
[ -s "$6/filesystem" ] || exit 2
cat "$6/filesystem"
