#!/bin/bash
# Let a finished run's model answer on the box, on a port of its container that the box alone reaches: start that, or follow what was started
# before, until it answers. It ends by itself when nobody asks it any more.
#   in:   UNASKED (seconds without a request after which it ends), PATIENCE (seconds to wait in one go), and what finished.sh, above, needs
#   out:  facts loading (yes, no), address, port (of the container), changed
: "${UNASKED:?serve.sh needs UNASKED}" "${PATIENCE:?serve.sh needs PATIENCE}"

about="$RUN_ID $MANIFEST $IMAGE"
said="$STATE/serving.said"

start() {
  prepare
  ask_model --detach serve "${run:?}" 0 "$UNASKED" >"$said" 2>&1 || failed "$said" "docker on the box could not start the trainer"
  printf '%s\n' "$about" >"$STATE/serving"
}

running() { [ "$(container_state serve)" = running ]; }

# The port that it says in its log; the log is the container's word, and no more than a number is taken of it.
port() {
  docker logs --tail 100 "$(container serve)" 2>&1 | head -c "$MOST_STATE" >"$said" || true
  sed -n 's#^http://[0-9.]*:\([0-9]\{1,5\}\)/v1 answers .*#\1#p' "$said" | tail -n 1
}

# Where docker has put it: not a word of the container's.
address() {
  ask_docker inspect --format '{{json .NetworkSettings.Networks}}' "$(container serve)" | sed -n 's/.*"IPAddress": *"\([0-9.]*\)".*/\1/p'
}

main() {
  local number until
  need_volume_and_docker
  { [ "$(cat "$STATE/serving" 2>/dev/null)" = "$about" ] && running; } || start
  until=$(($(seconds) + PATIENCE))
  while number=$(port) && [ -z "$number" ] && running && [ "$(seconds)" -lt "$until" ]; do sleep 0.5; done
  if [ -n "$number" ]; then
    fact loading no
    fact address "$(address)"
    fact port "$number"
    fact changed yes
  elif running; then
    hide "$said"
    log "$(grep -v '^ *$' "$said" | tail -n 1 | cut -c 1-160)"
    fact loading yes
  else
    failed "$said" "the trainer could not load the run"
  fi
}

main "$@" </dev/null
