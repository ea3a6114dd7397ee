"""Verb to plan. A plan can be printed, compared and tested without a box; remote/plan/perform.py carries it out."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path

from conf import schema
from conf.process.screen import screen
from remote.account import destroy, hub_token, local_settings
from remote.account import fleet as fleet_part
from remote.account import init as account
from remote.account.survey import survey
from remote.aws import auto_stop, capacity, fleet_end, instance, parameters, stop_mail, volume
from remote.aws.session import Aws
from remote.build import docker, ecr
from remote.cost import cost_tags, limit
from remote.plan import answers, shell_verbs
from remote.plan.plan import Plan, Retry
from remote.plan.preflight import Forecast, Needs
from remote.plan.script import compose
from remote.runs import clean as cleaning
from remote.runs import download, evaluations, follow, hub, lock, predictions, serving, start
from remote.transport import agent, model_port, ssh_ingress
from remote.transport.ssh import Ssh
from remote.transport.ssm import Ssm
from remote.transport.transport import Transport

TOKEN_AGE = 600  # seconds until the box reads its token again, while a run goes on
FIRST_BOOT = 600  # seconds until a new box must have shown its host key
Check = Callable[[Aws, schema.Run], Needs]  # a Problem where the run would fail
PERIOD = 10  # seconds between two looks at the box and its run: shipping the log costs a second of one core


def init(run: schema.Run, folder: Path, local: Path, token: Path | None, yes: bool, decode: Callable[[bytes], str]) -> Plan:
    """The account has all that a run needs but the box, and the settings know its names. `decode` reads the token's file."""
    asks = sys.stdin.isatty() and not yes
    plan = Plan()
    surveyed = plan.call(survey)(run=run)
    proposed = plan.call(account.propose, announce=False)(wanted=surveyed.wanted, adopted=surveyed.adopted, by_hand=surveyed.by_hand)
    plan.call(account.confirm_changes, when=proposed.changed, announce=False)(
        change_set=proposed.change_set, changes=proposed.changes, yes=yes
    )
    if run.fleet.engine is schema.Engine.batch and run.fleet.market is not schema.Market.on_demand:
        plan.call(fleet_part.make_spot_role, when=proposed.changed, announce=False)()
    plan.call(account.apply, when=proposed.changed)(change_set=proposed.change_set, wanted=surveyed.wanted, by_hand=surveyed.by_hand)
    stored = plan.call(hub_token.store)(token=token, ask_for_it=asks, decode=decode)
    plan.call(account.read_back)(wanted=surveyed.wanted)
    written = plan.call(local_settings.write)(run=run, folder=folder, local=local, changed=proposed.changed, token=stored.token)
    plan.done("{done}; {summary} has every name", then="`inv up`", done=written.done, summary=written.summary)
    return plan


def remove_account(run: schema.Run, data: bool, yes: bool) -> Plan:
    """The account is as it was before `init`, but for the data unless that was named."""
    plan = Plan()
    surveyed = plan.call(destroy.survey)(run=run, data=data)
    plan.call(destroy.confirm_removal, when=surveyed.removes, announce=False)(data=data, yes=yes)
    plan.call(destroy.remove_boxes, when=surveyed.removes)(
        boxes=surveyed.boxes, volumes=surveyed.volumes, mailed=run.notify.email is not None
    )
    if data:
        # Before the stack, with which Parameter Store's word goes for which bucket it is: who is killed in between must find it again.
        plan.call(destroy.remove_data, when=surveyed.removes)(snapshots=surveyed.snapshots)
    plan.call(fleet_end.forget_definitions, when=surveyed.removes, announce=False)(arns=surveyed.definitions)
    plan.call(destroy.remove_stack, when=surveyed.removes)(existing=surveyed.stack)
    plan.done("nothing is left{kept}", kept=surveyed.retained)
    return plan


def up(run: schema.Run, estimate_cost: Callable[[Aws, schema.Run], Forecast] | None = None, wait: float = 0) -> Plan:
    """The box runs, its volume is attached, its agent answers, it has what every run needs. Where AWS has no room, it is tried for `wait`
    seconds."""
    plan = Plan()
    planned = plan.call(estimate_cost, announce=False, answer=Forecast)(run).planned if estimate_cost else None
    life = plan.call(limit.enforce, announce=False)(run=run, planned=planned)
    _lock_box(plan, run, "up")
    where = plan.call(volume.locate, announce=False)(name=run.box.name)
    box = plan.call(instance.ensure, retry=Retry(capacity.NoCapacity, wait) if wait else None)(box=run.box, volume_zone=where.zone)
    armed = plan.call(auto_stop.arm)(instance_id=box.instance_id, hours=life.life_hours)
    if run.notify.email:
        plan.call(stop_mail.arm, announce=False)(instance_id=box.instance_id, name=run.box.name, events=run.notify.events)
    plan.on_failure(instance.still_on_notice)(instance_id=box.instance_id, changed=box.changed, stops_at=armed.stops_at)
    running = plan.call(instance.wait, announce=False)(instance_id=box.instance_id)
    plan.call(instance.close_metadata, announce=False)(instance_id=box.instance_id)
    disk = plan.call(volume.ensure)(box=run.box, instance_id=box.instance_id, zone=running.zone)
    plan.call(cost_tags.ensure, announce=False)(instance_id=box.instance_id)
    plan.call(parameters.write, announce=False)(instance_id=box.instance_id, volume_id=disk.volume_id)
    _open_transport(plan, run, box)
    remaining = plan.call(limit.remaining_life, announce=False)(run=run, instance_id=box.instance_id)
    watch = {
        "LOG_GROUP": run.cloud.log_group,
        "HUB_SECRET": run.cloud.box_secret,
        "TOKEN_AGE": TOKEN_AGE,
        "STREAM_PREFIX": run.cloud.log_stream_prefix.strip("/"),
        "PERIOD": PERIOD,
        "GPU": run.box.gpu,
        "IDLE": round(run.box.idle_minutes * 60),
        "LIFE": round(run.box.max_hours * 3600),
        "NOTIFY_ON": run.notify.events,
        "TOPIC": run.cloud.own if run.notify.email else None,
        "WEBHOOK_SECRET": run.notify.webhook,
        "BOX_NAME": run.box.name,
    }
    price = plan.call(limit.box_price, announce=False)(run=run).per_hour if run.notify.events else None
    ready = plan.step("setup", answers.Setup, on=box.instance_id, timeout=240, repeat_while="warming")(
        **_region_and_mount(run),
        INSTANCE=box.instance_id,
        GPU=run.box.gpu,
        LIFE_LEFT=remaining.life_left,
        PRICE=price,
        PATIENCE=45,
        SUPERVISOR=compose("supervise", _region_and_mount(run) | _store(run) | watch),
    )
    words = "{instance_id} is up ({instance_type}, {gpu})"
    plan.done(words, then="`inv deploy`", instance_id=box.instance_id, instance_type=running.instance_type, gpu=ready.gpu)
    return plan


def _open_transport(plan: Plan, run: schema.Run, box: instance.Ensured) -> None:
    """Scripts can travel to the box; a port that was left open by another `up` is closed."""
    if run.box.ssh:
        plan.call(ssh_ingress.open_port)(instance_id=box.instance_id, name=run.box.name, source=run.box.ssh_from)
        plan.call(ssh_ingress.pin_host_key)(instance_id=box.instance_id, seconds=FIRST_BOOT)
        return
    plan.call(ssh_ingress.close_port, announce=False)(instance_id=box.instance_id, name=run.box.name)
    plan.call(agent.wait)(instance_id=box.instance_id, changed=box.changed)
    plan.call(ssh_ingress.note_host_key, announce=False)(instance_id=box.instance_id)


def deploy(run: schema.Run, root: Path) -> Plan:
    """The volume is mounted and this tree's image is on the box."""
    plan, tag = Plan(), ecr.tag(root, run.cloud.build_args)
    _lock_box(plan, run, "deploy")
    box = plan.call(instance.require)(name=run.box.name)
    disk = plan.call(volume.require)(name=run.box.name)
    plan.step("volume", answers.Volume, on=box.instance_id, timeout=600)(
        **_region_and_mount(run), VOLUME=disk.volume_id, OURS=disk.created_blank, SIZE_GB=disk.size_gb, PATIENCE=60
    )
    plan.call(volume.note_format, when=disk.created_blank, announce=False)(volume_id=disk.volume_id)
    offered = plan.call(ecr.find_or_upload_context)(tag=tag, root=root)
    plan.step("build", answers.Build, on=box.instance_id, when=offered.missing, repeat_while="building")(
        **_region_and_mount(run),
        NAME=offered.name,
        TAG=tag,
        CONTEXT=offered.context,
        SHA256=offered.sha256,
        ARGUMENTS=" ".join(f"{name}={value}" for name, value in run.cloud.build_args.items()),
        REVISION=offered.revision,
        ATTEMPT=offered.attempt,
        BUILDER=compose("image", _region_and_mount(run)),
        PATIENCE=15,
    )
    built = plan.call(ecr.find, when=offered.missing, announce=False)(tag=tag)
    plan.call(ecr.record_digest, when=offered.missing, announce=False)(image=built.image)
    image = plan.latest(offered.image, built.image)
    deployed = plan.step("deploy", answers.Deploy, on=box.instance_id, timeout=1800)(
        **_region_and_mount(run), IMAGE=image, BUILT=offered.missing
    )
    plan.done("{image} is ready (changed: {changed})", then="`inv train`", image=image, changed=deployed.changed)
    return plan


def build(run: schema.Run, root: Path) -> Plan:
    """The docker of this machine has built this tree's image."""
    plan = Plan()
    built = plan.call(docker.build)(run=run, root=root)
    plan.done("{local} is built", then="`inv image.push`", local=built.local)
    return plan


def push(run: schema.Run, root: Path) -> Plan:
    """This tree's image, built by the docker of this machine, is in ECR, and its digest is written down."""
    plan = Plan()
    built = plan.call(docker.build)(run=run, root=root)
    pushed = plan.call(docker.push)(local=built.local, tag=built.tag)
    plan.call(ecr.record_digest)(image=pushed.image)
    plan.done("{image} is in ECR", then="`inv image.verify`, `inv deploy`", image=pushed.image)
    return plan


def train(run: schema.Run, root: Path, check: Check, detach: bool, named: str | None = None, with_log: bool = False) -> Plan:
    """A run of these settings is going on, the one that is named or one of the caller's; followed to its end, unless `detach`."""
    plan = Plan()
    needs = plan.call(check, answer=Needs)(run)
    plan.call(limit.enforce, announce=False)(run=run, planned=needs.planned)
    taken = _lock_box(plan, run, "train")
    box = plan.call(instance.require)(name=run.box.name)
    image = plan.call(ecr.find)(tag=ecr.tag(root, run.cloud.build_args))
    prepared = plan.call(start.prepare)(run=run, image=image.image, root=root, instance_id=box.instance_id, named=named)
    plan.call(cost_tags.note_run, when=prepared.to_do, announce=False)(instance_id=box.instance_id, run_id=prepared.run_id)
    remaining = plan.call(limit.remaining_life, announce=False)(run=run, instance_id=box.instance_id, run_id=prepared.run_id)
    plan.step("train", answers.Train, on=box.instance_id, timeout=600, when=prepared.to_do)(
        **_region_and_mount(run),
        **_store(run),
        RUN_ID=prepared.run_id,
        IMAGE=image.image,
        INPUTS=prepared.inputs,
        NEED_GB=needs.need_gb,
        LIFE_LEFT=remaining.life_left,
        CONFIG=prepared.config_sha256,
        HUB_SECRET=run.cloud.box_secret,
        GPU=run.box.gpu,
    )
    plan.call(lock.release, announce=False)(lock=taken.lock)
    if detach:
        plan.done("{run_id} has started", then="`inv logs`", run_id=prepared.run_id)
    else:
        plan.call(follow.attach)(
            run_id=prepared.run_id, box_name=run.box.name, per_hour=needs.per_hour, limit=run.cost.limit, with_log=with_log
        )
        plan.done("{run_id} is done", then="`inv publish`, `inv report`", run_id=prepared.run_id)
    return plan


def publish(run: schema.Run, run_id: str | None, upload: hub.Upload, root: Path, endpoint: str | None) -> Plan:
    """The finished run's adapter is on the Hub, read back and compared. It needs no box."""
    plan = Plan()
    fetched = plan.call(download.download)(run=run, run_id=run_id, into=root / run.runs, merged=run.publish.merged)
    published = plan.call(hub.publish)(
        upload=upload, run_id=fetched.run_id, folder=fetched.folder, run=run, endpoint=endpoint, say=screen.step
    )
    plan.done("{url} is published and verified", then="`inv down`", url=published.url)
    return plan


def predict(
    run: schema.Run,
    run_id: str | None,
    what: str,
    root: Path,
    read: Callable[[str], list[str]],
    answer_schema: str | None,
    hold: predictions.Hold,
) -> Plan:
    """The answers of a finished run's model are printed: the box's where it is up and free, else this machine's. `read` makes lines of
    what is asked, `hold` the one that holds answers to a JSON Schema."""
    plan = Plan()
    chosen = plan.call(predictions.choose, announce=False)(
        run=run, run_id=run_id, what=what, read=read, answer_schema=answer_schema, hold=hold
    )
    box = plan.latest(chosen.instance_id)
    _lock_box(plan, run, "predict", when=chosen.on_box)
    image = plan.call(ecr.find, when=chosen.on_box)(tag=ecr.tag(root, run.cloud.build_args))
    asked = plan.call(predictions.upload_questions, when=chosen.on_box)(box_name=run.box.name, lines=chosen.lines)
    plan.step("predict", answers.Predict, on=box, timeout=1800, when=chosen.on_box)(
        **_region_and_mount(run),
        **_store(run),
        **_model(run),
        RUN_ID=chosen.run_id,
        MANIFEST=chosen.manifest_sha256,
        IMAGE=image.image,
        ASKED=asked.name,
    )
    plan.call(predictions.collect, when=chosen.on_box)(asked=asked.name)
    plan.call(predictions.predict_locally, when=chosen.here)(run=run, run_id=chosen.run_id, lines=chosen.lines, root=root)
    return plan


def serve(
    run: schema.Run, run_id: str | None, port: int, root: Path, answer_schema: str | None, hold: predictions.Hold, verb: str = "serve"
) -> Plan:
    """A finished run's model answers on a port of this machine, until Ctrl-C: the box's where it is up and free, else this machine's."""
    plan = Plan()
    chosen = plan.call(serving.choose, announce=False)(run=run, run_id=run_id, port=port, answer_schema=answer_schema, hold=hold, verb=verb)
    box = plan.latest(chosen.instance_id)
    taken = _lock_box(plan, run, verb, when=chosen.on_box)
    image = plan.call(ecr.find, when=chosen.on_box)(tag=ecr.tag(root, run.cloud.build_args))
    answering = plan.step("serve", answers.Serve, on=box, timeout=600, when=chosen.on_box, repeat_while="loading")(
        **_region_and_mount(run),
        **_store(run),
        **_model(run),
        RUN_ID=chosen.run_id,
        MANIFEST=chosen.manifest_sha256,
        IMAGE=image.image,
        UNASKED=model_port.UNASKED,
        PATIENCE=15,
    )
    plan.call(lock.release, when=chosen.on_box, announce=False)(lock=taken.lock)
    plan.call(model_port.forward, when=chosen.on_box)(
        run=run,
        instance_id=box,
        run_id=chosen.run_id,
        address=answering.address,
        port=answering.port,
        local=port,
        attend=shell_verbs.attend(run),
    )
    plan.call(serving.serve, when=chosen.here)(run=run, run_id=chosen.run_id, port=port, lines=chosen.lines, root=root, verb=verb)
    return plan


def evaluate(
    run: schema.Run,
    run_id: str | None,
    split: str,
    root: Path,
    find: Callable[[schema.Data, str], Path],
    summary: evaluations.Summary,
    scaffold: bool,
    answer_schema: bool,
) -> Plan:
    """The scores of a finished run on other rows are beside it in S3 and printed; `find` tells which file a split of its data is."""
    plan = Plan()
    chosen = plan.call(evaluations.choose, announce=False)(run=run, run_id=run_id, split=split, find=find)
    box = plan.latest(chosen.instance_id)
    _lock_box(plan, run, "evaluate", when=chosen.on_box)
    image = plan.call(ecr.find, when=chosen.on_box)(tag=ecr.tag(root, run.cloud.build_args))
    sent = plan.call(evaluations.upload_rows, when=chosen.on_box)(rows=chosen.rows)
    plan.step("evaluate", answers.Evaluate, on=box, timeout=1800, when=chosen.on_box, repeat_while="scoring")(
        **_region_and_mount(run),
        **_store(run),
        **_model(run),
        RUN_ID=chosen.run_id,
        MANIFEST=chosen.manifest_sha256,
        IMAGE=image.image,
        ROWS=sent.rows_sha256,
        FILE=chosen.file,
        SPLIT=chosen.split,
        SCAFFOLD=scaffold,
        SCHEMA=answer_schema,
        PATIENCE=15,
    )
    plan.call(evaluations.score, when=chosen.here)(
        run=run, run_id=chosen.run_id, rows=chosen.rows, scaffold=scaffold, answer_schema=answer_schema, root=root
    )
    plan.call(evaluations.show_scores, announce=False)(run_id=chosen.run_id, split=chosen.split, summary=summary)
    return plan


def stop_run(run: schema.Run) -> Plan:
    """The run that goes on has written a checkpoint, is in S3, and is cancelled."""
    plan = Plan()
    _lock_box(plan, run, "stop-run")
    box = plan.call(instance.require)(name=run.box.name, metadata_closed=False)
    ended = plan.step("cancel", answers.Cancel, on=box.instance_id, timeout=600)(**_region_and_mount(run))
    then = "`inv train` starts a new run, `inv down` stops the box"
    plan.done("{run_id} is {phase}", then=then, run_id=ended.run_id, phase=ended.phase)
    return plan


def clean(run: schema.Run, days: int | None, yes: bool) -> Plan:
    """Runs that came to nothing, or are old, are removed from S3, and from the volume where the box runs; the box is asked first."""
    plan, name = Plan(), run.box.name
    _, held = _runs_on_volume(plan, run)
    chosen = plan.call(cleaning.choose)(name=name, days=days, yes=yes, mounted=held.mounted, going=held.going, whole=held.whole)
    _lock_box(plan, run, "clean")  # nobody has to wait for a human
    box, held = _runs_on_volume(plan, run)
    remaining = plan.call(cleaning.remove)(removed=chosen.removed, going=held.going)
    plan.step("clean", answers.Clean, on=plan.latest(box.instance_id), timeout=300, when=box.running)(
        **_region_and_mount(run), KEPT=remaining.retained
    )
    plan.done("{count} runs are removed", then="`inv status`", count=chosen.count)
    return plan


def _runs_on_volume(plan: Plan, run: schema.Run) -> tuple[cleaning.BoxAndVolume, answers.Held]:
    """The box, and what it says of its volume: nothing where it does not run."""
    box = plan.call(cleaning.find_box, announce=False)(name=run.box.name)
    held = plan.step("held", answers.Held, on=plan.latest(box.instance_id), when=box.running, announce=False)(**_region_and_mount(run))
    mounted, going, whole = (plan.latest(getattr(box, name), getattr(held, name)) for name in ("mounted", "going", "whole"))
    return box, answers.Held(mounted, going, whole)


def purge(run: schema.Run, force: bool, yes: bool, snapshot: bool = False) -> Plan:
    """The box and its volume are gone for good, also where one of them is gone already; what is in S3 and on the Hub stays."""
    plan, name = Plan(), run.box.name
    plan.call(cleaning.confirm_purge)(name=name, yes=yes, snapshot=snapshot)
    _lock_box(plan, run, "down")
    box = plan.call(instance.find_optional)(name=name)
    instance_id, continue_message = plan.latest(box.instance_id), "box and volume are removed anyway, and with them what was not shipped"
    _, copied = _stop_box(plan, run, instance_id, box.running, box.exists, continue_message if force else "", snapshot)
    plan.call(instance.terminate, when=box.exists)(instance_id=instance_id)
    plan.call(volume.delete)(name=name)
    plan.done(f"box and volume `{{name}}` are gone{_and_snapshot(copied)}", then="`inv report`", name=name, **copied)
    return plan


def down(run: schema.Run, force: bool, snapshot: bool = False) -> Plan:
    """Everything is delivered, and the box is stopped; with `force`, also where nothing on it answers, or it cannot deliver."""
    plan, continue_message = Plan(), "the box is stopped anyway; what it has not shipped stays on its volume"
    _lock_box(plan, run, "down")
    box = plan.call(instance.get)(name=run.box.name)
    stopped, copied = _stop_box(plan, run, box.instance_id, box.running, True, continue_message if force else "", snapshot)
    words = f"{{instance_id}} is {{state}}{_and_snapshot(copied)}"
    then = "`inv up deploy train` goes on with a run that this has ended" if force else "`inv report`"
    plan.done(words, then=then, instance_id=box.instance_id, state=stopped.state, **copied)
    return plan


def _stop_box(
    plan: Plan, run: schema.Run, instance_id: str, running: bool, there: bool, continue_message: str, snapshot: bool
) -> tuple[instance.Stopped, dict[str, str]]:
    """Stop the box first, since it costs by the second: a right that is missing for the port or the copy comes up later."""
    plan.step("stop", answers.Stop, on=instance_id, timeout=900, when=running, continue_message=continue_message)(
        **_region_and_mount(run), FORCE=bool(continue_message)
    )
    if run.notify.email:  # who stops it himself need not be told
        plan.call(stop_mail.disarm, when=there, announce=False)(instance_id=instance_id)
    stopped = plan.call(instance.stop, when=there)(instance_id=instance_id)
    plan.call(auto_stop.disarm, when=there)(instance_id=instance_id)
    copied = {"copied": plan.call(volume.snapshot)(name=run.box.name).copied} if snapshot else {}
    plan.call(ssh_ingress.close_port, when=there, announce=run.box.ssh)(instance_id=instance_id, name=run.box.name)
    return stopped, copied


def _and_snapshot(copied: dict[str, str]) -> str:
    return "; {copied}" if copied else ""


def transport(run: schema.Run) -> Callable[[Aws, str], Transport]:
    """What carries scripts to the box."""
    return functools.partial(Ssh, user=run.box.user) if run.box.ssh else Ssm


def _region_and_mount(run: schema.Run) -> dict[str, object]:
    return {"REGION": run.cloud.region, "MOUNT_PATH": run.box.mount}


def _store(run: schema.Run) -> dict[str, object]:
    return {"BUCKET": run.cloud.bucket, "PREFIX": run.cloud.prefix.strip("/")}


def _model(run: schema.Run) -> dict[str, object]:
    return {"HUB_SECRET": run.cloud.box_secret, "GPU": run.box.gpu}


def _lock_box(plan: Plan, run: schema.Run, verb: str, when: bool = True) -> lock.Acquired:
    """Nobody else works on the box until the plan's end."""
    taken = plan.call(lock.acquire, when=when, announce=False)(name=run.box.name, verb=verb)
    plan.hold(taken.lock, lock.renew, lock.release)
    return taken
