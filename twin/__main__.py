"""The background process of an emulated world: `python -m twin --state DIR`, which `twin.world` starts."""

import argparse
import json
import os
import secrets
import signal
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

import botocore.session
import psutil
from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import BaseWSGIServer, make_server

from twin import account, forkserver, world
from twin.aws import wire
from twin.aws.batch.service import Batch
from twin.aws.cloudformation.stacks import Stacks
from twin.aws.documented import service_models
from twin.aws.ec2 import instances, launch_templates
from twin.aws.ec2.account_plan import AccountPlan
from twin.aws.ec2.consistency import Consistency
from twin.aws.ec2.instance_connect import Access
from twin.aws.ec2.metadata import Metadata
from twin.aws.ec2.quotas import Quotas
from twin.aws.ec2.reservations import Reservations
from twin.aws.ec2.spot import Spot
from twin.aws.ec2.validations import Validations
from twin.aws.faults import KINDS, Faults
from twin.aws.gateway.gateway import Gateway
from twin.aws.gateway.guard import is_own_socket, programs_only
from twin.aws.iam import linked_roles, managed_policies, policy_sizes, web_identity
from twin.aws.iam.keys import LAPTOP, OWNER, Keys
from twin.aws.iam.permissions import Permissions
from twin.aws.request_log import Journal
from twin.aws.services.bucket_policies import BucketPolicies
from twin.aws.services.events import Events
from twin.aws.services.mail import Mail
from twin.aws.services.meter import Meter
from twin.aws.services.pricing import Pricing
from twin.aws.services.propagation import Propagation
from twin.aws.services.scheduler import Scheduler, call_ec2
from twin.aws.ssm import associations
from twin.aws.ssm.channels import Channels
from twin.aws.ssm.run_command import RunCommand
from twin.aws.ssm.sessions import Sessions
from twin.box import backends
from twin.box.faults import HostFaults
from twin.clock import Clock
from twin.control import Control
from twin.hub.app import Hub
from twin.webhook import Webhook

SERVICES = ("s3", "iam", "ec2", "ssm", "ecr", "logs", "secretsmanager", "sts", "scheduler", "cloudformation", "budgets")


class Handler(MotoRequestHandler):
    def log_request(self, *_) -> None:
        """The journal has it."""


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m twin")
    parser.add_argument("--state", type=Path)
    parser.add_argument("--serve", type=Path, help="keep this program loaded for many worlds, until standard input ends")
    arguments = parser.parse_args(words)
    read_once()
    if arguments.serve:
        serve_worlds(arguments.serve)
    run(arguments.state)


def read_once() -> None:
    """The services' descriptions take most of a second: one copy is for every session, and for what answers are held to."""
    loader = service_models.loader()
    botocore.session.create_loader = lambda path: loader


def serve_worlds(place: Path) -> None:
    """Every world is a fork of this process, which has imported and read already what each would."""
    import boto3
    from moto.backends import get_backend
    from moto.core.utils import get_service_model
    from moto.moto_api._internal import mock_random

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    for service in SERVICES:
        boto3.Session("none", "none", region_name="us-east-1").client(service)
        get_service_model(service)
        with suppress(KeyError):  # some services know the whole partition only
            get_backend(service)[wire.ACCOUNT]["us-east-1"]
    for service in ("s3", "scheduler", "batch"):  # whose requests do not name their operation
        service_models.routes(service)
    threading.Thread(target=lambda: os.read(0, 1) or os._exit(0), daemon=True).start()  # the process that started it is gone
    os.register_at_fork(after_in_child=mock_random.seed)  # else all worlds would give their things the same ids
    forkserver.serve(place, main)


def run(state: Path) -> None:
    plan = json.loads((state / "start.json").read_text(encoding="utf-8"))
    (state / "start.json").unlink()  # an account's secrets may stand in it
    region, token, webhook = plan["account"]["region"], "hf_" + secrets.token_hex(17), secrets.token_hex(12)
    journal = Journal(state / "journal.jsonl")
    clock = Clock()
    hardware = backends.hardware(plan, state, region, clock.today)
    hub = Hub(state / "hub", token, {name: Path(folder) for name, folder in plan["models"].items()})
    front = gateway(journal, clock, hardware, region)
    aws = address(serve(front))
    details = {
        "aws": aws,
        "hub": address(serve(front.faults.wrap(journal.wrap(hub, "hub"), "hub"))),
        "webhook": f"{address(serve(front.faults.wrap(Webhook(state, webhook, clock.today), 'webhook')))}/services/{webhook}",
        "region": region,
        "token": token,
        "keys": {name: front.keys.of(name) for name in (LAPTOP, OWNER)},
    }
    hardware.boxes.environment = box_environment(state, details)
    os.environ |= {
        name: value for name, value in world.aws_environment(state, aws, region, front.keys.of(OWNER)).items() if value is not None
    }
    account.create(plan["account"], token, details["webhook"])
    front.opened()
    publish(state, details)
    instances.backend(region)  # takes a second to import: the first caller need not wait for it
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    stopped.wait()
    hardware.boxes.ssh_server.close_all()


def gateway(journal: Journal, clock: Clock, hardware: backends.Hardware, region: str) -> Gateway:
    boxes, registry = hardware.boxes, hardware.registry
    about = (instances.running, instances.may_register, instances.tags)
    commands = RunCommand(region, *(partial(ask, region) for ask in about), clock.now)
    metadata = Metadata(region, clock.now, journal, partial(serve, only_own=True))
    boxes.metadata_address, boxes.close_metadata = metadata.address, metadata.close
    keys = Keys(metadata.callers)
    boxes.agent_key = keys.of_agent
    permissions = Permissions(region, metadata.roleless.__contains__)
    faults = Faults(boxes.skews)
    aws_gateway, consistency = Gateway(journal, keys, permissions, faults, []), Consistency()
    boxes.power_off = lambda instance: shut_down(aws_gateway, region, instance)
    boxes.later = registry.later = lambda seconds, action: clock.at(clock.now() + seconds, action)
    registry.now = clock.now
    clock.on_move = lambda offset: (boxes.move_clocks(offset), commands.pinged(boxes.living_agents()))
    spot, quotas, mail = Spot(clock, region, metadata, aws_gateway), Quotas(region), Mail(boxes.state, region, clock.today)
    plan, propagation = AccountPlan(), Propagation(clock.now)
    aws_gateway.opened = propagation.made.clear  # what the account has from the start is not new
    host_faults = hardware.host_faults(aws_gateway, clock, boxes, commands, spot, quotas, registry, consistency, plan, propagation)
    services = [commands, Scheduler(clock, region, aws_gateway), registry, Pricing(), Access(boxes, region, clock)]
    events = Events(region, clock.now, mail)
    boxes.state_changed, spot.interrupted = events.instance_changed, events.interrupted
    services += [Stacks(region, permissions.require_all, keys.on_behalf), BucketPolicies(), events, mail]
    batch = Batch(clock, region, aws_gateway, boxes, registry, metadata.notices)
    sessions = Sessions(region, partial(instances.running, region), permissions.identity, clock.now)
    permissions.own_tags = lambda arn: batch.tags_of(arn) | sessions.tags_of(arn)
    # Another program in the agent's place would have its commands over this channel, too, where it may open it: it may not.
    services += [batch, sessions, Channels(sessions, refused=boxes.real_agent is not None)]
    meter = Meter(boxes.state, region, clock.now)
    verbs = {"costs": meter.costs, "forward": lambda seconds: moved(clock, seconds), "quota": quotas.set, "start_agent": boxes.start_agent}
    verbs |= {
        "enforce": permissions.enforce,
        "used": permissions.used,
        "interrupt": spot.interrupt,
        "capacity_is_back": spot.capacity_is_back,
        "confirm_mail": mail.confirm_all,
    }
    control = Control(
        verbs | {"fault": partial(fault, faults, host_faults), "faults": partial(known, faults, host_faults), "heal": faults.clear}
    )
    own = [
        control,
        permissions,
        meter,
        Validations(clock.now),
        propagation,
        plan,
        Reservations(region),
        quotas,
        spot,
        *services,
        boxes.disks,
        boxes,
    ]
    single = [associations, policy_sizes, web_identity, managed_policies, linked_roles]
    aws_gateway.layers = [consistency, launch_templates.operations, *(part.operations for part in [*own, *single])]
    clock.start()
    return aws_gateway


def fault(faults: Faults, host_faults: HostFaults, name: str, **options) -> dict:
    if name in KINDS:
        return faults.arm(name, **options)
    if name in host_faults.actions:
        return host_faults.arm(name, **options)
    raise ValueError(f"there is no fault {name}; there are {', '.join(sorted([*KINDS, *host_faults.actions]))}")


def known(faults: Faults, host_faults: HostFaults) -> dict:
    """Every fault that there is, in a sentence, and what became of those that were armed."""
    about = {name: kind.about for name, kind in KINDS.items()} | {name: action.__doc__ for name, action in host_faults.actions.items()}
    return {"known": dict(sorted(about.items())), "armed": faults.listing()}


def shut_down(gateway: Gateway, region: str, instance: str) -> None:
    """A box that shut itself down is stopped or terminated, as its launch said."""
    behaviour = instances.find(region, instance).instance_initiated_shutdown_behavior
    call_ec2(gateway, region, "TerminateInstances" if behaviour == "terminate" else "StopInstances", {"InstanceId.1": instance}, "SHUTDOWN")


def moved(clock: Clock, seconds: float) -> dict:
    if not seconds >= 0:
        raise ValueError("the clock goes forward only")
    clock.forward(seconds)
    return {"now": clock.now(), "offset": clock.offset}


def serve(application, only_own: bool = False) -> BaseWSGIServer:
    server = make_server("127.0.0.1", 0, programs_only(application), threaded=True, request_handler=Handler)
    if only_own:  # whose clients send no key
        server.verify_request = lambda request, caller: is_own_socket(caller)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def address(server: BaseWSGIServer) -> str:
    return f"http://127.0.0.1:{server.port}"


def box_environment(state: Path, details: dict) -> dict[str, str]:
    """What a real box has from its network; its credentials come from the metadata service, and the Hub token is not among it."""
    laptop = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED")
    named = world.aws_environment(state, details["aws"], details["region"], "").items()
    aws = {name: value for name, value in named if value is not None and name not in laptop}
    if speed := os.environ.get("TWIN_AGENT_SPEED"):  # how many times faster than the real agent theirs is
        aws["TWIN_AGENT_SPEED"] = speed
    if folder := os.environ.get("TWIN_TRACE"):  # somebody wants to know which lines of the scripts run
        aws |= {"TWIN_TRACE": folder, "BASH_ENV": str(Path(__file__).with_name("box") / "trace.sh")}
    return aws | {"HF_ENDPOINT": details["hub"], "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def publish(state: Path, details: dict) -> None:
    """From now on the world is there for others to see."""
    process = psutil.Process()
    temporary = state / "state.json.new"
    temporary.touch(mode=0o600)  # the Hub token stands in it
    temporary.write_text(json.dumps({"pid": process.pid, "started": process.create_time()} | details), encoding="utf-8")
    temporary.rename(state / "state.json")


if __name__ == "__main__":
    main()
