#!/bin/sh
# Stands for sudo: the user who runs a box of this grade is its root already. Knows `sudo -n COMMAND...`.
if [ "$1" != -n ] || [ $# -lt 2 ]; then
  echo "sudo: this emulated sudo knows -n and a command" >&2
  exit 1
fi
shift
exec "$@"
