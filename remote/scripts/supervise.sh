#!/bin/bash
# The box's one supervisor, from its start to its end: ships the current run (ship.sh, above), tells somebody how it ended (notify.sh), and
# stops a box that nobody needs.
#   in:   PERIOD (seconds between two looks), IDLE (seconds without use), LIFE (seconds since the start), GPU (yes, no)
#         the run's id is in $MOUNT/current, the box's in $PROGRAMS/instance, what ends a run early in $STATE/ending
# It is held by a lock: there is one at a time. `set -e` does not hold here either (see ship.sh): it must outlive every failure.
: "${PERIOD:?supervise.sh needs PERIOD}" "${IDLE:?supervise.sh needs IDLE}" "${LIFE:?supervise.sh needs LIFE}" "${GPU:?supervise.sh needs GPU}"

run_id="" run="" target="" shipped="" # the current run: ship.sh's choose says which

# PERIOD seconds, or until the container ends.
rest() {
  local code=0
  timeout "$PERIOD" docker wait "$(container "$run_id")" >/dev/null 2>&1 || code=$?
  [ "$code" -eq 0 ] || [ "$code" -eq 124 ] || sleep "$PERIOD"
}

full() { [ "$(df -Pk "$MOUNT/" | awk 'NR == 2 { print $4 }')" -lt 1024 ]; }

# PERIOD seconds, or until somebody rings.
doze() { read -r -t "$PERIOD" -u 8 || true; }

explain_exit() {
  local name code words no_room=no
  name=$(container "$run_id")
  code=$(ask_docker inspect --format '{{.State.ExitCode}}' "$name" 2>/dev/null || echo 137)
  ! full || no_room=yes
  [ "$no_room" = no ] || rm -f "$MOUNT/reserve" # nothing could be written down
  if [ -f "$STATE/ending" ]; then
    mapfile -t words <"$STATE/ending"
    write_state "$run" "${words[@]}"
  elif [ "$(ask_docker inspect --format '{{.State.OOMKilled}}' "$name" 2>/dev/null)" = true ]; then
    write_state "$run" failed out_of_memory "the kernel ended the trainer: the box has no memory left" "lower \`train.pack_tokens\`, then \`inv train\`"
  elif [ "$(phase "$run")" = failed ]; then
    return 0
  elif [ "$no_room" = yes ]; then # the trainer had none to say so itself
    write_state "$run" failed disk_full "the volume has no room left" "\`inv up deploy train -- box.disk_gb=...\` makes it larger; \`inv clean\` removes old runs"
  elif [ "$code" -gt 128 ]; then
    write_state "$run" failed killed "the trainer was ended by signal $((code - 128))" "\`inv train\` goes on from the newest checkpoint"
  else
    ask_docker logs --tail 20 "$name" 2>&1 | head -c "$MOST_STATE" | give "$run/log.txt" oflag=append,nofollow,nonblock || true
    write_state "$run" failed crashed "$(last_line)" "\`inv logs\` shows what it printed"
  fi
}

last_line() {
  local end
  end=$(size "$run/log.txt")
  take "$run/log.txt" "$MOST_STATE" $((end > MOST_STATE ? end - MOST_STATE : 0)) | grep -av '^ *$' | tail -n 1
}

# finish [ended]: say how the run ended, deliver what it made, and release it once S3 has all of it. The next start of this run
# waits for that; a run that was started meanwhile is left alone.
finish() {
  local code=0
  exec 9>"$STATE/run.lock"
  if flock --timeout 60 9; then conclude "$@" || code=1; else code=1; fi
  exec 9>&-
  return "$code"
}

conclude() {
  if [ "${1:-}" != ended ]; then
    case "$(container_state "$run_id")" in running | unknown) return 0 ;; esac
  fi
  case "$(phase "$run")" in
    uploading)
      deliver || return 1
      [ "$(phase "$run")" = failed ] || write_state "$run" "done"
      ;;
    "done" | cancelled) ;;
    *) explain_exit ;;
  esac
  ship end || return 1
  tell_end current || log "how $run_id ended is not told"
  # A finished run's checkpoints are on the volume, and nobody goes on from them.
  [ "$(phase "$run")" != "done" ] || quietly s3 rm --quiet --recursive "$target/checkpoints" || log "checkpoints are left in S3"
  rm -f "$MOUNT/current" "$STATE/ending"
}

# The run is another box's by now. What this volume has of it is old where S3 has more; else it may be all that there is: the volume of a
# box that is gone hangs on a new one, and the next `inv train` goes on from it.
let_go() {
  ask_docker kill "$(container "$run_id")" >/dev/null 2>&1
  if behind "$run_id"; then
    log "$(utc) another box has gone on with $run_id: this one lets go of it"
    rm -rf "$run"
    rm -f "$shipped" "$shipped.checkpoints"
  else
    log "$(utc) $run_id was another box's: it stays here as it is until \`inv train\` goes on with it"
  fi
  rm -f "$MOUNT/current" "$MOUNT/requeue" "$STATE/ending"
}

# One look at the run; it takes PERIOD seconds, less where something ends or somebody rings.
attend() {
  if mounted && [ -f "$MOUNT/requeue" ] && [ ! -f "$MOUNT/current" ] && [ ! -f "$STATE/taken" ]; then
    resume || log "$(utc) $run_id does not go on; trying again in $PERIOD s"
  fi
  if ! mounted || [ ! -f "$MOUNT/current" ]; then
    doze
    return
  fi
  if ! choose; then
    log "$(utc) $MOUNT/current names no run; it is put aside"
    rm -f "$MOUNT/current"
    return
  fi
  if [ "$(whose)" = theirs ]; then
    let_go
    return
  fi
  case "$(container_state "$run_id")" in
    running | unknown)
      ship || log "S3 does not take the log; trying again in $PERIOD s"
      rest
      ;;
    *)
      if ! finish; then # an end that S3 does not take is no use of the box
        log "$(utc) the end of $run_id is not in S3 yet; trying again in $PERIOD s"
        doze
        return
      fi
      ;;
  esac
  used=$(seconds)
}

# end_run PHASE REASON EVIDENCE HINT: the trainer may write a checkpoint first (docker's --stop-timeout), then all is shipped.
end_run() {
  mounted && [ -f "$MOUNT/current" ] && choose || return 0
  printf '%s\n' "$@" >"$STATE/ending"
  timeout 150 docker stop "$(container "$run_id")" >/dev/null || log "docker did not stop $run_id"
  finish ended || log "S3 does not have the end of $run_id; the volume has"
}

# requeue RUN: it goes on when the box starts again, with what is left of `cost.limit`. What a full disk took only a part of is no note.
requeue() {
  local left=""
  [ ! -f "$STATE/life" ] || left=$(($(cat "$STATE/life") - $(seconds)))
  if printf '%s\n%s\n' "$1" "$left" >"$MOUNT/requeue.part"; then
    mv "$MOUNT/requeue.part" "$MOUNT/requeue"
  else
    rm -f "$MOUNT/requeue.part"
    return 1
  fi
}

# AWS takes a spot box back, and starts it again by itself hours later, when nobody may be looking: its run goes on then.
take_back() { # WHEN
  local going="" then="it goes on when AWS starts the box again; or at once elsewhere: \`inv up deploy train\`"
  ! mounted || going=$(cat "$MOUNT/current" 2>/dev/null)
  touch "$STATE/taken"
  # Before anything is sent: the box may be off before S3 has taken it.
  [ -z "$going" ] || requeue "$going" || { rm -f "$MOUNT/reserve" && requeue "$going"; } ||
    then="the volume is full, so that it does not go on by itself: \`inv up deploy train -- box.disk_gb=...\` goes on with it"
  [ -n "$going" ] || then="\`inv up\` starts it again"
  tell_stop spot "AWS takes this spot box back at $1" "$then" || log "that is not told"
  PATIENCE=40 end_run failed stopped "AWS takes this spot box back at $1" "$then"
  [ ! -f "$MOUNT/runs/$going/manifest.json" ] || rm -f "$MOUNT/requeue" # it had finished
  sync
}

resume() {
  local code=0
  exec 9>"$STATE/run.lock"
  if flock --timeout 60 9; then revive || code=1; else code=1; fi
  exec 9>&-
  return "$code"
}

revive() {
  local left
  [ -f "$MOUNT/requeue" ] || return 0 # somebody was faster
  choose requeue || { rm -f "$MOUNT/requeue" && return; }
  case "$(whose)" in
    unknown) return 1 ;;
    theirs)
      let_go
      return 0
      ;;
  esac
  docker_answers && fetch_token || return 1
  left=$(tail -n 1 "$MOUNT/requeue")
  [[ "$left" =~ ^-?[0-9]{0,18}$ ]] || left=0 # an older container was root there; in no number bash would carry out what stands in it
  limit_life "$left"
  write_state "$run" starting || return 1
  # What an older one of these scripts has started may be root in there.
  if [ "$(ask_docker inspect --format '{{.Config.User}}' "$(container "$run_id")")" = "$TRAINER:$TRAINER" ] &&
    docker start "$(container "$run_id")" >/dev/null; then
    mv "$MOUNT/requeue" "$MOUNT/current"
  else
    write_state "$run" failed stopped "docker could not start the trainer again" "\`inv train\` goes on from the newest checkpoint"
    tell_end requeue || log "that is not told"
    rm -f "$MOUNT/requeue"
    ship end
  fi
}

# A trainer that hangs is no use of the box: nothing written for IDLE seconds, no model fetched either, and nothing computed. A GPU
# that does not answer computes nothing.
hangs() {
  local most
  mounted && [ -f "$MOUNT/current" ] && choose || return 1
  [ -z "$(timeout 60 find -P "$run" "$MOUNT/hub-cache" -newermt "-$IDLE seconds" -print -quit 2>/dev/null)" ] || return 1
  [ "$GPU" = yes ] || return 0
  most=$(timeout 20 nvidia-smi --query-gpu=utilization.gpu --format=csv,noheader,nounits 2>/dev/null | grep -E '^[0-9]+$' | sort -n | tail -n 1)
  [ "${most:-0}" -eq 0 ]
}

# When AWS will take this spot box back, if it has said so: two minutes before.
notice() {
  local token place="${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}/latest"
  token=$(curl -sf -m 2 -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" "$place/api/token") || return 1
  curl -sf -m 2 -H "X-aws-ec2-metadata-token: $token" "$place/meta-data/spot/instance-action" | sed 's/.*"time": *"\([^"]*\)".*/\1/'
}

# No command has come since the last look; one that comes from now on waits for the box to be off, and does not lose the volume under it.
# A command that hangs with the lock has no lease any more, and keeps no box on.
unused() {
  exec 7>"$STATE/step.lock"
  flock --nonblock 7 || true
  [ "$(cat "$STATE/lease" 2>/dev/null || echo 0)" -le "$used" ] || { exec 7>&- && return 1; }
}

minutes() { echo "$((($1 + 30) / 60)) min"; }

judge() {
  local now lease taken
  now=$(seconds)
  lease=$(cat "$STATE/lease" 2>/dev/null || echo 0)
  [ "$lease" -le "$now" ] || lease=$now # a command is at work
  [ "$lease" -le "$used" ] || used=$lease
  if [ $((now - started)) -ge "$LIFE" ]; then
    give_up stopped "box.max_hours is over: it started $(minutes $((now - started))) ago"
  elif [ "$now" -ge "$(cat "$STATE/life" 2>/dev/null || echo $((now + 1)))" ]; then
    give_up cost "cost.limit is spent: it started $(minutes $((now - started))) ago"
  elif [ $((now - used)) -ge "$IDLE" ] && unused; then
    give_up idle "idle: no run and no command for $(minutes $((now - used)))"
  elif taken=$(notice); then
    take_back "$taken"
    report "spot interruption" || log "S3 did not take the report"
  elif hangs; then
    give_up idle "idle: the trainer has written nothing for $(minutes "$IDLE") and computes nothing"
  else
    report ""
  fi
}

# What `inv status` and `inv costs` read of this stretch of the box's life; once a minute, and at its end.
report() { # WHY IT STOPS
  local now doing=""
  now=$(seconds)
  [ -n "$1" ] || [ $((now - reported)) -ge 60 ] || return 0
  ! mounted || doing=$(cat "$MOUNT/current" 2>/dev/null)
  printf '{"instance": "%s", "started": "%s", "seen": "%s", "run": "%s", "ran": "%s", "idle": %d, "idle_limit": %d, "life_left": %d, "stopped": "%s"}\n' \
    "$instance" "$since" "$(utc)" "$doing" "${run_id:-}" "$((now - used))" "$IDLE" "$((started + LIFE - now))" "$1" >"$STATE/report.json"
  quietly s3 cp --quiet "$STATE/report.json" "s3://$BUCKET/$PREFIX/boxes/$instance/${since//:/}.json" || return 1
  reported=$now
}

# The box stops itself, with its own role; a shutdown stops it, too, where the role may not.
give_up() { # EVENT WHY
  local -x PATIENCE=60 AWS_MAX_ATTEMPTS=2
  log "$(utc) stopping this box: $2"
  tell_stop "$1" "$2" "\`inv up\` starts it again; \`inv up deploy train\` goes on with an unfinished run" || log "that is not told"
  end_run failed stopped "the box stopped itself: $2" "\`inv up deploy train\` goes on from the newest checkpoint"
  quietly ec2 create-tags --resources "$instance" --tags "Key=fine-tune-slm:stopped,Value=$(utc) $2" || log "the tag was not taken"
  report "$2" || log "S3 did not take the report"
  sync
  end_evaluation
  ! mounted || umount "$MOUNT" || log "the volume is in use"
  last_chance
  quietly ec2 stop-instances --instance-ids "$instance" >/dev/null || shutdown -h now || log "nothing stops this box; trying again"
  sleep 60
  exec 7>&-
}

main() {
  local own
  mkdir -p "$STATE"
  instance=$(cat "$PROGRAMS/instance")
  [ -f "$STATE/started" ] || { seconds >"$STATE/started" && utc >"$STATE/since"; }
  started=$(cat "$STATE/started")
  since=$(cat "$STATE/since")
  used=$(seconds)
  reported=-60
  own=$(cksum <"$0")
  [ -p "$STATE/bell" ] || mkfifo "$STATE/bell"
  exec 8<>"$STATE/bell"
  while true; do
    [ "$(cksum <"$0")" = "$own" ] || exec "$0" # `up` brought another one
    begin_sending
    judge || log "$(utc) a look at the box failed"
    attend || log "$(utc) a look at the run failed"
  done
}

main "$@" </dev/null
