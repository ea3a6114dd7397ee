"""Verb to plan, where runs train on a fleet: no box, no volume and no lock of one."""

from pathlib import Path

from conf import schema
from remote.aws import batch, fleet_end
from remote.build import ecr
from remote.cost import limit
from remote.plan.plan import Plan
from remote.plan.preflight import Needs
from remote.plan.verbs import Check
from remote.runs import fleet, fleet_stop, start


def train(run: schema.Run, root: Path, check: Check, detach: bool, named: str | None = None, with_log: bool = False) -> Plan:
    """A run of these settings has a job on AWS Batch, the named one or one of the caller's; it is followed to its end, unless `detach`."""
    plan, run, tag = Plan(), fleet.as_box(run), ecr.tag(root, run.cloud.build_args)
    needs = plan.call(check, answer=Needs)(run)
    plan.call(limit.enforce, announce=False)(run=run, planned=needs.planned)
    plan.call(fleet.check, announce=False)(run=run)
    image = plan.call(ecr.find_for_fleet)(tag=tag)
    prepared = plan.call(start.prepare)(run=run, image=image.image, root=root, instance_id=None, named=named)
    defined = plan.call(batch.define, when=prepared.to_do, announce=False)(run=run, image=image.image, tag=tag)
    cost = plan.call(fleet.price, when=prepared.to_do, announce=False)(run=run)
    plan.call(fleet.hand_over, when=prepared.to_do)(
        run=run,
        run_id=prepared.run_id,
        config_sha256=prepared.config_sha256,
        definition=defined.definition,
        per_hour=cost.per_hour,
    )
    if detach:
        plan.done("{run_id} is on AWS Batch", then="`inv logs`", run_id=prepared.run_id)
    else:
        plan.call(fleet.attach)(run=run, run_id=prepared.run_id, per_hour=needs.per_hour, with_log=with_log)
        plan.done("{run_id} is done", then="`inv publish`, `inv report`", run_id=prepared.run_id)
    return plan


def stop_run(run: schema.Run, named: str | None) -> Plan:
    """The run that goes on has written a checkpoint, is in S3, and is cancelled."""
    plan = Plan()
    ended = plan.call(fleet_stop.stop)(run=run, run_id=named)
    plan.done("{run_id} is {phase}", then="`inv train` starts a new run", run_id=ended.run_id, phase=ended.phase)
    return plan


def down() -> Plan:
    """No job of the stack's queues is left, and no instance of its fleet; what ran has a checkpoint, from which it goes on."""
    plan = Plan()
    ended = plan.call(fleet_end.end_jobs)()
    emptied = plan.call(fleet_end.wait_until_empty)()
    plan.done("{jobs} jobs of the fleet have ended, {instances} instances are gone", jobs=ended.jobs, instances=emptied.instances)
    return plan
