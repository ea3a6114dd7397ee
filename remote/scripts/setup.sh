#!/bin/bash
# Look the box over, and see to it that the supervisor runs: it ships the run's log, and stops a box that nobody needs.
#   in:   INSTANCE (i-...), GPU (yes, no), SUPERVISOR (its whole text), LIFE_LEFT (seconds that cost.limit pays for; may be empty)
#   out:  facts gpu, root_free_gb, changed
: "${INSTANCE:?setup.sh needs INSTANCE}" "${GPU:?setup.sh needs GPU}" "${SUPERVISOR:?setup.sh needs SUPERVISOR}"
: "${LIFE_LEFT?setup.sh needs LIFE_LEFT}"

wait_for_docker() {
  local tries=0
  until docker_answers; do
    tries=$((tries + 1))
    [ "$tries" -lt 30 ] || need_docker
    sleep 2
  done
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

unit() {
  cat <<END
[Unit]
Description=fine-tune-slm: ships the run's log, stops the box when nobody needs it
Wants=network-online.target
After=network-online.target docker.service local-fs.target

[Service]
ExecStartPre=mkdir -p -m 700 $STATE
ExecStart=flock --nonblock --close $STATE/supervisor.lock $PROGRAMS/supervise.sh
Restart=always
RestartSec=10

[Install]
WantedBy=multi-user.target
END
}

install_supervisor() {
  mkdir -p "$PROGRAMS"
  put "$PROGRAMS/instance" 600 "$INSTANCE"
  put "$PROGRAMS/supervise.sh" 700 "$SUPERVISOR"
  if [ -d "$BOX_ROOT/run/systemd/system" ]; then
    put "$BOX_ROOT/etc/systemd/system/fine-tune-slm.service" 644 "$(unit)"
    systemctl daemon-reload >&2
    systemctl enable fine-tune-slm.service >&2
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
  wait_for_docker
  need_gpu
  seen=$(gpu)
  fact gpu "$seen"
  fact root_free_gb "$(df -Pk "$BOX_ROOT/" | awk 'NR == 2 { printf "%d", $4 / 1048576 }')"
  fact changed "$changed"
}

main "$@" </dev/null
