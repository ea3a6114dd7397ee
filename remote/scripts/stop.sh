#!/bin/bash
# Leave the box fit to be stopped: no run going on, everything delivered, the volume unmounted.
#   in:   FORCE (yes, no: end a run that is going on)
#   out:  facts stopped_run, changed
: "${FORCE:?stop.sh needs FORCE}"

running() { docker ps --filter label=fine-tune-slm.run --format '{{.Names}}' | head -n 1; }

# The supervisor removes $MOUNT/current once all is in S3.
wait_for_supervisor() {
  local tries=0
  while [ -f "$MOUNT/current" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || fail unreachable "the run's files are not in S3 yet" "\`inv status\`, then \`inv down\` again"
    [ $((tries % 10)) -ne 1 ] || start_supervisor
    sleep 1
  done
}

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

main() {
  local name
  name=$(running)
  fact stopped_run "${name#fine-tune-slm-}"
  if [ -n "$name" ]; then
    [ "$FORCE" = yes ] || fail refused "${name#fine-tune-slm-} is still running" "\`inv train\` follows it; \`inv down --force\` ends it, and a later \`inv train\` goes on from its checkpoint"
    docker stop "$name" >/dev/null
  fi
  if mounted; then
    wait_for_supervisor
    unmount
    fact changed yes
  else
    fact changed no
  fi
}

main "$@" </dev/null
