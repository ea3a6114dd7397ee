#!/bin/bash
# What every script has: strict mode, a place to stand, and words for the two ends of a script.
#   in:   MOUNT_PATH, REGION; BOX_ROOT comes from the agent's environment and is empty on a real box
set -Eeuo pipefail
umask 077
ulimit -c 0 # tokens and rows pass through
: "${MOUNT_PATH:?a script needs MOUNT_PATH}" "${REGION:?a script needs REGION}"

BOX_ROOT="${BOX_ROOT:-}"
MOUNT="$BOX_ROOT$MOUNT_PATH"
STATE="$BOX_ROOT/run/fine-tune-slm" # tmpfs: gone at every boot
PROGRAMS="$BOX_ROOT/opt/fine-tune-slm"
# The agent sets neither HOME nor a locale.
export HOME="${HOME:-$BOX_ROOT/root}" LC_ALL=C.UTF-8
export AWS_DEFAULT_REGION="$REGION" AWS_PAGER="" AWS_MAX_ATTEMPTS=6 AWS_RETRY_MODE=standard
export PATH="$PATH:/usr/local/bin:/usr/bin:/bin:/snap/bin"

# stdout carries facts only: Run Command keeps its first 24,000 characters.
# A value is one line: in another anybody could state a fact who has named what is told of.
fact() { printf '@@ %s=%s\n' "$1" "${2//[$'\n\r']/ }"; }
log() { printf '%s\n' "$*" >&2; }

# fail REASON SENTENCE HINT
fail() {
  trap - ERR
  fact reason "$1"
  fact problem "$2"
  fact hint "$3"
  log "error: $2"
  exit 1
}

need() { command -v "$1" >/dev/null || fail bad_config "the box has no \`$1\`" "choose an image that has it: \`box.ami=...\`"; }

# A daemon that hangs must not block its callers.
ask_docker() { timeout 20 docker "$@"; }

docker_answers() { ask_docker info >/dev/null 2>&1; }

# Without its daemon docker calls every image and every container unknown.
need_docker() { docker_answers || fail unreachable "docker on the box does not answer" "\`inv down\` and \`inv up\` restart it"; }

need_gpu() { [ "$GPU" = no ] || timeout 20 nvidia-smi -L >/dev/null 2>&1 || fail bad_config "the box shows no GPU" "\`inv down\` and \`inv up\`, or say \`box.gpu=false\`"; }

# Sets `gpus` to docker's words for every GPU. Beside `--gpus` the devices are named: what only NVIDIA's hook gives is taken away by
# any reload of systemd, such as an upgrade of a package makes (https://github.com/NVIDIA/nvidia-container-toolkit/issues/1227).
name_gpus() {
  local node
  gpus=()
  [ "$GPU" = yes ] || return 0
  gpus=(--gpus all)
  for node in "$BOX_ROOT"/dev/nvidia*; do [ ! -c "$node" ] || gpus+=(--device "$node"); done
}

utc() { date -u +%Y-%m-%dT%H:%M:%SZ; }

mounted() { mountpoint -q "$MOUNT"; }

container() { printf 'fine-tune-slm-%s' "$1"; }

# State.Status of a run's container; "absent", or "unknown" where docker itself does not answer: it may well run.
container_state() {
  ask_docker inspect --format '{{.State.Status}}' "$(container "$1")" 2>/dev/null && return
  if docker_answers; then echo absent; else echo unknown; fi
}

# An evaluation that nobody follows any more, and a model that somebody tries: they have the GPU's memory, and hold the volume.
end_evaluation() {
  local name
  for name in examine serve; do ask_docker rm --force "$(container "$name")" >/dev/null 2>&1 || true; done
}

# Seconds of a clock that nobody sets.
seconds() { cut -d . -f 1 /proc/uptime; }

# renew SECONDS: until then somebody is at work on this box, and it is not idle.
renew() { mkdir -p "$STATE" && echo $(($(seconds) + $1)) >"$STATE/lease"; }

# limit_life SECONDS: the box stops itself when they are over; empty: when its longest life is.
limit_life() {
  mkdir -p "$STATE"
  if [ -n "$1" ]; then echo $(($(seconds) + $1)) >"$STATE/life"; else rm -f "$STATE/life"; fi
}

# One supervisor a box, held by the lock; where it runs already it is woken. It has none of our files: a child that kept stdout
# would keep the command open.
start_supervisor() {
  mkdir -p "$STATE" "$BOX_ROOT/var/log"
  if [ -d "$BOX_ROOT/run/systemd/system" ]; then
    systemctl start fine-tune-slm.service >&2
  else
    setsid flock --nonblock --close "$STATE/supervisor.lock" "$PROGRAMS/supervise.sh" </dev/null >>"$BOX_ROOT/var/log/fine-tune-slm.log" 2>&1 7>&- 9>&- &
  fi
  [ ! -p "$STATE/bell" ] || echo 1<>"$STATE/bell"
}

# wait_for_delivery HINT: until the supervisor has all of the current run in S3; it removes $MOUNT/current then.
wait_for_delivery() {
  local tries=0
  while [ -f "$MOUNT/current" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 400 ] || fail unreachable "the run has ended, and its files are not in S3 yet" "$1"
    [ $((tries % 10)) -ne 1 ] || start_supervisor
    sleep 1
  done
}

# Steps have a LEASE, their own timeout; the supervisor has none.
if [ -n "${LEASE:-}" ]; then
  renew "$LEASE"
  # One after the other: a command that was sent twice finds its work done.
  exec 7>"$STATE/step.lock"
  flock --timeout "$LEASE" 7
  renew "$LEASE" # the one before has given its own back
  trap 'renew 0' EXIT
fi

code=0
trap 'code=$?; log "line $LINENO: $BASH_COMMAND exited with $code"; exit "$code"' ERR
