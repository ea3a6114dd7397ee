#!/bin/bash
# Remove from the volume every run that is not to be kept: those removed from S3 while the box was off, too.
#   in:   KEPT (ids, with spaces between)
#   out:  facts freed_gb, changed
: "${KEPT?clean.sh needs KEPT}"

free() { df -Pk "$MOUNT/" | awk 'NR == 2 { print $4 }'; }

main() {
  local id before changed=no
  if mounted; then
    before=$(free)
    for id in "$MOUNT/runs"/*; do
      id=${id##*/}
      [[ " $KEPT " != *" $id "* && -d "$MOUNT/runs/$id" ]] || continue
      case "$(container_state "$id")" in running | unknown) continue ;; esac # without docker's word it may well run
      docker rm --force "$(container "$id")" >/dev/null 2>&1 || true
      changed=yes
      rm -rf "${MOUNT:?}/runs/$id" "$MOUNT/shipped/$id" "$MOUNT/shipped/$id.checkpoints"
    done
    fact freed_gb "$((($(free) - before) / 1048576))"
  fi
  fact changed "$changed"
}

main "$@" </dev/null
