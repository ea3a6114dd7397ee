#!/bin/bash
# Build the trainer's image, try it, push it: started by build.sh, detached, so that it outlives every command.
#   in:   NAME, TAG, CONTEXT, SHA256, ARGUMENTS, REVISION: as build.sh has them, from the environment
#   out:  in $STATE/image: stage (what it is about), ended (its exit code)
: "${NAME:?image.sh needs NAME}" "${TAG:?image.sh needs TAG}" "${CONTEXT:?image.sh needs CONTEXT}" "${SHA256:?image.sh needs SHA256}"
: "${ARGUMENTS?image.sh needs ARGUMENTS}" "${REVISION:?image.sh needs REVISION}"

place="$STATE/image"

stage() {
  log "$(utc) $1"
  echo "$1" >"$place/stage"
}

# The client may be gone while the box works on. It ends with this script, however that ends.
stay_awake() {
  while kill -0 $$ 2>/dev/null; do
    renew 60
    sleep 5
  done
}

leave() {
  local code=$?
  echo "$code" >"$place/ended.part"
  mv "$place/ended.part" "$place/ended"
}

build() {
  local words=() given word
  read -ra given <<<"$ARGUMENTS" # a value may be a pattern of files
  for word in "${given[@]}"; do words+=(--build-arg "$word"); done
  # Without its provenance an image is one manifest, whatever keeps it. A client that is too old for the variable ignores it, but would
  # refuse `--provenance=false`.
  BUILDX_NO_DEFAULT_ATTESTATIONS=1 DOCKER_BUILDKIT=1 docker build --progress plain --file docker/Dockerfile --tag "$NAME:$TAG" \
    --label "org.opencontainers.image.revision=$REVISION" --label "fine-tune-slm.content=$TAG" "${words[@]}" - <"$place/context.tar"
}

# A tag cannot be moved: where somebody has pushed the same content meanwhile, that image is the one.
push() {
  aws ecr get-login-password | docker login --username AWS --password-stdin "${NAME%%/*}"
  docker push --quiet "$NAME:$TAG" || docker pull --quiet "$NAME:$TAG"
}

main() {
  trap leave EXIT
  stay_awake &
  stage "fetch what the image is made of"
  aws s3 cp --quiet "$CONTEXT" "$place/context.tar"
  echo "$SHA256  $place/context.tar" | sha256sum --check --quiet
  stage "build the image"
  build
  stage "start the image"
  docker run --rm --network none --user 10001:10001 --cap-drop ALL --security-opt no-new-privileges --read-only --tmpfs /tmp "$NAME:$TAG" trainer --help >/dev/null
  stage "push the image"
  push
}

main "$@" </dev/null
