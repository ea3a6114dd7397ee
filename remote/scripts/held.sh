#!/bin/bash
# Name the runs of this volume that nobody may remove unasked: the one that goes on, and those that may be whole here only.
#   out:  facts mounted, going, whole (ids, with spaces between)

going() {
  local id
  for id in "$MOUNT/runs"/*; do
    id=${id##*/}
    case "$(container_state "$id")" in
      running | unknown) printf '%s ' "$id" ;;
      *) [ "$(cat "$MOUNT/current" 2>/dev/null)" != "$id" ] || printf '%s ' "$id" ;;
    esac
  done
}

whole() {
  local place
  for place in "$MOUNT/runs"/*/manifest.json; do
    [ ! -f "$place" ] || basename "$(dirname "$place")"
  done | tr '\n' ' '
}

main() {
  if mounted; then
    fact mounted yes
    fact going "$(going)"
    fact whole "$(whole)"
  else
    fact mounted no
  fi
}

main "$@" </dev/null
