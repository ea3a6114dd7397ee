#!/bin/sh
# Stands for nvidia-smi: the GPUs of the instance's type.
if [ -e "$BOX_ROOT/../faults/gpu-missing" ] || [ ! -s "$BOX_ROOT/etc/gpus" ]; then
  echo "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running."
  exit 9
fi

# A new instance's disk is read from a snapshot: until then the first use takes.
if [ -e "$BOX_ROOT/../faults/disk-cold" ]; then
  left=$(($(cat "$BOX_ROOT/../faults/disk-cold") - $(/bin/date +%s)))
  [ "$left" -le 0 ] || sleep "$left"
fi

# They are busy while a container runs.
busy() { grep -lq '"Running": true' "$BOX_ROOT"/var/lib/docker/containers/*/state.json 2>/dev/null; }

gpus="$BOX_ROOT"/etc/gpus # a line for each: name, MiB
each() { while read -r gpu; do echo "$gpu$1"; done <"$gpus"; }
listed() {
  n=0
  while IFS=, read -r name _; do
    echo "GPU $n: $name (UUID: GPU-00000000-0000-0000-0000-00000000000$n)"
    n=$((n + 1))
  done <"$gpus"
}
case "$*" in
  "--query-gpu=utilization.gpu --format=csv,noheader,nounits") while read -r _; do if busy; then echo 93; else echo 0; fi; done <"$gpus" ;;
  "--query-gpu=name,memory.total,driver_version --format=csv,noheader") each " MiB, 580.95.05" ;;
  "--query-gpu=name,memory.total,driver_version --format=csv,noheader,nounits") each ", 580.95.05" ;;
  -L) listed ;;
  *)
    echo "nvidia-smi: this emulated GPU answers only -L and --query-gpu=(name,memory.total,driver_version|utilization.gpu) --format=csv,noheader[,nounits]" >&2
    exit 6
    ;;
esac
