#!/bin/sh
# Stands for `mkfs.ext4 [-q] DEVICE`: like the real one without a terminal, it reformats what is there without asking.
[ "$1" != -q ] || shift
[ $# -eq 1 ] || { echo "mkfs.ext4: this emulated mkfs.ext4 takes -q and one DEVICE" >&2; exit 1; }
[ -e "$1" ] || { echo "mke2fs: The file $1 does not exist and no size was specified." >&2; exit 1; }
volume=$(readlink -f "$1")
if cut -f 1 "$BOX_ROOT/etc/mtab" 2>/dev/null | grep -Fxq -e "$volume"; then
  echo "$1 is mounted; will not make a filesystem here!" >&2
  exit 1
fi
rm -rf "${volume:?}/data"
mkdir "$volume/data"
echo ext4 >"$volume/filesystem"
cp "$volume/size" "$volume/formatted"
