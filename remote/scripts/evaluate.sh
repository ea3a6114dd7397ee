#!/bin/bash
# Score a finished run on other rows, and keep the result beside it in S3: start that, or follow what was started before.
#   in:   ROWS (sha256 of an input), FILE (the rows' file name), SPLIT (that without its ending), SCAFFOLD (yes: once more with the keys
#         filled in), SCHEMA (yes: once more with answers held to a JSON Schema), PATIENCE (seconds to wait in one go), and what finished.sh,
#         above, needs
#   out:  facts scoring (yes, no), changed
: "${ROWS:?evaluate.sh needs ROWS}" "${FILE:?evaluate.sh needs FILE}" "${SPLIT:?evaluate.sh needs SPLIT}" "${SCAFFOLD:?evaluate.sh needs SCAFFOLD}"
: "${SCHEMA:?evaluate.sh needs SCHEMA}" "${PATIENCE:?evaluate.sh needs PATIENCE}"

work="$MOUNT/evaluate"
most=1073741824 # bytes of what comes out
about="$RUN_ID $ROWS $SCAFFOLD $SCHEMA $IMAGE"

fetch_rows() {
  aws s3 cp --quiet "s3://$BUCKET/$PREFIX/inputs/$ROWS" "$work/rows"
  echo "$ROWS  $work/rows" | sha256sum --check --quiet >&2
  mv "$work/rows" "$work/in/$FILE"
  chmod 755 "$work/in"
  chmod 644 "$work/in/$FILE"
}

start() {
  local more=()
  [ "$SCAFFOLD" = no ] || more+=(scaffold)
  [ "$SCHEMA" = no ] || more+=(schema)
  prepare
  rm -rf "$work"
  mkdir -p "$work/in" "$work/out"
  fetch_rows
  hand_over "$work/out"
  # finished.sh mounts it
  shared=(--volume "$work/in:$work/in:ro" --volume "$work/out:$work/out")
  ask_model --detach examine "${run:?}" "$work/in/$FILE" "$work/out/$SPLIT" "${more[@]}" >"$work/said" 2>&1 ||
    failed "$work/said" "docker on the box could not start the trainer"
  printf '%s\n' "$about" >"$work/about"
}

goes_on() { case "$(container_state examine)" in exited | dead | absent) return 1 ;; esac }

await() {
  local until=$(($(seconds) + PATIENCE))
  while goes_on && [ "$(seconds)" -lt "$until" ]; do sleep 0.5; done
}

listen() {
  docker logs --tail 1000 "$(container examine)" 2>&1 | head -c 1048576 >"$work/said" || true
  hide "$work/said"
}

conclude() {
  local code name
  listen
  code=$(docker wait "$(container examine)")
  docker rm --force "$(container examine)" >/dev/null
  [ "$code" = 0 ] || failed "$work/said" "the trainer could not score the run (exit code $code)"
  # The scores last: where they are, the answers are, too.
  for name in "$SPLIT.predictions.jsonl" "$SPLIT.json"; do
    take "$work/out/$name" "$most" >"$work/$name" || failed "$work/said" "the trainer has left no $name"
    aws s3 cp --quiet "$work/$name" "s3://$BUCKET/$PREFIX/runs/$RUN_ID/evaluations/$name"
  done
  rm -rf "$work"
  fact scoring no
  fact changed yes
}

main() {
  need_volume_and_docker
  { [ "$(cat "$work/about" 2>/dev/null)" = "$about" ] && [ "$(container_state examine)" != absent ]; } || start
  await
  if goes_on; then
    listen
    log "$(grep -v '^ *$' "$work/said" | tail -n 1 | cut -c 1-160)"
    fact scoring yes
  elif [ "$(container_state examine)" = absent ]; then
    fail killed "the evaluation was ended from outside" "the same command again"
  else
    conclude
  fi
}

main "$@" </dev/null
