#!/bin/bash
# What the supervisor tells somebody: how a run ended, and why the box stops. By mail and to a webhook, each once.
#   in:   NOTIFY_ON (words of notify.on; may be empty), TOPIC (of SNS; may be empty), WEBHOOK_SECRET (name; may be empty), BOX_NAME
#         $PROGRAMS/price has the USD an hour of this box, where they are known
# A notice is a file of eight lines: event, run, instance, time, cost, title, what, next. It moves from waiting/ by sending/ to ended/, on
# the box's own disk: there, a supervisor that is killed, one that is armed again and one after a reboot find it, with the volume or without.
# At most once: what was being sent when the sender died, or got no answer, is not sent again; what was refused or reached nobody is.
: "${NOTIFY_ON?supervise.sh needs NOTIFY_ON}" "${TOPIC?supervise.sh needs TOPIC}"
: "${WEBHOOK_SECRET?supervise.sh needs WEBHOOK_SECRET}" "${BOX_NAME:?supervise.sh needs BOX_NAME}"

NOTICES="$PROGRAMS/notices"
NOTICE_TIME=60  # minutes after which a notice is not sent any more
NOTICE_AGAIN=60 # seconds between two tries

# tell EVENT KEY TITLE WHAT NEXT: the notice waits, unless it does already, or has ever been sent; and a sender begins.
tell() {
  local way
  case " $NOTIFY_ON " in *" $1 "*) ;; *) return 0 ;; esac
  mkdir -p "$NOTICES/waiting" "$NOTICES/sending" "$NOTICES/ended" "$NOTICES/tried" || return 1
  find "$NOTICES/ended" "$NOTICES/tried" -type f -mtime +30 -delete
  for way in ${TOPIC:+mail} ${WEBHOOK_SECRET:+webhook}; do
    [ -z "$(find "$NOTICES"/*/ -name "$2.$way" -print -quit)" ] || continue
    printf '%s\n' "$1" "$told_run" "$instance" "$(utc)" "$(spent)" "fine-tune-slm: $3" "$4" "$5" | legible >"$NOTICES/part" &&
      hide "$NOTICES/part" && mv "$NOTICES/part" "$NOTICES/waiting/$2.$way" || return 1
  done
  begin_sending
}

# Lines that stand in JSON as they are.
legible() { tr -d '\000-\011\013-\037"\134' | iconv -c -f UTF-8 -t UTF-8 | cut -b 1-600 | iconv -c -f UTF-8 -t UTF-8; }

# tell_end FILE: how the run ended that FILE of the volume names. One attempt at it is as old as that file.
tell_end() {
  local told_run=$run_id reason ended event=failed
  ended=$(date -u -r "$MOUNT/$1" +%Y%m%dT%H%M%SZ) || return 1
  case "$(phase "$run")" in
    "done") tell "done" "done-$run_id-$ended" "$run_id is done" "$(score)" "\`inv publish\`, \`inv report\`, then \`inv down\`" ;;
    cancelled) tell stopped "stopped-$run_id-$ended" "$run_id was cancelled" "somebody asked for it" "\`inv train\` starts a new run" ;;
    failed)
      [ ! -f "$STATE/ending" ] || return 0 # the box stops, which is told
      reason=$(state_of reason)
      [ "$reason" != stopped ] || event=stopped
      tell "$event" "$event-$run_id-$ended" "$run_id $(if [ "$event" = failed ]; then echo "has failed"; else echo "was stopped"; fi)" \
        "${reason:-unknown}: $(state_of evidence)" "$(state_of hint)"
      ;;
  esac
}

# tell_stop EVENT WHY NEXT: the box goes off. Once in a stretch of its life.
tell_stop() {
  local told_run=""
  if mounted && [ -f "$MOUNT/current" ] && choose; then told_run=$run_id; fi
  tell "$1" "$1-$instance-${since//:/}" "box $BOX_NAME ($instance) stops" "$2" "$3"
}

state_of() { take "$run/state.json" "$MOST_STATE" | sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p"; }

# Of the exported weights on held-out rows, beside the base model; as the trainer has written it, digits and nothing else.
score() {
  local tuned base
  tuned=$(score_of tuned)
  base=$(score_of base)
  if [ -n "$tuned" ]; then echo "$tuned on held-out rows${base:+ (base model: ${base##* })}"; else echo "no score is known"; fi
}

score_of() {
  take "$run/metrics.json" 4194304 | sed -n "/^ *\"$1\": *{/,/^ }/p" |
    sed -nE 's/^ *"(macro_f1|token_f1)": *([0-9]\.[0-9]{1,3})[0-9]*,?$/\1 \2/p' | head -n 1 | sed 's/macro_f1/macro-F1/; s/token_f1/token F1/'
}

# What this stretch of the box's life has cost so far; by its price on demand, spot is less.
spent() {
  awk -v price="$(head -c 20 "$PROGRAMS/price" 2>/dev/null)" -v seconds="$(($(seconds) - started))" 'BEGIN {
    printf "%.0f min of this box", seconds / 60
    if (price ~ /^[0-9]+(\.[0-9]+)?$/) printf ", $%.2f on demand", price * seconds / 3600; else printf ", at a price that is not known"
  }'
}

# Beside whatever the supervisor does: no endpoint may hold up a log or the box's end.
begin_sending() { # [now]
  [ -n "$(find "$NOTICES/waiting" "$NOTICES/sending" -type f -print -quit 2>/dev/null)" ] || return 0
  (
    set +e
    trap - ERR
    exec 7>&- 8>&- 9>&- 6>"$STATE/notices.lock"
    if [ "${1:-}" = now ]; then flock --timeout 25 6; else flock --nonblock 6; fi && send_notices "$@"
  ) &
  sender=$!
}

# The box is about to go off: what waits has one more chance, and half a minute.
last_chance() {
  local until
  sender=""
  begin_sending now
  until=$(($(seconds) + 30))
  while [ -n "$sender" ] && kill -0 "$sender" 2>/dev/null && [ "$(seconds)" -lt "$until" ]; do sleep 1; done
}

send_notices() { # [now]
  local file name
  for file in "$NOTICES/sending"/*; do # its sender was killed
    [ ! -f "$file" ] || end_notice "${file##*/}" unknown "its sender was killed"
  done
  for file in "$NOTICES/waiting"/*; do
    name=${file##*/}
    if [ ! -f "$file" ]; then
      continue
    elif [ -n "$(find "$file" -mmin "+$NOTICE_TIME")" ]; then
      mv "$file" "$NOTICES/sending/$name" && end_notice "$name" over "it could not be sent for $NOTICE_TIME minutes"
    elif [ "${1:-}" = now ] || [ -z "$(find "$NOTICES/tried/$name" -newermt "-$NOTICE_AGAIN seconds" 2>/dev/null)" ]; then
      send_notice "$name"
    fi
  done
}

# A notice is claimed before it is sent: here, and where it is about a run, beside that in S3, which another box sees, too.
send_notice() { # NAME
  local fields code=0 why=""
  mapfile -t fields <"$NOTICES/waiting/$1"
  mv "$NOTICES/waiting/$1" "$NOTICES/sending/$1" && sync "$NOTICES" || return 1
  if [ ! -f "$NOTICES/tried/$1" ] && [ -n "${fields[1]}" ]; then
    ! PATIENCE=20 quietly s3 ls "$(place_of "$1")" >/dev/null 2>&1 || { end_notice "$1" elsewhere "S3 has it" && return; }
    put_notice "$1" sending
  fi
  touch "$NOTICES/tried/$1"
  if [ "${1##*.}" = mail ]; then send_mail || code=$?; else post || code=$?; fi
  case "$code" in
    0) end_notice "$1" sent "" ;;
    1)
      log "$(utc) $1 was not sent: $why; trying again"
      mv "$NOTICES/sending/$1" "$NOTICES/waiting/$1"
      ;;
    *) end_notice "$1" unknown "$why" ;;
  esac
}

end_notice() { # NAME STATE WHY
  local fields
  log "$(utc) notice $1: $2${3:+, $3}"
  mapfile -t fields <"$NOTICES/sending/$1"
  mv "$NOTICES/sending/$1" "$NOTICES/ended/$1"
  [ "$2" = elsewhere ] || put_notice "$1" "$2"
}

place_of() { echo "s3://$BUCKET/$PREFIX/runs/${fields[1]}/notices/$1.json"; }

put_notice() { # NAME STATE
  [ -n "${fields[1]}" ] || return 0
  printf '{"event": "%s", "way": "%s", "state": "%s", "time": "%s"}\n' "${fields[0]}" "${1##*.}" "$2" "$(utc)" >"$STATE/notice.state"
  PATIENCE=20 AWS_MAX_ATTEMPTS=2 quietly s3 cp --quiet "$STATE/notice.state" "$(place_of "$1")" || log "S3 did not take what became of a notice"
}

# Both answer 0: it was taken, 1: it was not, 2: nobody knows. `why` says what came back, without any address.

send_mail() {
  local who said
  who=$(PATIENCE=20 AWS_MAX_ATTEMPTS=2 quietly sts get-caller-identity --query Arn --output text) || { why="AWS does not answer" && return 1; }
  IFS=: read -ra who <<<"$who"
  printf '%s\n\n%s\nNext: %s\n\n%s so far.\n%s\n' "${fields[5]}" "${fields[6]}" "${fields[7]}" "${fields[4]}" "${fields[3]}" >"$STATE/notice.txt"
  # SNS: a subject is ASCII, of 100 characters at most (API Reference, Publish). It knows no message again, so no second try is made unseen.
  said=$(PATIENCE=30 AWS_MAX_ATTEMPTS=1 quietly sns publish --topic-arn "arn:${who[1]}:sns:$REGION:${who[4]}:$TOPIC" \
    --subject "$(LC_ALL=C tr -cd '\040-\176' <<<"${fields[5]}" | head -c 100)" --message "file://$STATE/notice.txt" 2>&1) && return
  why="SNS: $(grep -v '^ *$' <<<"$said" | tail -n 1 | head -c 200)"
  case "$said" in *"An error occurred ("* | *"Could not connect"* | *"Unable to locate credentials"*) return 1 ;; esac
  return 2
}

# curl reads the address, a secret, from a file of root's on tmpfs, so that it is in no argument and no environment. Its body is Slack's
# (https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks), ntfy's (https://docs.ntfy.sh/publish/#publish-as-json) or
# our own.
post() {
  local address form="" said code=0
  address=$(PATIENCE=20 AWS_MAX_ATTEMPTS=2 quietly secretsmanager get-secret-value --secret-id "$WEBHOOK_SECRET" --query SecretString \
    --output text 2>/dev/null | tr -d '[:space:]') || { why="the secret $WEBHOOK_SECRET cannot be read" && return 1; }
  case "$address" in slack+* | ntfy+*) form=${address%%+*} address=${address#*+} ;; esac
  [[ "$address" =~ ^https?://([^/\"\\]+)(/[^\"\\]*)?$ ]] || { why="the secret $WEBHOOK_SECRET holds no http address" && return 1; }
  case "${BASH_REMATCH[1]##*@}" in hooks.slack.com | hooks.slack-gov.com) form=slack ;; ntfy.sh | ntfy.*) form=${form:-ntfy} ;; esac
  if [ "$form" = ntfy ]; then # is posted to its server's root, and the topic stands in the body
    [[ "$address" =~ ^(https?://[^/]+/)([A-Za-z0-9_-]{1,64})(\?.*)?$ ]] || { why="the secret $WEBHOOK_SECRET names no topic of ntfy" && return 1; }
    address=${BASH_REMATCH[1]}${BASH_REMATCH[3]}
  fi
  notice_body "$form" "${BASH_REMATCH[2]}" >"$STATE/notice.json"
  printf '%s\n' "url = \"$address\"" "data-binary = \"@$STATE/notice.json\"" globoff 'header = "Content-Type: application/json"' >"$STATE/notice.curl"
  said=$(curl -q --config "$STATE/notice.curl" --silent --output /dev/null --connect-timeout 5 --max-time 15 \
    --write-out '%{http_code} %{size_request}' 2>/dev/null) || code=$?
  rm -f "$STATE/notice.curl"
  why="the webhook answered ${said%% *}"
  [ "$code" -ne 0 ] || case "$said" in 2??" "*) return 0 ;; *) return 1 ;; esac
  why="the webhook cannot be reached (curl: $code)"
  [ "${said##* }" != 0 ] || return 1
  why="the webhook gave no answer (curl: $code)"
  return 2
}

notice_body() { # FORM TOPIC
  local text
  text="${fields[6]}\\nNext: ${fields[7]}\\n${fields[4]} so far."
  case "$1" in
    slack) printf '{"text": "*%s*\\n%s"}\n' "${fields[5]}" "$text" | sed 's/&/\&amp;/g; s/</\&lt;/g; s/>/\&gt;/g' ;;
    ntfy) printf '{"topic": "%s", "title": "%s", "message": "%s", "tags": ["%s"]}\n' "$2" "${fields[5]}" "$text" "${fields[0]}" ;;
    *)
      printf '{"event": "%s", "run": "%s", "instance": "%s", "time": "%s", "cost": "%s", "title": "%s", "what": "%s", "next": "%s"}\n' "${fields[@]:0:8}"
      ;;
  esac
}
