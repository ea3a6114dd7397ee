"""The two grades of the emulated hardware: `process` needs nothing, `machine` needs Linux and root."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from twin.boxes import Boxes
from twin.disks import Disks
from twin.ecr import Registry


def hardware(plan: dict, state: Path, region: str, today: Callable[[], datetime]) -> tuple[Boxes, Registry]:
    """Boxes with their disks, and the registry that they pull from, of the grade that the plan names."""
    if plan["grade"] == "process":
        return Boxes(state, region, Disks(state, region), today), Registry(region)
    from twin.machine.boxes import MachineBoxes
    from twin.machine.disks import MachineDisks
    from twin.machine.registry import MachineRegistry

    boxes = MachineBoxes(state, region, MachineDisks(state, region), today)
    boxes.cache = Path(plan["cache"])
    return boxes, MachineRegistry(region, state / "registry")
