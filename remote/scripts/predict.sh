#!/bin/bash
# Answer texts with a finished run's model.
#   in:   ASKED (name of the questions in S3; the answers go beside it), and what finished.sh, above, needs
#   out:  facts answers (name in S3), changed
: "${ASKED:?predict.sh needs ASKED}"

most=268435456 # bytes of answers, which lie in memory
work="$STATE/predict" # tmpfs: nothing of the user's texts stays on a disk

main() {
  prepare
  rm -rf "$work"
  mkdir -p "$work"
  aws s3 mv --quiet "s3://$BUCKET/$PREFIX/$ASKED" "$work/asked" # gone from S3, whatever comes of it
  {
    ask_model --interactive predict "${run:?}" <"$work/asked" | head -c "$most" >"$work/answers"
  } 2>&1 | head -c "$MOST_STATE" >"$work/said" || failed "$work/said" "the trainer could not answer"
  aws s3 cp --quiet "$work/answers" "s3://$BUCKET/$PREFIX/$ASKED.answers"
  rm -rf "$work"
  fact answers "$ASKED.answers"
  fact changed yes
}

main "$@" </dev/null
