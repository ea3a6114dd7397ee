"""The two grades of the emulated hardware: `process` needs nothing, `machine` needs Linux and root."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from twin.aws.services.ecr import Registry
from twin.box.boxes import Boxes
from twin.box.disks import Disks
from twin.box.faults import HostFaults


class Hardware(NamedTuple):
    boxes: Boxes
    registry: Registry
    host_faults: type[HostFaults]  # what may go wrong with them


def hardware(plan: dict, state: Path, region: str, today: Callable[[], datetime]) -> Hardware:
    """Boxes with their disks, and the registry that they pull from, of the grade that the plan names."""
    if plan["grade"] == "process":
        return Hardware(Boxes(state, region, Disks(state, region), today), Registry(region), HostFaults)
    from twin.box.machine.boxes import MachineBoxes
    from twin.box.machine.disks import MachineDisks
    from twin.box.machine.faults import MachineHostFaults
    from twin.box.machine.registry import MachineRegistry

    boxes = MachineBoxes(state, region, MachineDisks(state, region), today)
    registry = MachineRegistry(region, state / "registry")
    boxes.cache, boxes.registry = Path(plan["cache"]), registry.host
    return Hardware(boxes, registry, MachineHostFaults)
