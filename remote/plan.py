"""Verb to plan, plan to deeds. A plan can be printed, compared and tested without a box."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from conf import schema
from conf.problem import Problem
from remote import box, follow, hub, image, runs, switch, volume
from remote.aws import Aws
from remote.step import Call, Fact, Step, body, compose, filled, settings_block
from remote.transport import Transport

Plan = list[Call | Step]

PERIOD = 10  # seconds between two looks at the box and its run: shipping the log costs a second of one core


def up(run: schema.Run) -> Plan:
    """The box runs, its volume is attached, its agent answers, it has what every run needs."""
    watch = {"LOG_GROUP": run.cloud.log_group, "PERIOD": PERIOD, "GPU": _word(run.box.gpu)}
    watch |= {"IDLE": round(run.box.idle_minutes * 60), "LIFE": round(run.box.max_hours * 3600)}
    supervisor = compose("supervise", _place(run) | _store(run) | watch, "ship")
    return [
        Call(box.ensure, {"box": run.box}),
        Call(switch.arm, {"instance_id": Fact("instance_id"), "hours": run.box.max_hours}),
        Call(volume.ensure, {"box": run.box, "instance_id": Fact("instance_id"), "zone": Fact("zone")}),
        Call(box.wait_for_agent, {"instance_id": Fact("instance_id")}),
        Step("setup", _place(run) | {"INSTANCE": Fact("instance_id"), "GPU": _word(run.box.gpu), "SUPERVISOR": supervisor}),
    ]


def deploy(run: schema.Run, root: Path) -> Plan:
    """The volume is mounted and this tree's image is on the box."""
    return [
        Call(box.require, {"name": run.box.name}),
        Call(volume.require, {"name": run.box.name}),
        Step("volume", _place(run) | {"VOLUME": Fact("volume_id"), "OURS": Fact("ours")}, timeout=300),
        Call(image.find, {"tag": image.tag(root)}),
        Step("deploy", _place(run) | {"IMAGE": Fact("image")}, timeout=1800),
    ]


def train(run: schema.Run, root: Path, check: Callable, detach: bool) -> Plan:
    """A run of these settings is going on; followed to its end, unless `detach`."""
    start = _place(run) | _store(run) | {"RUN_ID": Fact("run_id"), "IMAGE": Fact("image"), "INPUTS": Fact("inputs")}
    start |= {"HUB_SECRET": run.cloud.hub_secret, "GPU": _word(run.box.gpu)}
    plan = [
        Call(check, {"settings": run}),
        Call(box.require, {"name": run.box.name}),
        Call(image.find, {"tag": image.tag(root)}),
        Call(runs.prepare, {"run": run, "image": Fact("image"), "image_tag": Fact("image_tag"), "root": root}),
        Step("train", start, timeout=600),
    ]
    return plan if detach else [*plan, Call(follow.attach, {"run_id": Fact("run_id"), "box_name": run.box.name})]


def publish(run: schema.Run, run_id: str | None, upload: Callable, root: Path, endpoint: str | None) -> Plan:
    """The finished run's adapter is on the Hub, read back and compared. It needs no box."""
    settings = {
        "run_id": Fact("run_id"),
        "folder": Fact("folder"),
        "settings": run.publish,
        "endpoint": endpoint,
        "upload": upload,
        "say": talk,
    }
    return [Call(runs.download, {"run_id": run_id, "kind": run.kind.value, "into": root / run.runs}), Call(hub.publish, settings)]


def down(run: schema.Run, force: bool) -> Plan:
    """Everything is delivered, and the box is stopped."""
    return [
        Call(box.look, {"name": run.box.name}),
        Step("stop", _place(run) | {"FORCE": _word(force)}, timeout=900, when=Fact("running")),
        Call(box.stop, {"instance_id": Fact("instance_id")}),
        Call(switch.disarm, {"instance_id": Fact("instance_id")}),
    ]


def perform(plan: Plan, aws: Aws, transport: Callable[[Aws, str], Transport]) -> dict:
    """Carry out a plan, part by part; everything that was found out on the way. It stops at the first part that fails."""
    facts: dict = {}
    for part in plan:
        started = time.monotonic()
        if part.when and facts[part.when.name] != "yes":
            continue
        if isinstance(part, Call):
            facts |= part.action(aws, **filled(part.settings, facts))
        else:
            facts |= _run(part, facts, transport(aws, facts["instance_id"]))
        talk(f"  {part.intent.rstrip('.') if isinstance(part, Call) else part.script + '.sh'} ({time.monotonic() - started:.1f} s)")
    return facts


def _run(step: Step, facts: dict, transport: Transport) -> dict:
    result = transport.run(step.text(facts), step.timeout, title=f"fine-tune-slm {step.script}")
    found = result.facts
    if result.code == 0:
        return found
    if "problem" in found:
        raise Problem(found["problem"], found["hint"], reason=found["reason"])
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    raise Problem(
        f"{step.script}.sh failed with exit code {result.code}\n" + "\n".join(lines[-5:]),
        "run the same command again: every step may run twice; `inv status` shows the box",
        reason="crashed",
    )


def rehearse(plan: Plan) -> str:
    """What performing the plan would ask and run, as text; nothing is touched."""
    return "\n".join(_intent(part) if isinstance(part, Call) else _script(part) for part in plan)


def _intent(call: Call) -> str:
    shown = {key: value for key, value in call.settings.items() if isinstance(value, str | int | bool | Fact | Path) or value is None}
    words = "  ".join(f"{key}={value}" for key, value in shown.items())
    return f"call   {call.intent}" + (f"  [{words}]" if words else "")


def _script(step: Step) -> str:
    # A long value is a script of ours that travels as a setting: its own text is in remote/scripts.
    short = {key: value if len(str(value)) < 200 else f"<{len(value)} characters>" for key, value in step.settings.items()}
    text = settings_block(short) + ". lib.sh\n" + body(step.script)
    return f"script {step.script}.sh, at most {step.timeout} s\n" + "\n".join(f"  | {line}" for line in text.splitlines())


def talk(text: str) -> None:
    """A line for people: stdout is for results."""
    print(text, file=sys.stderr, flush=True)


def _place(run: schema.Run) -> dict:
    return {"REGION": run.cloud.region, "MOUNT_PATH": run.box.mount}


def _store(run: schema.Run) -> dict:
    return {"BUCKET": run.cloud.bucket, "PREFIX": run.cloud.prefix.strip("/")}


def _word(yes: bool) -> str:
    return "yes" if yes else "no"
