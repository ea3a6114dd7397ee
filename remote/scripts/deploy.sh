#!/bin/bash
# Make the trainer's image ready on the box.
#   in:   IMAGE (registry/name@digest), BUILT (yes: this box has just built it)
#   out:  facts image, changed
: "${IMAGE:?deploy.sh needs IMAGE}" "${BUILT:?deploy.sh needs BUILT}"

have_image() { docker image inspect "$IMAGE" >/dev/null 2>&1; }

# The token lasts 12 hours and is asked for with the box's own role.
log_in() {
  aws ecr get-login-password | docker login --username AWS --password-stdin "${IMAGE%%/*}" >/dev/null
}

main() {
  need docker
  need_docker
  if have_image; then
    fact changed "$BUILT"
  else
    log "pulling $IMAGE"
    log_in
    docker pull --quiet "$IMAGE" >&2
    fact changed yes
  fi
  fact image "$IMAGE"
}

main "$@" </dev/null
