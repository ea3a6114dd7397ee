#!/bin/bash
# Name the runs of this volume that nobody may remove unasked: the one that goes on, and those that may be whole here only.
#   out:  facts mounted, going, whole (ids, with spaces between)

# No run is called otherwise; a space or a line's end in a name would name two.
is_run() { [[ "$1" =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]]; }

going() {
  local id
  for id in "$MOUNT/runs"/*; do
    id=${id##*/}
    is_run "$id" || continue
    case "$(container_state "$id")" in
      running | unknown) printf '%s ' "$id" ;;
      *) [ "$(cat "$MOUNT/current" 2>/dev/null)" != "$id" ] || printf '%s ' "$id" ;;
    esac
  done
}

whole() {
  local place id
  for place in "$MOUNT/runs"/*/manifest.json; do
    id=${place%/manifest.json}
    id=${id##*/}
    [ ! -f "$place" ] || ! is_run "$id" || printf '%s ' "$id"
  done
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
