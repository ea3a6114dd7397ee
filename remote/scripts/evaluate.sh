#!/bin/bash
# Score a finished run on other rows, and keep the result beside it in S3.
#   in:   ROWS (sha256 of an input), FILE (the rows' file name), SPLIT (that without its ending), SCAFFOLD (yes: once more with the keys
#         filled in), and what finished.sh, above, needs
#   out:  facts changed
: "${ROWS:?evaluate.sh needs ROWS}" "${FILE:?evaluate.sh needs FILE}" "${SPLIT:?evaluate.sh needs SPLIT}" "${SCAFFOLD:?evaluate.sh needs SCAFFOLD}"

work="$MOUNT/evaluate"

fetch_rows() {
  aws s3 cp --quiet "s3://$BUCKET/$PREFIX/inputs/$ROWS" "$work/rows"
  echo "$ROWS  $work/rows" | sha256sum --check --quiet >&2
  mv "$work/rows" "$work/$FILE"
}

main() {
  local more=()
  [ "$SCAFFOLD" = no ] || more=(scaffold)
  prepare
  rm -rf "$work"
  mkdir -p "$work/out"
  fetch_rows
  ask_model examine "${run:?}" "$work/$FILE" "$work/out/$SPLIT" "${more[@]}" >"$work/said" 2>&1 || failed "$work/said" "the trainer could not score the run"
  # The scores last: where they are, the answers are, too.
  aws s3 cp --quiet "$work/out/$SPLIT.predictions.jsonl" "s3://$BUCKET/$PREFIX/runs/$RUN_ID/evaluations/$SPLIT.predictions.jsonl"
  aws s3 cp --quiet "$work/out/$SPLIT.json" "s3://$BUCKET/$PREFIX/runs/$RUN_ID/evaluations/$SPLIT.json"
  rm -rf "$work"
  fact changed yes
}

main "$@" </dev/null
