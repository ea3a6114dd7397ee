#!/bin/bash
# Look the box over, and see to it that the supervisor runs: it ships the run's log, and stops a box that nobody needs.
#   in:   INSTANCE (i-...), GPU (yes, no), SUPERVISOR (its whole text), LIFE_LEFT (seconds that cost.limit pays for; may be empty),
#         PRICE (USD an hour of the box; may be empty), PATIENCE (seconds to wait in one go)
#   out:  facts warming (yes: run it again), gpu, changed
: "${INSTANCE:?setup.sh needs INSTANCE}" "${GPU:?setup.sh needs GPU}" "${SUPERVISOR:?setup.sh needs SUPERVISOR}"
: "${PATIENCE:?setup.sh needs PATIENCE}" "${LIFE_LEFT?setup.sh needs LIFE_LEFT}" "${PRICE?setup.sh needs PRICE}"

# An instance's first boot reads its disk from a snapshot, block by block: the first docker and the first nvidia-smi may take minutes
# (https://docs.aws.amazon.com/ebs/latest/userguide/initalize-volume.html). What was read once is fast; so this file says that it was.
warm="$PROGRAMS/warm"
waiting="$STATE/waiting" # since when, in this boot

# await LIMIT WHAT: ends the script, which is to run again; returns once WHAT was waited for LIMIT seconds long.
await() {
  local now
  now=$(seconds)
  [ -f "$waiting" ] || echo "$now" >"$waiting"
  now=$((now - $(cat "$waiting")))
  [ "$now" -lt "$1" ] || return 0
  log "$2 ($now s so far)"
  fact warming yes
  exit 0
}

cold() { [ ! -e "$warm" ]; }

slowly() { if cold; then echo "$1: a new box's disk is read from a snapshot at first, which may take minutes"; else echo "$1"; fi; }

# It may be started by its first use only, and the first user would wait for that.
start_docker() { [ ! -d "$BOX_ROOT/run/systemd/system" ] || systemctl start --no-block docker.service >&2 || log "systemd does not start docker"; }

wait_for_docker() {
  local until=$(($(seconds) + PATIENCE))
  until timeout "$PATIENCE" docker info >/dev/null 2>&1; do
    [ "$(seconds)" -ge "$until" ] || { sleep 2 && continue; }
    await "$(if cold; then echo 600; else echo 60; fi)" "$(slowly "docker on the box does not answer yet")"
    need_docker
  done
}

wait_for_gpu() {
  local code=0
  [ "$GPU" = yes ] || return 0
  timeout "$PATIENCE" nvidia-smi -L >/dev/null 2>&1 || code=$?
  if [ "$code" -eq 124 ]; then
    await "$(if cold; then echo 600; else echo 60; fi)" "$(slowly "the driver has not shown the GPU yet")"
  elif [ "$code" -ne 0 ] && cold; then
    sleep 2
    await 60 "the driver shows no GPU yet"
  fi
  [ "$code" -eq 0 ] || need_gpu
}

gpu() {
  [ "$GPU" = yes ] || { echo none; return; }
  nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>&2 | head -n 1
}

# put FILE MODE TEXT: written aside and renamed, so that a running supervisor keeps reading the text it was started with.
put() {
  if [ -f "$1" ] && [ "$(cat "$1")" = "$3" ]; then return 0; fi
  printf '%s\n' "$3" >"$1.new"
  chmod "$2" "$1.new"
  mv "$1.new" "$1"
  changed=yes
}

# A word of a unit's command, whatever is in it: systemd.service(5), "Command lines".
word() { printf '"%s"' "$(sed 's/[\\"]/\\&/g; s/[$%]/&&/g' <<<"$1")"; }

unit() {
  cat <<END
[Unit]
Description=fine-tune-slm: ships the run's log, stops the box when nobody needs it
Wants=network-online.target
After=network-online.target docker.service local-fs.target

[Service]
ExecStartPre=mkdir -p -m 700 $(word "$STATE")
ExecStart=flock --nonblock --close $(word "$STATE/supervisor.lock") $(word "$PROGRAMS/supervise.sh")
Restart=always
RestartSec=10

[Install]
WantedBy=multi-user.target
END
}

install_supervisor() {
  mkdir -p "$PROGRAMS"
  put "$PROGRAMS/instance" 600 "$INSTANCE"
  put "$PROGRAMS/price" 600 "$PRICE"
  put "$PROGRAMS/supervise.sh" 700 "$SUPERVISOR"
  if [ -d "$BOX_ROOT/run/systemd/system" ]; then
    put "$BOX_ROOT/etc/systemd/system/fine-tune-slm.service" 644 "$(unit)"
    load_unit
  fi
}

# A reload takes the GPU away from containers that NVIDIA's hook alone has given it to ("Failed to initialize NVML: Unknown Error",
# https://github.com/NVIDIA/nvidia-container-toolkit/issues/48), and `enable` reloads, too: neither is done without need, and no new
# text of the unit is loaded while a run goes on.
load_unit() {
  systemctl is-enabled --quiet fine-tune-slm.service 2>/dev/null || systemctl enable fine-tune-slm.service >&2
  [ "$(systemctl show --property NeedDaemonReload --value fine-tune-slm.service)" = yes ] || return 0
  if [ -n "$(ask_docker ps --quiet 2>/dev/null || echo unknown)" ]; then
    log "systemd reads the unit's new text when no run goes on"
  else
    systemctl daemon-reload >&2
  fi
}

main() {
  local seen
  changed=no
  need docker
  need aws
  need flock
  install_supervisor
  limit_life "$LIFE_LEFT"
  start_supervisor # before anything that may fail: from here on the box does not depend on anybody to be stopped
  touch "$STATE/supervised"
  # What the launch has planned for a box that nobody comes to; a system that cannot call it off could not plan it either.
  shutdown -c >&2 || log "no planned shutdown was called off"
  start_docker
  wait_for_docker
  wait_for_gpu
  touch "$warm"
  rm -f "$waiting"
  seen=$(gpu)
  fact warming no
  fact gpu "$seen"
  fact changed "$changed"
}

main "$@" </dev/null
