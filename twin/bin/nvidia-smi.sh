#!/bin/sh
# Stands for nvidia-smi on a g6 instance: one idle L4.
case "$*" in
  "--query-gpu=name,memory.total,driver_version --format=csv,noheader") echo "NVIDIA L4, 23034 MiB, 580.95.05" ;;
  "--query-gpu=name,memory.total,driver_version --format=csv,noheader,nounits") echo "NVIDIA L4, 23034, 580.95.05" ;;
  -L) echo "GPU 0: NVIDIA L4 (UUID: GPU-00000000-0000-0000-0000-000000000000)" ;;
  *)
    echo "nvidia-smi: this emulated GPU answers only -L and --query-gpu=name,memory.total,driver_version --format=csv,noheader[,nounits]" >&2
    exit 6
    ;;
esac
