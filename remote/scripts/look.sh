#!/bin/bash
# Say what the box itself sees: its driver, and what it can reach. Nothing is changed.
#   in:   HOSTS (words name=host:port), GPU (yes, no)
#   out:  facts driver (empty without a GPU that answers), unreachable (names)
: "${HOSTS:?look.sh needs HOSTS}" "${GPU:?look.sh needs GPU}"

driver() {
  [ "$GPU" = yes ] || return 0
  nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>&2 | sed -n '1s/.*, *\([0-9][0-9.]*\)$/\1/p'
}

# Whether anybody takes a connection there: bash can ask, and no program is needed.
reaches() { timeout 5 bash -c "exec 3<>/dev/tcp/${1%:*}/${1##*:}" 2>/dev/null; }

unreachable() {
  local word names=()
  for word in $HOSTS; do
    reaches "${word#*=}" || names+=("${word%%=*}")
  done
  printf '%s' "${names[*]-}"
}

main() {
  fact driver "$(driver || true)"
  fact unreachable "$(unreachable)"
}

main "$@" </dev/null
