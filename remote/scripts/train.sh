#!/bin/bash
# Start a run, detached; started already is no error.
#   in:   RUN_ID, CONFIG (sha256 of its config.yaml), IMAGE, BUCKET, PREFIX, INPUTS (sha256 ...), HUB_SECRET, GPU (yes, no),
#         NEED_GB (room for a model and its run), LIFE_LEFT (seconds that cost.limit pays for; may be empty)
#   out:  facts container (state), changed
: "${RUN_ID:?train.sh needs RUN_ID}" "${IMAGE:?train.sh needs IMAGE}" "${BUCKET:?train.sh needs BUCKET}" "${PREFIX:?train.sh needs PREFIX}"
: "${INPUTS?train.sh needs INPUTS}" "${HUB_SECRET:?train.sh needs HUB_SECRET}" "${GPU:?train.sh needs GPU}" "${NEED_GB:?train.sh needs NEED_GB}"
: "${LIFE_LEFT?train.sh needs LIFE_LEFT}" "${CONFIG:?train.sh needs CONFIG}"

run="$MOUNT/runs/$RUN_ID"
name=$(container "$RUN_ID")

refuse_second_run() {
  local others
  others=$(ask_docker ps --filter label=fine-tune-slm.run --format '{{.Names}}' | grep -vFx "$name" | head -n 1 || true)
  [ -z "$others" ] || fail refused "${others#fine-tune-slm-} is still running on this box" "\`inv train\` with its settings attaches to it; \`inv status\` shows it"
}

# What the volume has left, with the models that it keeps already: they are not fetched again.
check_room() {
  local left cached
  left=$(df -Pk "$MOUNT/" | awk 'NR == 2 { print $4 }')
  cached=$(timeout 60 du -sk "$MOUNT/hub-cache" | cut -f 1) || cached=0
  if [ $((left + cached)) -lt $((NEED_GB * 976563)) ] || [ "$left" -lt 976563 ]; then
    fail disk_full "the run needs about $NEED_GB GB, and the volume has $((left / 976563)) GB left beside $((cached / 976563)) GB of models" \
      "\`inv clean\` removes old runs; or let the volume grow: \`inv up deploy train -- box.disk_gb=...\`"
  fi
}

# All in one call: each start of `aws` costs a second.
fetch_inputs() {
  local sha wanted=()
  for sha in $INPUTS; do [ -f "$MOUNT/inputs/$sha" ] || wanted+=(--include "$sha"); done
  [ "${#wanted[@]}" -gt 0 ] || return 0
  rm -rf "$MOUNT/inputs.part"
  aws s3 cp --only-show-errors --recursive "s3://$BUCKET/$PREFIX/inputs" "$MOUNT/inputs.part" --exclude "*" "${wanted[@]}"
  for sha in "$MOUNT/inputs.part"/*; do
    echo "${sha##*/}  $sha" | sha256sum --check --quiet >&2
    mv "$sha" "$MOUNT/inputs/"
  done
}

# What this volume lacks of the run: all of it on another box's volume, so that its log and its steps go on where they ended.
fetch_run() {
  local part="$MOUNT/run.part"
  [ ! -f "$run/config.yaml" ] || behind "$RUN_ID" || [ $? = 2 ] || return 0
  rm -rf "$part"
  aws s3 cp --only-show-errors --recursive "s3://$BUCKET/$PREFIX/runs/$RUN_ID" "$part" --exclude "*" \
    --include config.yaml --include decided.json --include events.jsonl --include "log/*" --include "checkpoints/*"
  mkdir -p "$part/log" "$part/checkpoints"
  find "$part/log" -maxdepth 1 -type f -regextype posix-extended -regex '.*/[0-9]{12,18}' | sort | xargs -r -d '\n' cat >"$part/log.txt"
  rm -rf "$part/log"
  stat -c %s "$part/log.txt" >"$MOUNT/shipped/$RUN_ID"
  # Only what a trainer calls them: by these names the supervisor removes from S3, and `*` is a pattern there.
  find -P "$part/checkpoints" -mindepth 1 -maxdepth 1 -regextype posix-extended -regex '.*/step-[0-9]{1,12}' -printf '%f\n' >"$MOUNT/shipped/$RUN_ID.checkpoints"
  rm -rf "$run"
  mv "$part" "$run"
}

# The settings are the very bytes that the laptop has read, whatever this volume or S3 has by now; the trainer looks at them once more.
check_config() {
  local part="$MOUNT/config.part"
  is_sent "$run/config.yaml" && return
  aws s3 cp --only-show-errors "s3://$BUCKET/$PREFIX/runs/$RUN_ID/config.yaml" "$part"
  is_sent "$part" || fail damaged_run "the settings of $RUN_ID in S3 have changed since they were read" "\`inv train\` again; if this comes back, somebody else writes into this run"
  replace "$part" "$run/config.yaml"
}

is_sent() { [ "$(take "$1" "$MOST_STATE" 2>/dev/null | sha256sum)" = "$CONFIG  -" ]; }

# The box may have a GPU and docker no way to give it: the trainer would then compute on CPUs, for the price of the GPU.
need_gpu_inside() {
  local said
  [ "$GPU" = yes ] || return 0
  said=$(timeout 120 docker run --rm "${held[@]}" "${gpus[@]}" --entrypoint nvidia-smi "$IMAGE" -L 2>&1) ||
    fail bad_config "no GPU reaches the trainer's image: $(tail -n 1 <<<"$said" | tr -d '\n"')" "\`inv down\` and \`inv up\`; or an image with NVIDIA's container toolkit: \`box.ami=...\`"
}

start() {
  local said sha inputs=()
  # Each by itself: another run's rows are none of its business.
  for sha in $INPUTS; do
    regular "$MOUNT/inputs/$sha" || fail refused "input $sha on the volume is no file of its own" "remove it there, and \`inv train\` fetches it again"
    chmod 644 "$MOUNT/inputs/$sha"
    inputs+=(--volume "$MOUNT/inputs/$sha:$MOUNT/inputs/$sha:ro")
  done
  write_state "$run" starting
  # A path means the same inside and outside, so that no file of a run depends on where it is read.
  said=$(docker run --detach --name "$name" --label "fine-tune-slm.run=$RUN_ID" --restart no --stop-timeout 120 "${held[@]}" "${gpus[@]}" \
    --volume "$run:$run" --volume "$run/config.yaml:$run/config.yaml:ro" "${inputs[@]}" --env TOKENIZERS_PARALLELISM=false "$IMAGE" trainer run "$run" "$CONFIG" 2>&1) ||
    fail crashed "docker on the box could not start the trainer: $(tail -n 1 <<<"$said" | tr -d '\n"')" "\`inv doctor\` looks at the box; then \`inv train\` again"
}

supervise() {
  [ -s "$MOUNT/reserve" ] || head -c 1048576 /dev/zero >"$MOUNT/reserve" # room to say that the disk is full
  printf '%s\n' "$RUN_ID" >"$MOUNT/current.part"
  mv "$MOUNT/current.part" "$MOUNT/current"
  rm -f "$MOUNT/requeue"
  start_supervisor
}

# Whatever ended here goes to S3 first: then the supervisor has no more to say about it.
take_over() {
  local last
  last=$(cat "$MOUNT/current" 2>/dev/null || true)
  [ -z "$last" ] || [ "$last" = "$RUN_ID" ] || wait_for_delivery "\`inv status\`, then \`inv train\` again"
  exec 9>"$STATE/run.lock"
  flock --timeout 300 9 || fail unreachable "the box is still delivering $last to S3" "\`inv status\`, then \`inv train\` again"
}

main() {
  local now held gpus changed=no
  mounted || fail refused "the volume is not mounted on the box" "\`inv deploy\` mounts it"
  [ -x "$PROGRAMS/supervise.sh" ] || fail refused "the box is not set up" "\`inv up\` sets it up"
  need_docker
  docker image inspect "$IMAGE" >/dev/null 2>&1 || fail refused "the trainer's image is not on the box" "\`inv deploy\` pulls it"
  refuse_second_run
  take_over
  now=$(container_state "$RUN_ID")
  if [ -f "$run/manifest.json" ]; then
    write_state "$run" uploading # finished here before, and not delivered
  elif [ "$now" != running ]; then
    rm -f "$STATE/ending"
    docker rm --force "$name" >/dev/null 2>&1 || true
    end_evaluation
    need_gpu
    fetch_token
    name_gpus
    hold
    need_gpu_inside
    check_room
    fetch_run
    check_config
    fetch_inputs
    hand_over "$run"
    start
    changed=yes
  fi
  limit_life "$LIFE_LEFT"
  supervise
  # Before anybody follows: what S3 has may be how the last attempt ended.
  take "$run/state.json" "$MOST_STATE" >"$STATE/state.json"
  aws s3 cp --only-show-errors "$STATE/state.json" "s3://$BUCKET/$PREFIX/runs/$RUN_ID/state.json"
  fact container "$(container_state "$RUN_ID")"
  fact changed "$changed"
}

main "$@" </dev/null
