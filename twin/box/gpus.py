"""The GPUs of a box as nvidia-smi shows them: EC2 says which type has which and how many; the driver has names and sizes of its own."""

from pathlib import Path

LIST = "etc/gpus"  # below a box's root: a line for each, which the stand-ins for nvidia-smi read
# As nvidia-smi prints them with --query-gpu=name,memory.total (MiB). Others get EC2's own name and size.
SHOWN = {
    ("T4", 16384): "Tesla T4, 15360",
    ("A10G", 22888): "NVIDIA A10G, 23028",
    ("L4", 22888): "NVIDIA L4, 23034",
    ("L40S", 45776): "NVIDIA L40S, 46068",
    ("A100", 40960): "NVIDIA A100-SXM4-40GB, 40960",
    ("H100", 81920): "NVIDIA H100 80GB HBM3, 81559",
}


def install(root: Path, instance_type: str) -> int:
    """Write down which GPUs the box has; how many those are."""
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    cards = INSTANCE_TYPES.get(instance_type, {}).get("GpuInfo", {}).get("Gpus", [])
    lines = [line for card in cards for line in [_shown(card)] * card["LogicalGpuCount"]]
    (root / LIST).parent.mkdir(parents=True, exist_ok=True)
    (root / LIST).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return len(lines)


def _shown(card: dict) -> str:
    name, size = card["Name"], card["MemoryInfo"]["SizeInMiB"]
    return SHOWN.get((name, size), f"{card['Manufacturer']} {name}, {size}")
