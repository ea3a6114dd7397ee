#!/bin/sh
# Stands for `shutdown [-r|-h|-P] [now|+MINUTES]` and `shutdown -c`, and by --as for reboot, poweroff and halt: the word goes to the
# emulation, with the minutes to wait; only a reboot is not waited for. EC2 decides what it means for the instance.
word=off minutes=
[ "$1" != --as ] || { case $2 in reboot) word=reboot ;; esac; shift 2; }
for argument; do
  case $argument in
    -r | --reboot) word=reboot ;;
    -c) word=cancel ;;
    +[0-9]*) minutes=${argument#+} ;;
    -h | -P | -H | --poweroff | --halt | now) ;;
    *) echo "shutdown: this emulated shutdown knows -r, -h, -P, -c, now and +MINUTES" >&2; exit 1 ;;
  esac
done
echo "$word${minutes:+ $minutes}" >"$BOX_ROOT/../power.new"
mv "$BOX_ROOT/../power.new" "$BOX_ROOT/../power"
[ -z "$minutes" ] || echo "Shutdown scheduled in $minutes minutes, use 'shutdown -c' to cancel." >&2
