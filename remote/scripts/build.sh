#!/bin/bash
# Have this box build the trainer's image and push it: start that, or follow what was started before. It goes on when the client leaves.
#   in:   NAME (registry/repository), TAG, CONTEXT (s3://..., a tarball), SHA256 (of it), ARGUMENTS (NAME=VALUE ..., of its Dockerfile),
#         REVISION (commit), ATTEMPT (who asks), BUILDER (the text of image.sh), PATIENCE (seconds to wait in one go)
#   out:  facts building (yes, no), changed
: "${NAME:?build.sh needs NAME}" "${TAG:?build.sh needs TAG}" "${CONTEXT:?build.sh needs CONTEXT}" "${SHA256:?build.sh needs SHA256}"
: "${ARGUMENTS?build.sh needs ARGUMENTS}" "${REVISION:?build.sh needs REVISION}" "${ATTEMPT:?build.sh needs ATTEMPT}"
: "${BUILDER:?build.sh needs BUILDER}" "${PATIENCE:?build.sh needs PATIENCE}"

place="$STATE/image"
record="$BOX_ROOT/var/log/fine-tune-slm-image.log"

# known FILE: what the build has left of itself.
known() { cat "$place/$1" 2>/dev/null || true; }

goes_on() { ! flock --nonblock "$STATE/image.lock" true; }

# Detached, held by a lock, with none of our files: as the supervisor is. Once it has said what it is about, it has the lock.
start() {
  local tries=0
  rm -rf "$place"
  mkdir -p "$place" "$PROGRAMS"
  printf '%s\n' "$TAG" >"$place/tag"
  printf '%s\n' "$BUILDER" >"$PROGRAMS/image.sh"
  chmod 700 "$PROGRAMS/image.sh"
  export NAME TAG CONTEXT SHA256 ARGUMENTS REVISION
  setsid flock --nonblock --close "$STATE/image.lock" "$PROGRAMS/image.sh" </dev/null >"$record" 2>&1 7>&- &
  until [ -f "$place/stage" ] || [ "$tries" -ge 100 ]; do
    tries=$((tries + 1))
    sleep 0.1
  done
}

ended() { [ "$(known tag)" = "$TAG" ] && [ -f "$place/ended" ]; }

await() {
  local until=$(($(seconds) + PATIENCE))
  while ! ended && goes_on && [ "$(seconds)" -lt "$until" ]; do sleep 0.2; done
}

conclude() {
  local code
  code=$(known ended)
  if [ "$code" = 0 ]; then
    fact building no
    fact changed yes
    return
  fi
  grep -v '^ *$' "$record" | tail -n 12 >&2
  if grep -qi "no space left on device" "$record"; then
    fail disk_full "the box's own disk has no room for the image" \
      "\`docker system prune --all --force\` on the box may make some; else a larger box: \`inv down --purge\`, then \`inv up deploy -- box.root_gb=...\`"
  fi
  case "$(known stage)" in
    build* | start*) fail crashed "the box could not $(known stage) (exit code $code); its last words are above" "mend what they say, then \`inv deploy\` again" ;;
    *) fail unreachable "the box could not $(known stage) (exit code $code); its last words are above" "\`inv deploy\` tries again; its role may lack a right: \`inv doctor\`" ;;
  esac
}

main() {
  need docker
  # A build of another tree is waited for: most of its layers are those of ours.
  goes_on || { [ "$(known tag)" = "$TAG" ] && [ "$(known asked)" = "$ATTEMPT" ]; } || start
  printf '%s\n' "$ATTEMPT" >"$place/asked"
  await
  if ended; then
    conclude
  elif goes_on || [ "$(known tag)" != "$TAG" ]; then
    log "$(known stage): $(grep -v '^ *$' "$record" | tail -n 1 | cut -c 1-160)"
    fact building yes
  else
    fail killed "the build of the image was ended from outside" "\`inv deploy\` starts it again"
  fi
}

main "$@" </dev/null
