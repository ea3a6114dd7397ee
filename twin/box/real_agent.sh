#!/bin/bash
# The namespaces in which amazon-ssm-agent runs in a box of the process grade, and the first process in them.
#   real_agent.sh ROOT PROGRAM: what the agent knows by absolute names lies in ROOT, and PROGRAM with what is beside it in /usr/bin
set -euo pipefail
root=$1 program=$2

mkdir -p "$root/../agent"
mount -t tmpfs agent "$root/../agent"
cd "$root/../agent"

# over FOLDER: what is new in it exists in these namespaces only
over() {
  local name
  name=$(tr / - <<<"$1")
  mkdir "upper$name" "work$name"
  mount -t overlay "over$name" -o "lowerdir=$1,upperdir=upper$name,workdir=work$name" "$1"
}

for folder in /etc /var/lib /var/log /usr/bin /usr/sbin; do over "$folder"; done
[ -L /sbin ] || over /sbin
for folder in etc/amazon/ssm var/lib/amazon/ssm var/log/amazon/ssm; do
  mkdir -p "$root/$folder" "/$folder"
  mount --bind "$root/$folder" "/$folder"
done
for file in "$(dirname "$program")"/amazon-ssm-agent "$(dirname "$program")"/ssm-*; do
  [ -x "$file" ] && [ "$(dirname "$file")" != /usr/bin ] || continue
  touch "/usr/bin/$(basename "$file")"
  mount --bind "$file" "/usr/bin/$(basename "$file")"
done
# A script that exits with 194 has the agent run /sbin/shutdown: the box's, and never that of this machine.
cp "$root/usr/bin/shutdown" /sbin/shutdown
mount -t proc proc /proc
touch "$root/run/agent-space"
exec setpriv --bounding-set -sys_boot --inh-caps -sys_boot -- bash -c 'trap "exit 0" TERM; while :; do sleep 3600 & wait $!; done'
