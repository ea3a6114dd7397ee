#!/bin/bash
# Answer texts with a finished run's model.
#   in:   RUN_ID, IMAGE, BUCKET, PREFIX, ASKED (name of the questions in S3; the answers go beside it), HUB_SECRET, GPU (yes, no)
#   out:  facts answers (name in S3), changed
: "${RUN_ID:?predict.sh needs RUN_ID}" "${IMAGE:?predict.sh needs IMAGE}" "${BUCKET:?predict.sh needs BUCKET}" "${PREFIX:?predict.sh needs PREFIX}"
: "${ASKED:?predict.sh needs ASKED}" "${HUB_SECRET:?predict.sh needs HUB_SECRET}" "${GPU:?predict.sh needs GPU}"

run="$MOUNT/runs/$RUN_ID"
work="$STATE/predict" # tmpfs: nothing of the user's texts stays on a disk
name=fine-tune-slm-predict

# Another volume may have trained it.
fetch_run() {
  [ ! -f "$run/manifest.json" ] || return 0
  rm -rf "$MOUNT/predict.part"
  aws s3 cp --quiet --recursive "s3://$BUCKET/$PREFIX/runs/$RUN_ID" "$MOUNT/predict.part" --exclude "*" \
    --include manifest.json --include config.yaml --include metrics.json --include "adapter/*"
  rm -rf "$run"
  mv "$MOUNT/predict.part" "$run"
}

answer() {
  local gpus=()
  [ "$GPU" = no ] || gpus=(--gpus all)
  docker rm --force "$name" >/dev/null 2>&1 || true # left by a command that was cut off
  docker run --rm --interactive --name "$name" --network host --ipc host --user 0:0 --cap-drop ALL --security-opt no-new-privileges "${gpus[@]}" \
    --volume "$MOUNT:$MOUNT" --volume "$STATE:$STATE:ro" --env "HF_HOME=$MOUNT/hub-cache" --env "HF_TOKEN_PATH=$STATE/hub-token" \
    --env HF_ENDPOINT --env HF_HUB_DISABLE_XET --env HF_HUB_DISABLE_TELEMETRY=1 --env HF_HUB_DISABLE_PROGRESS_BARS=1 \
    "$IMAGE" predict "$run" <"$work/asked" >"$work/answers" 2>"$work/said"
}

main() {
  local others
  mounted || fail refused "the volume is not mounted on the box" "\`inv deploy\` mounts it"
  need_docker
  docker image inspect "$IMAGE" >/dev/null 2>&1 || fail refused "the trainer's image is not on the box" "\`inv deploy\` pulls it"
  others=$(ask_docker ps --filter label=fine-tune-slm.run --format '{{.Names}}' | head -n 1)
  [ -z "$others" ] || fail refused "${others#fine-tune-slm-} is training on this box, and needs its memory" "wait for it: \`inv logs --follow\`"
  rm -rf "$work"
  mkdir -p "$work"
  fetch_run
  fetch_token
  aws s3 mv --quiet "s3://$BUCKET/$PREFIX/$ASKED" "$work/asked" # gone from S3, whatever comes of it
  if ! answer; then
    cat "$work/said" >&2
    fail crashed "$(sed -n 's/^error: //p' "$work/said" | head -n 1 | grep . || echo "the trainer could not answer")" "its own words are above; \`inv status\` shows the box"
  fi
  aws s3 cp --quiet "$work/answers" "s3://$BUCKET/$PREFIX/$ASKED.answers"
  rm -rf "$work"
  fact answers "$ASKED.answers"
  fact changed yes
}

main "$@" </dev/null
