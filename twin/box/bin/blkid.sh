#!/bin/sh
# Stands for `blkid -p -o value -s TYPE DEVICE`: the type of the file system, or exit code 2 when there is none.
if [ "$#" -ne 6 ] || [ "$1 $2 $3 $4 $5" != "-p -o value -s TYPE" ]; then
  echo "blkid: this emulated blkid knows only: blkid -p -o value -s TYPE DEVICE" >&2
  exit 4
fi
[ -e "$6" ] || { echo "blkid: error: $6: No such file or directory" >&2; exit 2; }
if [ -e "$6/unreadable" ]; then # as with the real one: what cannot be read has no known type
  echo "blkid: error: $6: Input/output error" >&2
  exit 2
fi
case $(cat "$6/filesystem" 2>/dev/null) in
  "" | dos | gpt) exit 2 ;; # a partition table is no TYPE
esac
cat "$6/filesystem"
