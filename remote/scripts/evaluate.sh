#!/bin/bash
# Score a finished run on other rows, and keep the result beside it in S3.
#   in:   RUN_ID, IMAGE, BUCKET, PREFIX, ROWS (sha256 of an input), FILE (the rows' file name), SPLIT (that without its ending),
#         SCAFFOLD (yes: once more with the keys filled in), HUB_SECRET, GPU (yes, no)
#   out:  facts changed
: "${RUN_ID:?evaluate.sh needs RUN_ID}" "${IMAGE:?evaluate.sh needs IMAGE}" "${BUCKET:?evaluate.sh needs BUCKET}" "${PREFIX:?evaluate.sh needs PREFIX}"
: "${ROWS:?evaluate.sh needs ROWS}" "${FILE:?evaluate.sh needs FILE}" "${SPLIT:?evaluate.sh needs SPLIT}" "${SCAFFOLD:?evaluate.sh needs SCAFFOLD}"
: "${HUB_SECRET:?evaluate.sh needs HUB_SECRET}" "${GPU:?evaluate.sh needs GPU}"

run="$MOUNT/runs/$RUN_ID"
work="$MOUNT/evaluate"
name=fine-tune-slm-evaluate

# Another volume may have trained it.
fetch_run() {
  [ ! -f "$run/manifest.json" ] || return 0
  rm -rf "$MOUNT/evaluate.part"
  aws s3 cp --quiet --recursive "s3://$BUCKET/$PREFIX/runs/$RUN_ID" "$MOUNT/evaluate.part" --exclude "*" \
    --include manifest.json --include config.yaml --include metrics.json --include "adapter/*"
  rm -rf "$run"
  mv "$MOUNT/evaluate.part" "$run"
}

fetch_rows() {
  aws s3 cp --quiet "s3://$BUCKET/$PREFIX/inputs/$ROWS" "$work/rows"
  echo "$ROWS  $work/rows" | sha256sum --check --quiet >&2
  mv "$work/rows" "$work/$FILE"
}

score() {
  local gpus=() more=()
  [ "$GPU" = no ] || gpus=(--gpus all)
  [ "$SCAFFOLD" = no ] || more=(scaffold)
  docker rm --force "$name" >/dev/null 2>&1 || true # left by a command that was cut off
  docker run --rm --name "$name" --network host --ipc host --user 0:0 --cap-drop ALL --security-opt no-new-privileges "${gpus[@]}" \
    --volume "$MOUNT:$MOUNT" --volume "$STATE:$STATE:ro" --env "HF_HOME=$MOUNT/hub-cache" --env "HF_TOKEN_PATH=$STATE/hub-token" \
    --env HF_ENDPOINT --env HF_HUB_DISABLE_XET --env HF_HUB_DISABLE_TELEMETRY=1 --env HF_HUB_DISABLE_PROGRESS_BARS=1 \
    "$IMAGE" examine "$run" "$work/$FILE" "$work/out/$SPLIT" "${more[@]}" >"$work/said" 2>&1
}

main() {
  local others
  mounted || fail refused "the volume is not mounted on the box" "\`inv deploy\` mounts it"
  docker image inspect "$IMAGE" >/dev/null 2>&1 || fail refused "the trainer's image is not on the box" "\`inv deploy\` pulls it"
  others=$(docker ps --filter label=fine-tune-slm.run --format '{{.Names}}' | head -n 1)
  [ -z "$others" ] || fail refused "${others#fine-tune-slm-} is training on this box, and needs its memory" "wait for it: \`inv logs --follow\`"
  rm -rf "$work"
  mkdir -p "$work/out"
  fetch_run
  fetch_rows
  fetch_token
  if ! score; then
    hide "$work/said"
    tail -n 20 "$work/said" >&2
    fail crashed "$(sed -n 's/^error: //p' "$work/said" | head -n 1 | grep . || echo "the trainer could not score the run")" "its own words are above; \`inv status\` shows the box"
  fi
  # The scores last: where they are, the answers are, too.
  aws s3 cp --quiet "$work/out/$SPLIT.predictions.jsonl" "s3://$BUCKET/$PREFIX/runs/$RUN_ID/evaluations/$SPLIT.predictions.jsonl"
  aws s3 cp --quiet "$work/out/$SPLIT.json" "s3://$BUCKET/$PREFIX/runs/$RUN_ID/evaluations/$SPLIT.json"
  rm -rf "$work"
  fact changed yes
}

main "$@" </dev/null
