#!/bin/bash
# End the run that goes on, for good: its trainer may write a checkpoint, everything is shipped, its phase is then `cancelled`.
#   out:  facts run_id, phase, changed

# The id of the run that ended last, if it was cancelled: a repeated request gets the same answer.
cancelled_last() {
  local place last=""
  for place in "$MOUNT/runs"/*/state.json; do
    [ ! "$place" -nt "$last" ] || last=$place
  done
  [ -n "$last" ] && [ "$(phase "${last%/*}")" = cancelled ] && basename "${last%/*}"
}

main() {
  local id
  mounted || fail refused "the volume is not mounted on the box, so no run goes on there" "\`inv status\` shows the runs"
  need_docker
  if [ ! -f "$MOUNT/current" ]; then
    id=$(cancelled_last) || fail refused "no run goes on on this box" "\`inv status\` shows the runs"
    fact run_id "$id"
    fact phase cancelled
    fact changed no
    return
  fi
  id=$(cat "$MOUNT/current")
  printf '%s\n' cancelled "" "somebody asked for it" "\`inv train\` starts a new run" >"$STATE/ending.part"
  mv "$STATE/ending.part" "$STATE/ending"
  docker stop "$(container "$id")" >/dev/null || true # it may end by itself just now
  wait_for_delivery "\`inv status\`, then \`inv stop-run\` again"
  fact run_id "$id"
  fact phase "$(phase "$MOUNT/runs/$id")" # it may have been finished just before
  fact changed yes
}

main "$@" </dev/null
