#!/bin/sh
# Stands for `mount DEVICE DIRECTORY`: the directory becomes a link to the volume's files, /etc/mtab of the box remembers it.
# Exit codes and messages are those of util-linux.
fail() { echo "mount: $2" >&2; exit "$1"; }

while [ $# -gt 2 ]; do
  case $1 in
    -o | -t) shift 2 ;;
    *) fail 1 "$1: this emulated mount knows -o and -t only" ;;
  esac
done
[ $# -eq 2 ] || fail 1 "bad usage: this emulated mount takes DEVICE and DIRECTORY"
device=$1 directory=${2%/} table=$BOX_ROOT/etc/mtab

[ -d "$directory" ] || fail 32 "$directory: mount point does not exist."
[ -e "$device" ] || fail 32 "$directory: special device $device does not exist."
case $(cat "$device/filesystem" 2>/dev/null) in ext4) ;; *) false ;; esac || fail 32 "$directory: wrong fs type, bad option, bad superblock on $device, missing codepage or helper program, or other error."
[ ! -e "$device/unreadable" ] || fail 32 "$directory: can't read superblock on $device."
[ ! -L "$directory" ] || fail 32 "$directory: $device already mounted on $directory."
mv "$directory" "${directory%/*}/.below-${directory##*/}" # what is there is hidden until it is unmounted
ln -s "$(readlink -f "$device")/data" "$directory"
printf '%s\t%s\n' "$(readlink -f "$device")" "$directory" >>"$table"
