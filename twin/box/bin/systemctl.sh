#!/bin/sh
# Stands for systemctl in a box that has systemd, as far as one service and docker need it: what a unit says of ExecStartPre, ExecStart,
# Restart and RestartSec holds. A reload takes the GPU from running containers that docker's `--gpus` alone has given it to, and
# `enable` reloads, too, whatever was enabled before (systemctl(1)).
root=$BOX_ROOT
[ -d "$root/run/systemd/system" ] || { echo "System has not been booted with systemd as init system (PID 1). Can't operate." >&2; exit 1; }
units=$root/etc/systemd/system loaded=$root/run/systemd/loaded wants=$root/etc/systemd/system/multi-user.target.wants
verb=$1
shift
while case ${1:-} in --property) shift ;; --*) ;; *) false ;; esac; do shift; done
unit=${1%.service}

# Its words are the shell's but for these: systemd.service(5), "Command lines".
says() { sed -n "s/^$1=//p" "$loaded/$unit.service" | sed "s/[$][$]/\\\\$/g; s/%%/%/g"; }

reload() {
  echo "$(date -u +%FT%TZ) Reloading." >>"$root/var/log/systemd.log"
  mkdir -p "$loaded"
  rm -f "$loaded"/*
  cp "$units"/*.service "$loaded/" 2>/dev/null
  for config in "$root"/var/lib/docker/containers/*/config.json; do
    folder=${config%/*}
    if grep -qs '"Running": true' "$folder/state.json" && grep -q '"DeviceRequests": \[{.*"Devices": \[\]' "$config"; then : >"$folder/gpu-lost"; fi
  done
}

# Its process, or nothing.
active() { kill -0 "$(cat "$root/run/systemd/$unit.pid" 2>/dev/null || echo none)" 2>/dev/null; }

start() {
  [ -f "$loaded/$unit.service" ] || { mkdir -p "$loaded"; cp "$units/$unit.service" "$loaded/" 2>/dev/null; } ||
    { echo "Failed to start $unit.service: Unit $unit.service not found." >&2; exit 5; }
  ! active || return 0
  sh -c "$(says ExecStartPre)" || exit 1
  setsid sh -c "while :; do sh -c \"\$1\"; [ \"\$2\" = always ] || exit; sleep \"\$3\"; done" "$unit" \
    "$(says ExecStart)" "$(says Restart)" "$(says RestartSec)" </dev/null >>"$root/var/log/$unit.log" 2>&1 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- & # it has nothing of the caller's
  echo $! >"$root/run/systemd/$unit.pid"
}

case "$verb $unit" in
  "start docker")
    if [ -e "$root/../faults/docker-dead" ]; then
      echo "Job for docker.service failed because the control process exited with error code." >&2
      exit 1
    fi
    ;;
  "daemon-reload "*) reload ;;
  start\ ?*) start ;;
  enable\ ?*)
    mkdir -p "$wants"
    ln -sf "$units/$unit.service" "$wants/$unit.service"
    reload
    ;;
  is-enabled\ ?*) [ -e "$wants/$unit.service" ] ;;
  is-active\ ?*) active ;;
  show\ ?*) cmp -s "$units/$unit.service" "$loaded/$unit.service" && echo no || echo yes ;;
  *)
    echo "systemctl: this emulated one knows start, enable, is-enabled, is-active, daemon-reload and show --property NeedDaemonReload --value" >&2
    exit 1
    ;;
esac
