#!/bin/sh
# Stands for `umount DIRECTORY`: refuses while a process of the box uses the volume, as the kernel does.
fail() { echo "umount: $2" >&2; exit "$1"; }

[ $# -eq 1 ] || fail 1 "bad usage: this emulated umount takes one DIRECTORY and no options"
directory=${1%/} table=$BOX_ROOT/etc/mtab
cut -f 2 "$table" 2>/dev/null | grep -Fxq -e "$directory" || fail 32 "$directory: not mounted."
volume=$(readlink -f "$directory")
pattern=$(printf '%s\n' "$volume" | sed 's/[][*?\]/\\&/g')
in_use=$(find /proc/[0-9]*/cwd /proc/[0-9]*/fd -maxdepth 1 \( -lname "$pattern" -o -lname "$pattern/*" \) -print -quit 2>/dev/null)
[ -z "$in_use" ] || fail 32 "$directory: target is busy."
rm "$directory"
mv "${directory%/*}/.below-${directory##*/}" "$directory"
grep -Fv -e "	$directory" "$table" >"$table.new"
mv "$table.new" "$table"
