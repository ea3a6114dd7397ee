"""The plans of a way in for a person: a shell on the box, or a port of it here."""

from conf import schema
from remote.aws import instance
from remote.plan.plan import Plan
from remote.plan.script import compose
from remote.transport import shell as person


def shell(run: schema.Run, command: str | None) -> Plan:
    """A person is on the box, or one command has run there."""
    plan = Plan()
    box = plan.call(instance.require, announce=False)(name=run.box.name, metadata_closed=False)
    plan.call(person.shell)(run=run, instance_id=box.instance_id, command=command, attend=attend(run))
    return plan


def forward(run: schema.Run, port: int, local: int) -> Plan:
    """A port of the box is one of this machine, until Ctrl-C."""
    plan = Plan()
    box = plan.call(instance.require, announce=False)(name=run.box.name, metadata_closed=False)
    plan.call(person.forward)(run=run, instance_id=box.instance_id, port=port, local=local, attend=attend(run))
    return plan


def attend(run: schema.Run) -> str:
    """The script that keeps the box on while a person is there."""
    return compose("attend", {"REGION": run.cloud.region, "MOUNT_PATH": run.box.mount, "SECONDS_HELD": person.HELD})
