#!/bin/sh
# Stands for `shutdown [-r|-h|-P] [now|+MINUTES]`, and by --as for reboot, poweroff and halt: the word goes to whoever runs the
# emulation, at once. What it means for the instance is EC2's business.
word=off
[ "$1" != --as ] || { case $2 in reboot) word=reboot ;; esac; shift 2; }
for argument; do
  case $argument in
    -r | --reboot) word=reboot ;;
    -h | -P | -H | --poweroff | --halt | now | +[0-9]*) ;;
    *) echo "shutdown: this emulated shutdown knows -r, -h, -P, now and +MINUTES" >&2; exit 1 ;;
  esac
done
echo "$word" >"$BOX_ROOT/../power.new"
mv "$BOX_ROOT/../power.new" "$BOX_ROOT/../power"
