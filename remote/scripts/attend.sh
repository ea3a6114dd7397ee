#!/bin/bash
# Somebody is on the box: it is not idle for a while.
#   in:   SECONDS_HELD
: "${SECONDS_HELD:?attend.sh needs SECONDS_HELD}"

main() { renew "$SECONDS_HELD"; }

main "$@" </dev/null
