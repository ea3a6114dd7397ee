#!/bin/bash
# Look the box over, and put the supervisor where it can be started.
#   in:   GPU (yes, no), SUPERVISOR (its whole text)
#   out:  facts gpu, root_free_gb, changed
: "${GPU:?setup.sh needs GPU}" "${SUPERVISOR:?setup.sh needs SUPERVISOR}"

docker_answers() { docker info >/dev/null 2>&1; }

wait_for_docker() {
  local tries=0
  until docker_answers; do
    tries=$((tries + 1))
    [ "$tries" -lt 30 ] || fail unreachable "docker on the box does not answer" "\`inv down\` and \`inv up\` restart it"
    sleep 2
  done
}

gpu() {
  [ "$GPU" = yes ] || { echo none; return; }
  nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>&2 | head -n 1
}

install_supervisor() {
  mkdir -p "$PROGRAMS" "$STATE"
  if [ -f "$PROGRAMS/supervise.sh" ] && [ "$(cat "$PROGRAMS/supervise.sh")" = "$SUPERVISOR" ]; then
    echo no
  else
    # Written aside and renamed, so that a running supervisor keeps reading the text it was started with.
    printf '%s\n' "$SUPERVISOR" >"$PROGRAMS/supervise.new"
    chmod 700 "$PROGRAMS/supervise.new"
    mv "$PROGRAMS/supervise.new" "$PROGRAMS/supervise.sh"
    echo yes
  fi
}

main() {
  local seen changed
  need docker
  need aws
  wait_for_docker
  seen=$(gpu) || fail bad_config "the box shows no GPU" "\`inv down\` and \`inv up\`, or say \`box.gpu=false\`"
  changed=$(install_supervisor)
  fact gpu "$seen"
  fact root_free_gb "$(df -Pk "$BOX_ROOT/" | awk 'NR == 2 { printf "%d", $4 / 1048576 }')"
  fact changed "$changed"
}

main "$@" </dev/null
