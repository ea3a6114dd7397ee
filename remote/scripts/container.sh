#!/bin/bash
# The trainer's container: how it is held, and how root takes what it has written. Nothing in it is trusted, neither code nor packages: at
# any moment a file of its may be a link, a pipe, or claim to be larger than any disk.
#   in:   HUB_SECRET, for fetch_token

TRAINER=10001 # the image's own user (docker/Dockerfile); nobody else on the box has that number
NETWORK=fine-tune-slm
MOST_STATE=65536 # bytes of state.json

# On a bridge a container is one hop further from the metadata service than the box, and a token of that service travels one hop only.
need_network() {
  ask_docker network inspect "$NETWORK" >/dev/null 2>&1 ||
    ask_docker network create "$NETWORK" >/dev/null ||
    fail crashed "docker on the box cannot make a network for the trainer" "\`inv down\` and \`inv up\` restart it"
}

# Sets `held` to docker's words for a container that is an ordinary user without a capability, writes nowhere but into what is mounted, and
# leaves the box a sixteenth of its memory. /tmp is also its HOME: what Triton compiles is loaded from there, so `exec`.
hold() {
  local memory kept=()
  need_network
  keep hub-cache
  keep base-scores
  memory=$(awk '$1 == "MemTotal:" { printf "%d", $2 / 16 * 15 }' /proc/meminfo)
  held=(--user "$TRAINER:$TRAINER" --userns host --cap-drop ALL --security-opt no-new-privileges --read-only)
  held+=(--tmpfs "/tmp:rw,exec,nosuid,nodev,size=2g" --network "$NETWORK" --ulimit core=0 --pids-limit 8192)
  held+=(--memory "${memory}k" --memory-swap "${memory}k" --shm-size "$((memory / 2))k")
  held+=(--log-driver json-file --log-opt max-size=16m)
  held+=("${kept[@]}" --env "HF_HOME=$MOUNT/hub-cache")
  held+=(--volume "$STATE/trainer:$STATE/trainer:ro" --env "HF_TOKEN_PATH=$STATE/trainer/hub-token")
  held+=(--env HF_ENDPOINT --env HF_HUB_DISABLE_XET --env HF_HUB_DISABLE_TELEMETRY=1 --env HF_HUB_DISABLE_PROGRESS_BARS=1)
}

# keep NAME: `kept` has docker's words for one more folder of the volume in which runs keep something for those after them.
keep() {
  mkdir -p "$MOUNT/$1"
  hand_over "$MOUNT/$1"
  kept+=(--volume "$MOUNT/$1:$MOUNT/$1")
}

# hand_over FOLDER: it is the container's, and no container has it. Once: the folder's own owner changes last. A file with a second name
# stays root's, for that name may be anywhere on the volume; root in a container could have made it.
hand_over() {
  [ "$(stat -c %u "$1")" = "$TRAINER" ] || find -P "$1" -depth \( -type d -o -links 1 \) -exec chown -h "$TRAINER:$TRAINER" {} +
}

# regular FILE: it is one, and has no other name.
regular() { [[ "$(stat -c '%h %F' "$1" 2>/dev/null)" == "1 regular"* ]]; }

size() { if regular "$1"; then stat -c %s "$1" 2>/dev/null || echo 0; else echo 0; fi; }

# take FILE BYTES [OFFSET]: so many bytes of a file at most. A link is not followed, a pipe not waited for.
take() {
  regular "$1" && dd if="$1" bs=65536 count="$2" skip="${3:-0}" iflag=nofollow,nonblock,fullblock,count_bytes,skip_bytes status=none
}

# give FILE WORDS...: stdin is written into the container's file, where and how dd's words say.
give() {
  regular "$1" || [ -z "$(find -P "$1" 2>/dev/null)" ] || return 1
  dd of="$1" bs=65536 conv=notrunc status=none "${@:2}" && chown -h "$TRAINER:$TRAINER" "$1"
}

# behind RUN: whether another box has gone on with it: S3 has a piece of its log, behind all that this volume has noted as sent, that does
# not stand there in the volume's own log. A box may have been lost between sending a piece and noting it. 2: S3 does not say.
# Pieces are called by digits alone; in any other name bash's arithmetic would carry out what stands in it.
behind() {
  local last piece="$STATE/piece" place="s3://$BUCKET/$PREFIX/runs/$1/log"
  last=$(timeout 120 aws --cli-connect-timeout 5 s3 ls "$place/" | awk '{ print $4 }' | grep -xE '[0-9]{12,18}' | sort | tail -n 1) || true
  [ -n "$last" ] && [ "$((10#$last))" -ge "$(cat "$MOUNT/shipped/$1" 2>/dev/null || echo 0)" ] || return 1
  timeout 600 aws --cli-connect-timeout 5 s3 cp --quiet "$place/$last" - 2>/dev/null | head -c "$MOST_STATE" >"$piece" || true # its beginning will do
  [ -s "$piece" ] || return 2
  ! take "$MOUNT/runs/$1/log.txt" "$(size "$piece")" "$((10#$last))" | cmp -s - "$piece"
}

phase() { take "$1/state.json" "$MOST_STATE" 2>/dev/null | sed -n 's/.*"phase": *"\([a-z]*\)".*/\1/p'; }

# replace FILE PLACE: a file of root's becomes one of the container's, whatever was in that place.
replace() {
  [ ! -d "$2" ] || rm -rf "$2"
  chown "$TRAINER:$TRAINER" "$1" && mv -fT "$1" "$2"
}

# write_state FOLDER PHASE [REASON EVIDENCE HINT]
write_state() {
  local evidence part="$MOUNT/state.part" # in a folder that is root's
  printf '%s' "${4:-}" >"$part" && hide "$part" || return 1 # whole: a token that is cut is not known for one
  evidence=$(tr -d '\000-\037"\134' <"$part" | head -c 500 | iconv -c -f UTF-8 -t UTF-8) || true # the cut may be in a character
  printf '{"phase": "%s", "since": "%s", "reason": "%s", "evidence": "%s", "hint": "%s", "heartbeat": "%s"}\n' \
    "$2" "$(utc)" "${3:-}" "$evidence" "${5:-}" "$(utc)" >"$part" && replace "$part" "$1/state.json"
}

# The Hub token, into a file that only the container's user reads, on tmpfs: never in an argument, an environment or `docker inspect`. A
# secret may be the token itself, or JSON with an entry named like it. Every value that it has had is kept beside it, for `hide`.
fetch_token() {
  local text around='([[:space:]]|\xef\xbb\xbf|\xe2\x80\x8b|\xc2\xa0)+' # spaces, the mark of UTF-8
  mkdir -p "$STATE/trainer"
  chmod 755 "$STATE/trainer"
  text=$(aws secretsmanager get-secret-value --secret-id "$HUB_SECRET" --query SecretString --output text) || return 1
  text=${text#$'\xef\xbb\xbf'}
  case "$text" in
    "{"*)
      text=$(tr -d '\n' <<<"$text" | sed -E 's/^(.*"[^"]*[tT][oO][kK][eE][nN][^"]*"|[^:]*"[^"]*")[[:space:]]*:[[:space:]]*"([^"]*)".*$/\2/')
      ;;
  esac
  text=$(LC_ALL=C sed -E "s/^$around//; s/$around\$//; s/^([\"'])(.*)\\1\$/\\2/" <<<"$text")
  printf '%s\n' "$text" >"$STATE/hub-token.part"
  grep -Fqxf "$STATE/hub-token.part" "$STATE/hub-tokens" 2>/dev/null || forms "$text" >>"$STATE/hub-tokens"
  chmod 400 "$STATE/hub-token.part" && chown "$TRAINER:$TRAINER" "$STATE/hub-token.part" || return 1
  mv "$STATE/hub-token.part" "$STATE/trainer/hub-token"
}

# A secret as others may write it: as it is, in base64 wherever it begins in there, in a URL. conf/text/secret.py does the same.
forms() { # SECRET
  local before start code sign url="" low=""
  printf '%s\n' "$1"
  [ "${#1}" -ge 8 ] || return 0
  for before in 0 1 2; do # bytes: base64 writes three in four letters, and those that a neighbour has a part in are left out
    start=$(((before * 8 + 5) / 6))
    code=$(printf '%.*s%s' "$before" xx "$1" | base64 | tr -d '\n')
    code=${code:start:$(((before + ${#1}) * 8 / 6 - start))}
    printf '%s\n%s\n' "$code" "$(tr '+/' '-_' <<<"$code")"
  done
  while IFS= read -r -n 1 sign; do
    case "$sign" in
      [A-Za-z0-9._~-] | "") url+=$sign low+=$sign ;;
      *) url+=$(printf '%%%02X' "'$sign") low+=$(printf '%%%02x' "'$sign") ;;
    esac
  done <<<"$1"
  printf '%s\n%s\n' "$url" "$low"
}

# hide FILE: in a file of root's every token that was fetched, in each of its forms, becomes as many asterisks, the longest first: no offset moves.
hide() {
  [ -s "$STATE/hub-tokens" ] || return 0
  LC_ALL=C sed -f <(stars) "$1" >"$1.hidden" && mv "$1.hidden" "$1"
}

# What sed is to do with each token.
stars() {
  local token
  awk 'length { print length, $0 }' "$STATE/hub-tokens" | sort -rn | cut -d ' ' -f 2- | while read -r token; do
    printf 's/%s/%s/g\n' "$(sed 's/[][\\.*^$/]/\\&/g' <<<"$token")" "$(tr -c '*\n' '*' <<<"$token")"
  done
}
