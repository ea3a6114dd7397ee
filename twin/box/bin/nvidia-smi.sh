#!/bin/sh
# Stands for nvidia-smi on a g6 instance: one L4.
if [ -e "$BOX_ROOT/../faults/gpu-missing" ]; then
  echo "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running."
  exit 9
fi

# A new instance's disk is read from a snapshot: until then the first use takes.
if [ -e "$BOX_ROOT/../faults/disk-cold" ]; then
  left=$(($(cat "$BOX_ROOT/../faults/disk-cold") - $(/bin/date +%s)))
  [ "$left" -le 0 ] || sleep "$left"
fi

# It is busy while a container runs.
busy() { grep -lq '"Running": true' "$BOX_ROOT"/var/lib/docker/containers/*/state.json 2>/dev/null; }

case "$*" in
  "--query-gpu=utilization.gpu --format=csv,noheader,nounits") if busy; then echo 93; else echo 0; fi ;;
  "--query-gpu=name,memory.total,driver_version --format=csv,noheader") echo "NVIDIA L4, 23034 MiB, 580.95.05" ;;
  "--query-gpu=name,memory.total,driver_version --format=csv,noheader,nounits") echo "NVIDIA L4, 23034, 580.95.05" ;;
  -L) echo "GPU 0: NVIDIA L4 (UUID: GPU-00000000-0000-0000-0000-000000000000)" ;;
  *)
    echo "nvidia-smi: this emulated GPU answers only -L and --query-gpu=(name,memory.total,driver_version|utilization.gpu) --format=csv,noheader[,nounits]" >&2
    exit 6
    ;;
esac
