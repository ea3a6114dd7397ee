# shellcheck shell=bash
# Sourced by every bash of a box where somebody wants to know which lines of its scripts run: notes them in $TWIN_TRACE, each script
# in a folder of its own. A script of Run Command is unpacked into bash's standard input; its parent then is what the agent started.
text=
case "$0" in
  */supervise.sh | */tmp/_script.sh) text=$0 ;;
  bash) text=$(tr '\0' '\n' <"/proc/$PPID/cmdline" | grep '/_script\.sh$' || true) ;;
esac
if [ -n "$text" ]; then
  folder=$(mktemp -d "$TWIN_TRACE/XXXXXXXX")
  cp "$text" "$folder/script"
  exec {BASH_XTRACEFD}>"$folder/trace"
  PS4='+@$LINENO@ '
  set -x
fi
unset text folder
