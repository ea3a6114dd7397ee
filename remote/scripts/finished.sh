#!/bin/bash
# What predict.sh and evaluate.sh do alike: they ask a finished run's model, in the trainer's image, on a box that does not train.
#   in:   RUN_ID, MANIFEST (sha256 of its manifest), IMAGE, BUCKET, PREFIX, HUB_SECRET, GPU (yes, no)
: "${RUN_ID:?finished.sh needs RUN_ID}" "${IMAGE:?finished.sh needs IMAGE}" "${BUCKET:?finished.sh needs BUCKET}"
: "${MANIFEST:?finished.sh needs MANIFEST}" "${PREFIX:?finished.sh needs PREFIX}" "${HUB_SECRET:?finished.sh needs HUB_SECRET}" "${GPU:?finished.sh needs GPU}"

run="$MOUNT/runs/$RUN_ID"

# Another volume may have trained it. The manifest is the one that the laptop has read; the trainer compares the files with it before it
# loads them. A copy of the volume's own that differs is kept: it may be the true one.
fetch_finished() {
  local part="$MOUNT/finished.part"
  if [ ! -f "$run/manifest.json" ]; then
    rm -rf "$part"
    aws s3 cp --quiet --recursive "s3://$BUCKET/$PREFIX/runs/$RUN_ID" "$part" --exclude "*" \
      --include manifest.json --include config.yaml --include decided.json --include metrics.json --include predictions.jsonl --include "adapter/*"
    is_meant "$part" || fail damaged_run "the manifest of $RUN_ID in S3 has changed since it was read" "run the same command again; if this comes back, somebody else writes into this run"
    rm -rf "$run"
    mv "$part" "$run"
  fi
  is_meant "$run" || fail damaged_run "the manifest of $RUN_ID on the volume is not the one in S3: one of them was changed after the run" \
    "\`inv down\`, and the same command answers with what is in S3; or train it again: \`inv train -- seed=...\`"
}

is_meant() { [ "$(take "$1/manifest.json" 16777216 2>/dev/null | sha256sum)" = "$MANIFEST  -" ]; }

need_volume_and_docker() {
  mounted || fail refused "the volume is not mounted on the box" "\`inv deploy\` mounts it"
  need_docker
}

# The box is fit to be asked, and has the run's model and a token.
prepare() {
  local others
  need_volume_and_docker
  docker image inspect "$IMAGE" >/dev/null 2>&1 || fail refused "the trainer's image is not on the box" "\`inv deploy\` pulls it"
  others=$(ask_docker ps --filter label=fine-tune-slm.run --format '{{.Names}}' | head -n 1)
  [ -z "$others" ] || fail refused "${others#fine-tune-slm-} is training on this box, and needs its memory" "wait for it: \`inv logs --follow\`"
  fetch_finished
  fetch_token
}

shared=() # docker's words for what is mounted beside the run

# ask_model HOW WORDS...: HOW is --detach, or --interactive: then nothing is left of it.
ask_model() {
  local how=("$1") gpus held name
  name=$(container "$2")
  [ "$1" = --detach ] || how+=(--rm)
  docker rm --force "$name" >/dev/null 2>&1 || true # left by a command that was cut off
  name_gpus
  hold
  hand_over "${run:?}"
  docker run "${how[@]}" --name "$name" "${held[@]}" "${gpus[@]}" --volume "$run:$run:ro" "${shared[@]}" "$IMAGE" trainer "${@:2}"
}

# failed FILE OTHERWISE: end with the trainer's own sentence and hint, which stand in what it has said; else with its last line.
failed() {
  local what hint
  hide "$1"
  tail -n 20 "$1" >&2
  what=$(sed -n 's/^error: //p' "$1")
  hint=$(sed -n 's/^hint: //p' "$1")
  hint=${hint%%$'\n'*}
  [ -n "$what" ] || what="$2: $(tail -n 1 "$1")"
  fail crashed "${what%%$'\n'*}" "${hint:-the same command again; \`inv status\` shows the box}"
}
