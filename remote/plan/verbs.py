"""Verb to plan, plan to deeds. A plan can be printed, compared and tested without a box."""

import contextlib
import functools
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

from conf import schema
from conf.problem import Problem
from conf.text import visible
from remote.account import destroy
from remote.account import init as account
from remote.aws import auto_stop, instance, parameters, volume
from remote.aws.session import Aws
from remote.build import docker, ecr
from remote.cost import limit
from remote.plan.step import ABOVE, Call, Fact, Step, body, compose, filled, settings_block
from remote.runs import clean as cleaning
from remote.runs import evaluations, follow, hub, lock, predictions, runs
from remote.transport import ssh_ingress
from remote.transport.ssh import Ssh
from remote.transport.ssm import Ssm
from remote.transport.transport import Transport

Plan = list[Call | Step]

TOKEN_AGE = 600  # seconds until the box reads its token again, while a run goes on
KILLED = 137  # 128 and SIGKILL, which the kernel sends when memory runs out
FIRST_BOOT = 600  # seconds until a new box must have shown its host key
CLOCK = ("RequestTimeTooSkewed", "InvalidSignatureException")  # what AWS calls it
PERIOD = 10  # seconds between two looks at the box and its run: shipping the log costs a second of one core


def init(run: schema.Run, folder: Path, local: Path, token: Path | None, yes: bool, decode: Callable[[bytes], str]) -> Plan:
    """The account has all that a run needs but the box, and the settings know its names. `decode` reads the token's file."""
    asks = sys.stdin.isatty() and not yes
    changed = Fact("changed")
    return [
        Call(account.survey, {"run": run}),
        Call(account.propose, {"wanted": Fact("wanted"), "adopted": Fact("adopted"), "left": Fact("left"), "token": token}, said=False),
        Call(account.agree, {"change_set": Fact("change_set"), "changes": Fact("changes"), "yes": yes}, when=changed, said=False),
        Call(account.carry_out, {"change_set": Fact("change_set"), "wanted": Fact("wanted"), "left": Fact("left")}, when=changed),
        Call(account.store_token, {"token": token, "ask_for_it": asks, "decode": decode}),
        Call(account.read_back, {"wanted": Fact("wanted")}),
        Call(account.write_down, {"run": run, "folder": folder, "local": local, "changed": changed, "token": Fact("token")}),
    ]


def unmake(run: schema.Run, data: bool, yes: bool) -> Plan:
    """The account is as it was before `init`, but for the data unless that was named."""
    removes = Fact("removes")
    return [
        Call(destroy.survey, {"run": run, "data": data}),
        Call(destroy.agree, {"data": data, "yes": yes}, when=removes, said=False),
        Call(destroy.remove_boxes, {"boxes": Fact("boxes"), "volumes": Fact("volumes")}, when=removes),
        # Before the stack, with which Parameter Store's word goes for which bucket it is: who is killed in between must find it again.
        *([Call(destroy.remove_data, {"copies": Fact("copies")}, when=removes)] if data else []),
        Call(destroy.remove_stack, {"found": Fact("stack")}, when=removes),
    ]


def up(run: schema.Run, foretell: Callable | None = None) -> Plan:
    """The box runs, its volume is attached, its agent answers, it has what every run needs."""
    watch = {
        "LOG_GROUP": run.cloud.log_group,
        "HUB_SECRET": run.cloud.box_secret,
        "TOKEN_AGE": TOKEN_AGE,
        "STREAM_PREFIX": run.cloud.log_stream_prefix.strip("/"),
        "PERIOD": PERIOD,
        "GPU": _word(run.box.gpu),
    }
    watch |= {"IDLE": round(run.box.idle_minutes * 60), "LIFE": round(run.box.max_hours * 3600)}
    look_after = {"INSTANCE": Fact("instance_id"), "GPU": _word(run.box.gpu), "LIFE_LEFT": Fact("life_left"), "PATIENCE": 45}
    look_after |= {"SUPERVISOR": compose("supervise", _place(run) | _store(run) | watch)}
    told = [Call(foretell, {"settings": run}, said=False)] if foretell else []
    return [
        *told,
        Call(limit.hold, {"run": run} | ({"planned": Fact("planned")} if told else {}), said=False),
        _alone(run, "up"),
        Call(volume.locate, {"name": run.box.name}, said=False),
        Call(instance.ensure, {"box": run.box, "volume_zone": Fact("volume_zone")}),
        Call(auto_stop.arm, {"instance_id": Fact("instance_id"), "hours": Fact("life_hours")}),
        Call(instance.wait, {"instance_id": Fact("instance_id")}, said=False),
        Call(instance.close_metadata, {"instance_id": Fact("instance_id")}, said=False),
        Call(volume.ensure, {"box": run.box, "instance_id": Fact("instance_id"), "zone": Fact("zone")}),
        Call(parameters.write, {"instance_id": Fact("instance_id"), "volume_id": Fact("volume_id")}, said=False),
        *_way_in(run),
        Call(limit.guard, {"run": run, "instance_id": Fact("instance_id")}, said=False),
        Step("setup", _place(run) | look_after, timeout=240, again=Fact("warming")),
    ]


def _way_in(run: schema.Run) -> Plan:
    """Scripts can travel to the box; a port that was left open by another `up` is closed."""
    mine = {"instance_id": Fact("instance_id")}
    if run.box.ssh:
        source = {"name": run.box.name, "source": run.box.ssh_from}
        return [Call(ssh_ingress.open_to, mine | source), Call(ssh_ingress.pin, mine | {"seconds": FIRST_BOOT})]
    return [
        Call(ssh_ingress.close, mine | {"name": run.box.name}, said=False),
        Call(instance.wait_for_agent, mine | {"on": Fact("on")}),
        Call(ssh_ingress.note_key, mine, said=False),
    ]


def deploy(run: schema.Run, root: Path) -> Plan:
    """The volume is mounted and this tree's image is on the box."""
    disk = {"VOLUME": Fact("volume_id"), "OURS": Fact("ours"), "SIZE_GB": Fact("size_gb"), "PATIENCE": 60}
    tag, arguments = ecr.tag(root, run.cloud.build_args), " ".join(f"{name}={value}" for name, value in run.cloud.build_args.items())
    parts = {"NAME": Fact("name"), "TAG": tag, "CONTEXT": Fact("context"), "SHA256": Fact("sha256"), "ARGUMENTS": arguments}
    parts |= {"REVISION": Fact("revision"), "ATTEMPT": Fact("attempt"), "BUILDER": compose("image", _place(run)), "PATIENCE": 15}
    return [
        _alone(run, "deploy"),
        Call(instance.require, {"name": run.box.name}),
        Call(volume.require, {"name": run.box.name}),
        Step("volume", _place(run) | disk, timeout=600),
        Call(volume.note_format, {"volume_id": Fact("volume_id")}, when=Fact("ours"), said=False),
        Call(ecr.offer, {"tag": tag, "root": root}),
        Step("build", _place(run) | parts, when=Fact("missing"), again=Fact("building")),
        Call(ecr.find, {"tag": tag}, when=Fact("missing"), said=False),
        Call(ecr.note, {"image": Fact("image")}, when=Fact("missing"), said=False),
        Step("deploy", _place(run) | {"IMAGE": Fact("image"), "BUILT": Fact("missing")}, timeout=1800),
    ]


def push(run: schema.Run, root: Path) -> Plan:
    """This tree's image, built by the docker of this machine, is in ECR, and its digest is written down."""
    return [
        Call(docker.build, {"run": run, "root": root}),
        Call(docker.push, {"local": Fact("local"), "tag": Fact("tag")}),
        Call(ecr.note, {"image": Fact("image")}),
    ]


def train(run: schema.Run, root: Path, check: Callable, detach: bool, named: str | None = None) -> Plan:
    """A run of these settings is going on, the one that is named or one of the caller's; followed to its end, unless `detach`."""
    start = _place(run) | _store(run) | {"RUN_ID": Fact("run_id"), "IMAGE": Fact("image"), "INPUTS": Fact("inputs")}
    start |= {"NEED_GB": Fact("need_gb"), "LIFE_LEFT": Fact("life_left"), "CONFIG": Fact("config_sha256")}
    start |= {"HUB_SECRET": run.cloud.box_secret, "GPU": _word(run.box.gpu)}
    given = {"run": run, "image": Fact("image"), "image_tag": Fact("image_tag"), "root": root, "instance_id": Fact("instance_id")}
    given |= {"named": named}
    plan = [
        Call(check, {"settings": run}),
        Call(limit.hold, {"run": run, "planned": Fact("planned")}, said=False),
        _alone(run, "train"),
        Call(instance.require, {"name": run.box.name}),
        Call(ecr.find, {"tag": ecr.tag(root, run.cloud.build_args)}),
        Call(runs.prepare, given),
        Call(limit.guard, {"run": run, "instance_id": Fact("instance_id"), "run_id": Fact("run_id")}, said=False),
        Step("train", start, timeout=600, when=Fact("to_do")),
        Call(lock.release, {"lock": Fact("lock")}, said=False),
    ]
    return plan if detach else [*plan, Call(follow.attach, {"run_id": Fact("run_id"), "box_name": run.box.name})]


def publish(run: schema.Run, run_id: str | None, upload: Callable, root: Path, endpoint: str | None) -> Plan:
    """The finished run's adapter is on the Hub, read back and compared. It needs no box."""
    settings = {
        "run_id": Fact("run_id"),
        "folder": Fact("folder"),
        "run": run,
        "endpoint": endpoint,
        "upload": upload,
        "say": talk,
    }
    fetch = {"run": run, "run_id": run_id, "into": root / run.runs, "merged": run.publish.merged}
    return [Call(runs.download, fetch), Call(hub.publish, settings)]


def predict(run: schema.Run, run_id: str | None, what: str, root: Path, read: Callable) -> Plan:
    """The answers of a finished run's model are printed: the box's where it is up and free, else this machine's. `read` makes lines of
    what is asked."""
    script = _place(run) | _store(run) | {"RUN_ID": Fact("run_id"), "IMAGE": Fact("image"), "ASKED": Fact("asked")}
    script |= {"MANIFEST": Fact("manifest_sha256"), "HUB_SECRET": run.cloud.box_secret, "GPU": _word(run.box.gpu)}
    chosen = {"run": run, "run_id": run_id, "what": what, "read": read}
    local = {"run": run, "run_id": Fact("run_id"), "lines": Fact("lines"), "root": root}
    up = Fact("up")
    return [
        Call(predictions.choose, chosen, said=False),
        Call(lock.take, {"name": run.box.name, "verb": "predict"}, when=up, said=False),
        Call(ecr.find, {"tag": ecr.tag(root, run.cloud.build_args)}, when=up),
        Call(predictions.ask, {"box_name": run.box.name, "lines": Fact("lines")}, when=up),
        Step("predict", script, timeout=1800, when=up),
        Call(predictions.collect, {"asked": Fact("asked")}, when=up),
        Call(predictions.here, local, when=Fact("away")),
    ]


def evaluate(run: schema.Run, run_id: str | None, split: str, root: Path, find: Callable, summary: Callable, scaffold: bool) -> Plan:
    """The scores of a finished run on other rows are beside it in S3 and printed; `find` tells which file a split of its data is."""
    script = _place(run) | _store(run) | {"RUN_ID": Fact("run_id"), "IMAGE": Fact("image"), "ROWS": Fact("rows_sha256")}
    script |= {"FILE": Fact("file"), "SPLIT": Fact("split"), "SCAFFOLD": _word(scaffold), "PATIENCE": 15}
    script |= {"MANIFEST": Fact("manifest_sha256"), "HUB_SECRET": run.cloud.box_secret, "GPU": _word(run.box.gpu)}
    chosen = {"run": run, "run_id": run_id, "split": split, "find": find}
    local = {"run": run, "run_id": Fact("run_id"), "rows": Fact("rows"), "scaffold": scaffold, "root": root}
    up = Fact("up")
    return [
        Call(evaluations.choose, chosen, said=False),
        Call(lock.take, {"name": run.box.name, "verb": "evaluate"}, when=up, said=False),
        Call(ecr.find, {"tag": ecr.tag(root, run.cloud.build_args)}, when=up),
        Call(evaluations.send, {"rows": Fact("rows")}, when=up),
        Step("evaluate", script, timeout=1800, when=up, again=Fact("scoring")),
        Call(evaluations.score, local, when=Fact("away")),
        Call(evaluations.tell, {"run_id": Fact("run_id"), "split": Fact("split"), "summary": summary}, said=False),
    ]


def stop_run(run: schema.Run) -> Plan:
    """The run that goes on has written a checkpoint, is in S3, and is cancelled."""
    return [
        _alone(run, "stop-run"),
        Call(instance.require, {"name": run.box.name, "closed": False}),
        Step("cancel", _place(run), timeout=600),
    ]


def clean(run: schema.Run, days: int | None, yes: bool) -> Plan:
    """Runs that came to nothing, or are old, are removed from S3, and from the volume where the box runs; the box is asked first."""
    mine = {"name": run.box.name}
    told = {"going": Fact("going"), "whole": Fact("whole"), "mounted": Fact("mounted")}
    asked = [Call(cleaning.look, mine, said=False), Step("held", _place(run), when=Fact("running"), said=False)]
    return [
        *asked,
        Call(cleaning.choose, mine | told | {"days": days, "yes": yes}),
        _alone(run, "clean"),  # nobody has to wait for a human
        *asked,
        Call(cleaning.remove, {"removed": Fact("removed"), "going": Fact("going")}),
        Step("clean", _place(run) | {"KEPT": Fact("kept")}, timeout=300, when=Fact("running")),
    ]


def purge(run: schema.Run, force: bool, yes: bool, snapshot: bool = False) -> Plan:
    """The box and its volume are gone for good, also where one of them is gone already; what is in S3 and on the Hub stays."""
    spare = "box and volume go all the same, and with them what was not shipped"
    return [
        Call(cleaning.sure_to_purge, {"name": run.box.name, "yes": yes, "snapshot": snapshot}),
        _alone(run, "down"),
        Call(instance.glance, {"name": run.box.name}),
        *_off(run, force, spare, snapshot),
        Call(instance.terminate, {"instance_id": Fact("instance_id")}, when=Fact("there")),
        Call(volume.delete, {"name": run.box.name}),
    ]


def down(run: schema.Run, force: bool, snapshot: bool = False) -> Plan:
    """Everything is delivered, and the box is stopped; with `force`, also where nothing on it answers, or it cannot deliver."""
    spare = "the box is stopped all the same; what it has not shipped is on its volume"
    return [_alone(run, "down"), Call(instance.look, {"name": run.box.name}), *_off(run, force, spare, snapshot)]


def _off(run: schema.Run, force: bool, spare: str, snapshot: bool) -> Plan:
    """First what is paid for by the second; whoever may not close the door, or make a copy, has stopped the box by then."""
    mine, there = {"instance_id": Fact("instance_id")}, Fact("there")
    return [
        Step("stop", _place(run) | {"FORCE": _word(force)}, timeout=900, when=Fact("running"), spare=spare if force else ""),
        Call(instance.stop, mine, when=there),
        Call(auto_stop.disarm, mine, when=there),
        *([Call(volume.snapshot, {"name": run.box.name})] if snapshot else []),
        Call(ssh_ingress.close, mine | {"name": run.box.name}, when=there, said=run.box.ssh),
    ]


def transport(run: schema.Run) -> Callable[[Aws, str], Transport]:
    """What carries scripts to the box."""
    return functools.partial(Ssh, user=run.box.user) if run.box.ssh else Ssm


def perform(plan: Plan, aws: Aws, transport: Callable[[Aws, str], Transport]) -> dict:
    """Carry out a plan, part by part; everything that was found out on the way. It stops at the first part that fails."""
    facts, answered = {}, set()
    try:
        for part in plan:
            if part.when is None or facts[part.when.name] == "yes":
                _renew(aws, facts)
                _perform(part, facts, answered, aws, transport)
    except BaseException:
        if "on" in facts:
            talk(_left_on(facts))
        with contextlib.suppress(Exception):  # what went wrong is what the user must read
            _unlock(aws, facts)
        raise
    _unlock(aws, facts)
    return facts


def _left_on(facts: dict) -> str:
    """What an `up` that failed must say: somebody pays for the box from now on, and what ends that."""
    alone = f"{instance.UNATTENDED} min after its start, unless an `inv up` sets it up"
    by_itself = {"launched": f"stops itself {alone}", "started": f"stops itself when it is idle; where it was never set up, {alone}"}.get(
        facts["on"], ""
    )
    outside = f"is stopped by AWS at {facts['stops_at']}" if "stops_at" in facts else ""
    ends = ", and ".join(part for part in (by_itself, outside) if part) or "is stopped by nothing from outside"
    return f"{facts['instance_id']} is on all the same: it {ends}; `inv down` stops it now"


def _unlock(aws: Aws, facts: dict) -> None:
    if facts.get("lock"):
        lock.release(aws, facts["lock"])


def _renew(aws: Aws, facts: dict) -> None:
    if facts.get("lock"):
        lock.renew(aws, facts["lock"])


def _perform(part: Call | Step, facts: dict, answered: set[str], aws: Aws, transport: Callable[[Aws, str], Transport]) -> None:
    started = time.monotonic()
    if isinstance(part, Call):
        facts |= part.action(aws, **filled(part.settings, facts))
    else:
        _believe(part, _run(part, facts, transport(aws, facts["instance_id"])), facts, answered)
        while part.again and facts[part.again.name] == "yes":
            _renew(aws, facts)
            _believe(part, _run(part, facts, transport(aws, facts["instance_id"])), facts, answered)
    if part.said:
        talk(f"  {part.intent.rstrip('.') if isinstance(part, Call) else part.script + '.sh'} ({time.monotonic() - started:.1f} s)")


def _believe(step: Step, found: dict, facts: dict, answered: set[str]) -> None:
    """Add what the box answers, but for another value of what this side has found out: which instance is stopped is not for it to say."""
    for name, value in found.items():
        if name in facts.keys() - answered - {"changed"} and facts[name] not in ("yes", "no", "", value):
            what = f"{step.script}.sh answers {name}={value}, and it is {facts[name]}"
            raise Problem(what, "`inv doctor` looks at the box; do not use one whose answers are not its scripts'", "crashed")
    facts |= found
    answered.update(found)


def _run(step: Step, facts: dict, transport: Transport) -> dict:
    title = f"fine-tune-slm {step.script} {facts.get('run_id', '')}".strip()
    try:
        result = transport.run(step.text(facts), step.timeout, title=title)
    except Problem as problem:
        if not step.spare:
            raise
        talk(f"{problem.what}; {step.spare}")
        return {}
    found = result.facts
    if step.again and result.stderr.strip() and (result.code or found.get(step.again.name) == "yes"):
        talk(textwrap.indent(result.stderr.rstrip(), "    "))
    if result.code == 0:
        return found
    if step.spare:
        talk(f"{found.get('problem') or f'{step.script}.sh {_end(result.code)}'}; {step.spare}")
        return {}
    if "problem" in found:
        raise Problem(found["problem"], found["hint"], reason=found["reason"])
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    if any(word in line for word in CLOCK for line in lines):
        raise Problem("the box's clock is wrong: AWS refuses what it signs", "`inv down` and `inv up`: a boot sets it", reason="refused")
    raise Problem(
        f"{step.script}.sh {_end(result.code)}\n" + "\n".join(lines[-5:]),
        "run the same command again: every step may run twice; `inv status` shows the box",
        reason="crashed",
    )


def _end(code: int) -> str:
    """How a script failed, by its exit code; Run Command has -1 where there is none."""
    if code == KILLED:
        return f"was killed (exit code {code}), most likely because the box's memory was full"
    if code < 0:
        return "did not run to its end"
    return f"failed with exit code {code}"


def rehearse(plan: Plan) -> str:
    """What performing the plan would ask and run, as text; nothing is touched."""
    return "\n".join(_intent(part) if isinstance(part, Call) else _script(part) for part in plan)


def outline(plan: Plan) -> str:
    """The same in a line for each part."""
    return "\n".join(f"  {part.intent}" if isinstance(part, Call) else f"  {part.script}.sh on the box" for part in plan)


def _intent(call: Call) -> str:
    shown = {key: value for key, value in call.settings.items() if isinstance(value, str | int | bool | Fact | Path) or value is None}
    words = "  ".join(f"{key}={value}" for key, value in shown.items())
    return f"call   {call.intent}" + (f"  [{words}]" if words else "")


def _script(step: Step) -> str:
    # A long value is a script of ours that travels as a setting: its own text is in remote/scripts.
    short = {key: value if len(str(value)) < 200 else f"<{len(value)} characters>" for key, value in step.settings.items()}
    above = "".join(f". {name}.sh\n" for name in ("lib", *ABOVE.get(step.script, ())))
    text = settings_block(short) + above + body(step.script)
    return f"script {step.script}.sh, at most {step.timeout} s\n" + "\n".join(f"  | {line}" for line in text.splitlines())


def talk(text: str) -> None:
    """A line for people: stdout is for results."""
    print(visible.visible(text), file=sys.stderr, flush=True)


def _place(run: schema.Run) -> dict:
    return {"REGION": run.cloud.region, "MOUNT_PATH": run.box.mount}


def _store(run: schema.Run) -> dict:
    return {"BUCKET": run.cloud.bucket, "PREFIX": run.cloud.prefix.strip("/")}


def _alone(run: schema.Run, verb: str) -> Call:
    return Call(lock.take, {"name": run.box.name, "verb": verb}, said=False)


def _word(yes: bool) -> str:
    return "yes" if yes else "no"
