#!/bin/bash
# Say what the box itself sees: its driver, and what it can reach. Nothing is changed.
#   in:   HOSTS (words name=host:port), GPU (yes, no)
#   out:  facts driver (empty without a GPU that answers), gpu_lost (runs whose container cannot use it any more), unreachable (names)
: "${HOSTS:?probe.sh needs HOSTS}" "${GPU:?probe.sh needs GPU}"

driver() {
  [ "$GPU" = yes ] || return 0
  nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>&2 | sed -n '1s/.*, *\([0-9][0-9.]*\)$/\1/p'
}

# Whether anybody takes a connection there: bash can ask, and no program is needed.
reaches() { timeout 5 bash -c "exec 3<>\"/dev/tcp/\$0/\$1\"" "${1%:*}" "${1##*:}" 2>/dev/null; }

unreachable() {
  local word names=()
  for word in $HOSTS; do
    reaches "${word#*=}" || names+=("${word%%=*}")
  done
  printf '%s' "${names[*]-}"
}

gpu_lost() {
  local name names=()
  [ "$GPU" = yes ] || return 0
  for name in $(ask_docker ps --filter label=fine-tune-slm.run --format '{{.Names}}' 2>/dev/null || true); do
    ask_docker exec "$name" nvidia-smi -L >/dev/null 2>&1 || names+=("${name#fine-tune-slm-}")
  done
  printf '%s' "${names[*]-}"
}

main() {
  fact driver "$(driver || true)"
  fact gpu_lost "$(gpu_lost)"
  fact unreachable "$(unreachable)"
}

main "$@" </dev/null
