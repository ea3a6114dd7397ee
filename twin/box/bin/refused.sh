#!/bin/sh
# Stands for commands that would reach the machine behind the box: they must never run the real one.
echo "$1: not in this emulated box; nothing was done" >&2
exit 1
