#!/bin/bash
# Watch the current run: ship its log, events and state to S3 while it goes on, and its files when it ends.
#   in:   BUCKET, PREFIX, LOG_GROUP, PERIOD (seconds); the run's id is in $MOUNT/current
# One at a time: it holds a lock on the mount, and a second one leaves at once.
: "${BUCKET:?supervise.sh needs BUCKET}" "${PREFIX:?supervise.sh needs PREFIX}" "${LOG_GROUP:?supervise.sh needs LOG_GROUP}" "${PERIOD:?supervise.sh needs PERIOD}"

# Shipping must not slow the training down.
quietly() { nice -n 19 aws "$@"; }

size() { stat -c %s "$1" 2>/dev/null || echo 0; }

phase() { sed -n 's/.*"phase": *"\([a-z]*\)".*/\1/p' "$run/state.json" 2>/dev/null; }

# A chunk is named by the offset of its first byte: shipped twice, it is the same chunk.
ship() {
  local offset end box="$STATE/outbox"
  offset=$(cat "$shipped" 2>/dev/null || echo 0)
  end=$(size "$run/log.txt")
  rm -rf "$box"
  mkdir -p "$box/log"
  if [ "$end" -gt "$offset" ]; then
    tail -c +$((offset + 1)) "$run/log.txt" | head -c $((end - offset)) >"$box/log/$(printf '%012d' "$offset")"
  fi
  for file in state.json events.jsonl; do [ ! -f "$run/$file" ] || cp "$run/$file" "$box/$file"; done
  quietly s3 cp --quiet --recursive "$box" "$target" || return 1 # the next round ships it all again
  if [ "$end" -gt "$offset" ]; then
    mirror "$box/log/$(printf '%012d' "$offset")" || log "CloudWatch did not take a chunk; S3 has it"
    echo "$end" >"$shipped"
  fi
}

# CloudWatch wants JSON: {"timestamp": milliseconds, "message": text}; it refuses empty messages.
mirror() {
  local now
  now=$(date +%s%3N)
  grep -v '^ *$' "$1" | tr -d '\000-\010\013-\037' | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/\t/\\t/g' \
    -e "s/.*/{\"timestamp\": $now, \"message\": \"&\"}/" | paste -sd, | sed -e 's/^/[/' -e 's/$/]/' >"$STATE/mirror.json"
  if [ "$1" = "$STATE/outbox/log/000000000000" ]; then
    quietly logs create-log-stream --log-group-name "$LOG_GROUP" --log-stream-name "$run_id" 2>/dev/null || true
  fi
  quietly logs put-log-events --log-group-name "$LOG_GROUP" --log-stream-name "$run_id" --log-events "file://$STATE/mirror.json" >/dev/null
}

# Everything first, the manifest last: whoever sees the manifest sees a whole run.
deliver() {
  quietly s3 cp --quiet --recursive "$run" "$target" --exclude "checkpoints/*" --exclude "*.part" \
    --exclude manifest.json --exclude state.json
  ship
  quietly s3 cp --quiet "$run/manifest.json" "$target/manifest.json"
}

# PERIOD seconds, or until the container ends.
rest() {
  local code=0
  timeout "$PERIOD" docker wait "$(container "$run_id")" >/dev/null 2>&1 || code=$?
  [ "$code" -eq 0 ] || [ "$code" -eq 124 ] || sleep "$PERIOD"
}

retry() { # COMMAND...
  local pause=2
  until "$@"; do
    [ "$pause" -lt 300 ] || return 1
    sleep "$pause"
    pause=$((pause * 2))
  done
}

explain_exit() {
  local name code
  name=$(container "$run_id")
  code=$(docker inspect --format '{{.State.ExitCode}}' "$name" 2>/dev/null || echo 137)
  if [ "$(docker inspect --format '{{.State.OOMKilled}}' "$name" 2>/dev/null)" = true ]; then
    write_state "$run" failed out_of_memory "the kernel ended the trainer: the box has no memory left" "lower train.pack_tokens, then inv train"
  elif [ "$code" -gt 128 ]; then
    write_state "$run" failed killed "the trainer was ended by signal $((code - 128))" "inv train goes on from the newest checkpoint"
  else
    docker logs --tail 20 "$name" >>"$run/log.txt" 2>&1 || true
    write_state "$run" failed crashed "$(grep -v '^ *$' "$run/log.txt" | tail -n 1)" "inv logs shows what it printed"
  fi
}

finish() {
  case "$(phase)" in
    uploading)
      if retry deliver; then
        write_state "$run" "done"
      else
        write_state "$run" failed unreachable "S3 did not take the run's files" "inv train delivers them again"
      fi
      ;;
    done | failed | cancelled) ;;
    *) explain_exit ;;
  esac
  retry ship
  rm -f "$MOUNT/current"
}

main() {
  exec 9>"$MOUNT/supervisor.lock"
  flock --nonblock 9 || exit 0
  while [ -f "$MOUNT/current" ]; do
    run_id=$(cat "$MOUNT/current")
    run="$MOUNT/runs/$run_id"
    target="s3://$BUCKET/$PREFIX/runs/$run_id"
    shipped="$MOUNT/shipped/$run_id" # beside the run: its folder holds only what is the run's
    if [ "$(container_state "$run_id")" = running ]; then
      ship || log "S3 does not take the log; trying again in $PERIOD s"
      rest
    else
      finish
    fi
  done
}

main "$@" </dev/null
