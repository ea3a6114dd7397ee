#!/bin/bash
# What every script has: strict mode, a place to stand, and words for the two ends of a script.
#   in:   MOUNT_PATH, REGION; BOX_ROOT comes from the agent's environment and is empty on a real box
set -Eeuo pipefail
umask 077
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
fact() { printf '@@ %s=%s\n' "$1" "$2"; }
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

# A daemon that hangs must not hold up whoever asks.
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

# An evaluation that nobody follows any more: it has the GPU's memory, and holds the volume.
end_evaluation() { ask_docker rm --force "$(container examine)" >/dev/null 2>&1 || true; }

phase() { sed -n 's/.*"phase": *"\([a-z]*\)".*/\1/p' "$1/state.json" 2>/dev/null; }

# write_state FOLDER PHASE [REASON EVIDENCE HINT]
write_state() {
  local evidence
  printf '%s' "${4:-}" >"$1/state.part" && hide "$1/state.part" || return 1 # whole: a token that is cut is not known for one
  evidence=$(tr -d '\000-\037"\134' <"$1/state.part" | head -c 500 | iconv -c -f UTF-8 -t UTF-8) || true # the cut may be in a character
  printf '{"phase": "%s", "since": "%s", "reason": "%s", "evidence": "%s", "hint": "%s", "heartbeat": "%s"}\n' \
    "$2" "$(utc)" "${3:-}" "$evidence" "${5:-}" "$(utc)" >"$1/state.part" &&
    mv "$1/state.part" "$1/state.json"
}

# The Hub token, into a file that only root reads, on tmpfs: never in an argument, an environment or `docker inspect`. A secret may be
# the token itself, or JSON with an entry named like it. Every value that it has had is kept beside it, for `hide`.
fetch_token() {
  local text around='([[:space:]]|\xef\xbb\xbf|\xe2\x80\x8b|\xc2\xa0)+' # spaces, the mark of UTF-8
  mkdir -p "$STATE"
  text=$(aws secretsmanager get-secret-value --secret-id "$HUB_SECRET" --query SecretString --output text) || return 1
  text=${text#$'\xef\xbb\xbf'}
  case "$text" in
    "{"*)
      text=$(tr -d '\n' <<<"$text" | sed -E 's/^(.*"[^"]*[tT][oO][kK][eE][nN][^"]*"|[^:]*"[^"]*")[[:space:]]*:[[:space:]]*"([^"]*)".*$/\2/')
      ;;
  esac
  text=$(LC_ALL=C sed -E "s/^$around//; s/$around\$//; s/^([\"'])(.*)\\1\$/\\2/" <<<"$text")
  printf '%s\n' "$text" >"$STATE/hub-token.part"
  grep -Fqxf "$STATE/hub-token.part" "$STATE/hub-tokens" 2>/dev/null || forms "$text" >>"$STATE/hub-tokens"
  mv "$STATE/hub-token.part" "$STATE/hub-token"
}

# A secret as others may write it: as it is, in base64 wherever it begins in there, in a URL. conf/secret.py does the same.
forms() { # SECRET
  local before start code sign url="" low=""
  printf '%s\n' "$1"
  [ "${#1}" -ge 8 ] || return 0
  for before in 0 1 2; do # bytes: base64 writes three in four letters, and those that a neighbour has a part in are left out
    start=$(((before * 8 + 5) / 6))
    code=$(printf '%.*s%s' "$before" xx "$1" | base64 | tr -d '\n')
    code=${code:start:$(((before + ${#1}) * 8 / 6 - start))}
    printf '%s\n%s\n' "$code" "$(tr '+/' '-_' <<<"$code")"
  done
  while IFS= read -r -n 1 sign; do
    case "$sign" in
      [A-Za-z0-9._~-] | "") url+=$sign low+=$sign ;;
      *) url+=$(printf '%%%02X' "'$sign") low+=$(printf '%%%02x' "'$sign") ;;
    esac
  done <<<"$1"
  printf '%s\n%s\n' "$url" "$low"
}

# hide FILE: every token that was fetched, in each of its forms, becomes as many asterisks, in place: no offset moves.
hide() {
  local offset found
  [ -s "$STATE/hub-tokens" ] || return 0
  { LC_ALL=C grep -obaFf "$STATE/hub-tokens" "$1" || true; } | while IFS=: read -r offset found; do
    printf '%*s' "${#found}" '' | tr ' ' '*' | dd of="$1" bs=1 seek="$offset" conv=notrunc status=none
  done
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
