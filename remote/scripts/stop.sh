#!/bin/bash
# Leave the box fit to be stopped: no run going on, everything delivered, the volume unmounted.
#   in:   FORCE (yes, no: end a run that is going on)
#   out:  facts stopped_run, changed
: "${FORCE:?stop.sh needs FORCE}"

# The supervisor may be looking at it just now.
unmount() {
  local tries=0
  sync
  until umount "$MOUNT"; do
    tries=$((tries + 1))
    [ "$tries" -lt 10 ] || fail unreachable "something on the box still uses the volume" "\`inv down\` again; \`fuser -vm $MOUNT_PATH\` on the box names it"
    sleep 1
  done
}

# A notice that is just being sent (notify.sh) is not cut off by the box's end.
wait_for_notices() {
  local tries=0
  while [ "$tries" -lt 20 ] && [ -n "$(find "$PROGRAMS/notices/sending" -type f -print -quit 2>/dev/null)" ]; do
    tries=$((tries + 1))
    sleep 1
  done
}

# Sets `going` to the id of the run that goes on, and `answers` to whether docker can be told to end it.
look() {
  answers=yes going=""
  if docker_answers; then
    going=$(ask_docker ps --filter label=fine-tune-slm.run --format '{{.Names}}' | head -n 1)
    going=${going#fine-tune-slm-}
  else
    answers=no
    ! mounted || going=$(cat "$MOUNT/current" 2>/dev/null || true)
  fi
}

main() {
  look
  fact stopped_run "$going"
  if [ -n "$going" ] && [ "$FORCE" = no ]; then
    [ "$answers" = yes ] || fail unreachable "docker on the box does not answer, and $going may still be running" "\`inv down --force\` stops the box anyway; a later \`inv up deploy train\` goes on from its checkpoint"
    fail refused "$going is still running" "\`inv train\` follows it; \`inv down --force\` ends it, and a later \`inv train\` goes on from its checkpoint"
  fi
  if [ -n "$going" ] && [ "$answers" = no ]; then
    sync # its end comes with the box's, which unmounts the volume, too
    fact changed no
    return
  fi
  [ -z "$going" ] || docker stop "$(container "$going")" >/dev/null
  if mounted; then
    wait_for_delivery "\`inv status\`, then \`inv down\` again"
    rm -f "$MOUNT/requeue" # the user who takes the box down starts the run again, too
    end_evaluation
    unmount
    wait_for_notices
    fact changed yes
  else
    fact changed no
  fi
}

main "$@" </dev/null
