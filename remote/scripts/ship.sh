#!/bin/bash
# What the supervisor sends away: the run's log, events, state, decisions and checkpoints while it goes on, its files when it ends.
#   in:   BUCKET, PREFIX, LOG_GROUP, STREAM_PREFIX, HUB_SECRET, TOKEN_AGE (seconds); $MOUNT/current holds the run's id
# All of it runs where `set -e` does not hold (behind `if`, `||`, `until`), so every failure is passed on by hand.
: "${BUCKET:?supervise.sh needs BUCKET}" "${PREFIX:?supervise.sh needs PREFIX}" "${LOG_GROUP:?supervise.sh needs LOG_GROUP}"
: "${STREAM_PREFIX:?supervise.sh needs STREAM_PREFIX}" "${HUB_SECRET:?supervise.sh needs HUB_SECRET}" "${TOKEN_AGE:?supervise.sh needs TOKEN_AGE}"

MOST_FILES=10000     # in what is shipped of a run at once
MOST_EVENTS=268435456 # bytes of events.jsonl
MOST_LOG=1073741824   # bytes of log.txt; what is behind them stays on the volume
MOST_CHUNK=67108864   # bytes of it in one chunk

# The current run, or the one that $MOUNT/FILE begins with: its id, its folder, its place in S3, and how far its log is there.
choose() { # [FILE]
  run_id=$(head -n 1 "$MOUNT/${1:-current}" | head -c 200)
  [[ "$run_id" =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] || return 1 # a container that was root could write there
  run="$MOUNT/runs/$run_id"
  target="s3://$BUCKET/$PREFIX/runs/$run_id"
  shipped="$MOUNT/shipped/$run_id" # beside the run: its folder holds only what is the run's
}

# ours, theirs or unknown: a run that another box has gone on with must not be touched by one that wakes up with it on its volume. Asked
# once a boot, and again where S3 could not be reached for a while.
whose() {
  local said
  if [ "$(cat "$STATE/ours" 2>/dev/null)" = "$run_id" ]; then
    echo ours
  elif ! said=$(quietly s3 cp --quiet "$target/box.json" -); then
    echo unknown
  elif [[ "$said" == *"\"$(cat "$PROGRAMS/instance")\""* ]]; then
    echo "$run_id" >"$STATE/ours"
    echo ours
  else
    echo theirs
  fi
}

# Shipping must not slow the training down; nor may a network that is gone keep a box on that is to be stopped.
quietly() { nice -n 19 timeout "${PATIENCE:-3600}" aws --cli-connect-timeout 5 "$@"; }

# A chunk is named by the offset of its first byte: shipped twice, it is the same chunk. All in one call: each start of `aws` costs
# a second of one core. Only at the `end` the log's last line may be one without an end, and only then goes a phase that ends the
# run, after all else: a reader of it has read the rest.
ship() { # [end]
  [ "$(whose)" = ours ] || return 1
  rotate_token
  local offset end left whole chunk box="$STATE/outbox"
  offset=$(cat "$shipped" 2>/dev/null || echo 0)
  [[ "$offset" =~ ^[0-9]{1,18}$ ]] || offset=0
  chunk="$box/log/$(printf '%012d' "$offset")"
  rm -rf "$box" "$MOUNT/outbox" && mkdir -p "$box/log" "$box/checkpoints" || return 1
  # Before the log is taken: S3 never has a checkpoint of steps that its log lacks.
  pack_checkpoints "$box/checkpoints"
  whole=$(size "$run/log.txt")
  [ "$whole" -le "$MOST_LOG" ] || whole=$MOST_LOG
  end=$offset
  if [ "$whole" -gt "$offset" ]; then
    left=$((whole - offset < MOST_CHUNK ? whole - offset : MOST_CHUNK))
    take "$run/log.txt" "$left" "$offset" >"$chunk" || return 1
    [ "${1:-}" = end ] || [ "$left" -eq "$MOST_CHUNK" ] || whole_lines "$chunk" || return 1
    hide_in_log "$chunk" "$offset" || return 1
    end=$((offset + $(size "$chunk")))
    [ "$end" -gt "$offset" ] || rm "$chunk"
  fi
  ! regular "$run/state.json" || take "$run/state.json" "$MOST_STATE" >"$box/state.json" || return 1
  ! regular "$run/events.jsonl" || take "$run/events.jsonl" "$MOST_EVENTS" >"$box/events.jsonl" || return 1
  ! regular "$run/decided.json" || take "$run/decided.json" "$MOST_STATE" >"$box/decided.json" || return 1
  case "$(phase "$box")" in failed | cancelled | "done") rm "$box/state.json" ;; esac
  if ! quietly s3 cp --quiet --recursive "$box" "$target"; then # the next round ships it all again
    rm -f "$STATE/ours"
    return 1
  fi
  if [ "$end" -gt "$offset" ]; then
    mirror "$chunk" || log "CloudWatch did not take a chunk; S3 has it"
    # Renamed: on a full disk the old offset stays, and the next round ships the chunk again, longer.
    echo "$end" >"$shipped.part" && mv "$shipped.part" "$shipped" || return 1
  fi
  note_checkpoints "$box/checkpoints" || return 1
  rm -rf "$MOUNT/outbox"
  [ "${1:-}" = end ] || return 0
  if [ "$end" -lt "$whole" ] && [ "$end" -gt "$offset" ]; then
    ship end
  else
    take "$run/state.json" "$MOST_STATE" >"$STATE/state.json" && quietly s3 cp --quiet "$STATE/state.json" "$target/state.json"
  fi
}

# hide_in_log CHUNK OFFSET: no token leaves with the chunk, and none stays in the log that it was taken from.
hide_in_log() {
  cp "$1" "$STATE/chunk" && hide "$1" || return 1
  cmp -s "$1" "$STATE/chunk" || give "$run/log.txt" oflag=seek_bytes,nofollow,nonblock "seek=$2" <"$1"
}

# What stands behind the last line's end waits for the next round: half a token would not be known for one.
whole_lines() {
  [ -z "$(tail -c 1 "$1")" ] || truncate -s "-$(tail -n 1 "$1" | wc -c)" "$1"
}

# A token that was replaced in its secret is replaced here while the run goes on: clients of the Hub read the file each time.
rotate_token() {
  [ -f "$STATE/trainer/hub-token" ] && [ -z "$(find "$STATE/trainer/hub-token" -newermt "-$TOKEN_AGE seconds")" ] || return 0
  fetch_token || log "the Hub token could not be read again; the old one stays in use"
}

# link_out FOLDER TEST...: FOLDER, which is root's, has a second name of each file of the run that find's tests choose. It is no copy, and
# by that name nothing leads anywhere else, whatever becomes of the first. find itself goes down without following (-execdir).
link_out() (
  into=$1
  chosen=("(" "${@:2}" ")")
  room=$(df -Pk "$MOUNT/" | awk 'NR == 2 { printf "%d", $2 * 1024 }') # a file that claims more has holes
  rm -rf "$into" && mkdir -p "$into" && cd -P "$run" || exit 1
  find -P . -mindepth 1 -regextype posix-extended "${chosen[@]}" "(" -regex '\./[-A-Za-z0-9_.+=@/ ]+' -printf '%y%n %s\n' -o -printf 'n 0\n' ")" |
    head -n $((MOST_FILES + 1)) | awk -v files="$MOST_FILES" -v room="$room" \
    '$1 != "f1" && $1 !~ /^d/ { odd = 1 } { sum += $2 } END { exit odd || NR > files || sum > room }' || exit 1
  find -P . -mindepth 1 "${chosen[@]}" -type f -execdir bash -c '
    case "$PWD/" in "$1"/*) into=$0${PWD#"$1"} ;; *) exit 1 ;; esac
    mkdir -p "$into" && ln -P -t "$into" -- "${@:2}"' "$into" "$PWD" {} + || exit 1
  [ -z "$(find -P "$into" ! -type f ! -type d -print -quit)" ]
)

# A checkpoint never changes once it is there, and travels once.
pack_checkpoints() {
  local name place
  for name in $(steps); do
    ! grep -Fqx "$name" "$shipped.checkpoints" 2>/dev/null || continue
    place="$MOUNT/outbox/$name"
    if ! link_out "$place" -path "./checkpoints/$name/*"; then
      log "$name of $run_id holds what is no file, or more than its disk: it is not shipped"
    elif [ -f "$place/checkpoints/$name/COMPLETE" ]; then
      ln -s "$place/checkpoints/$name" "$1/"
    fi
  done
}

steps() { find -P "$run" -maxdepth 2 -regextype posix-extended -regex '.*/checkpoints/step-[0-9]{1,12}' -type d -printf '%f\n' | head -n 1000; }

# What the trainer no longer keeps, S3 need not keep; but never before something newer is there.
note_checkpoints() {
  local name gone=() kept=()
  [ -n "$(ls "$1")" ] || return 0
  while read -r name; do
    if steps | grep -Fqx "$name"; then kept+=("$name"); else gone+=(--include "$name/*"); fi
  done < <(cat "$shipped.checkpoints" 2>/dev/null || true; ls "$1") # the trap of failures is in force in there
  [ "${#gone[@]}" -eq 0 ] || quietly s3 rm --quiet --recursive "$target/checkpoints" --exclude "*" "${gone[@]}" || return 1
  printf '%s\n' "${kept[@]}" >"$shipped.checkpoints"
}

# CloudWatch wants JSON: {"timestamp": milliseconds, "message": text}; it refuses empty messages, and more than 10,000 of them or a
# megabyte at once, each counted with 26 bytes more: of so much only the end is mirrored. S3 has it all.
mirror() {
  local now
  now=$(date +%s%3N)
  tail -c 600000 "$1" | iconv -c -f UTF-8 -t UTF-8 | tail -n 9000 >"$STATE/mirror.txt"
  grep -v '^ *$' "$STATE/mirror.txt" | tr -d '\000-\010\013-\037' | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/\t/\\t/g' \
    -e "s/.*/{\"timestamp\": $now, \"message\": \"&\"}/" | paste -sd, | sed -e 's/^/[/' -e 's/$/]/' >"$STATE/mirror.json"
  [ -s "$STATE/mirror.json" ] && [ "$(cat "$STATE/mirror.json")" != "[]" ] || return 0
  put_mirror 2>/dev/null || { stream create-log-stream && put_mirror; }
}

stream() { quietly logs "$1" --log-group-name "$LOG_GROUP" --log-stream-name "$STREAM_PREFIX/$run_id" "${@:2}"; }

put_mirror() { stream put-log-events --log-events "file://$STATE/mirror.json" >/dev/null; }

# Everything first, the manifest last: a run with a manifest is whole.
deliver() {
  local box="$MOUNT/outbox" code=0
  [ "$(whose)" = ours ] || return 1
  if ! link_out "$box" ! -path "./checkpoints*" ! -name "*.part" ! -path ./config.yaml ! -path ./state.json || [ ! -f "$box/manifest.json" ]; then
    write_state "$run" failed damaged_run "its folder holds what is no file, more than its disk has room for, or no manifest" \
      "nothing of it was published; another \`seed\` starts a run of its own"
    return
  fi
  quietly s3 cp --quiet --recursive "$box" "$target" --exclude manifest.json &&
    quietly s3 cp --quiet "$box/manifest.json" "$target/manifest.json" || code=1
  rm -rf "$box"
  return "$code"
}
