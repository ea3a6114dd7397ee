"""The background process of an emulated world: `python -m twin --state DIR`, which `twin.world` starts."""

import argparse
import json
import os
import secrets
import signal
import threading
from pathlib import Path

import psutil
from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import BaseWSGIServer, make_server

from twin import account, instances, provided, world
from twin.boxes import Boxes
from twin.ecr import Registry
from twin.gateway import Gateway
from twin.hub.app import Hub
from twin.journal import Journal
from twin.pricing import Pricing
from twin.run_command import RunCommand
from twin.vetoes import Vetoes


class Handler(MotoRequestHandler):
    def log_request(self, *_) -> None:
        """The journal has it."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m twin")
    parser.add_argument("--state", type=Path, required=True)
    state = parser.parse_args().state
    plan = json.loads((state / "start.json").read_text())
    (state / "start.json").unlink()  # an account's secrets may stand in it
    region, token = plan["account"]["region"], "hf_" + secrets.token_hex(17)
    boxes = Boxes(state, region)
    journal = Journal(state / "journal.jsonl")
    hub = Hub(state / "hub", token, {name: Path(folder) for name, folder in plan["models"].items()})
    aws = address(serve(gateway(journal, boxes, region)))
    found = {"aws": aws, "hub": address(serve(journal.watching(hub, "hub"))), "region": region, "token": token}
    boxes.environment = box_environment(state, found)
    os.environ |= {name: value for name, value in world.aws_environment(state, aws, region).items() if value is not None}
    account.create(plan["account"], token)
    publish(state, found)
    instances.backend(region)  # takes a second to import: the first caller need not wait for it
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    stopped.wait()


def gateway(journal: Journal, boxes: Boxes, region: str) -> Gateway:
    commands = RunCommand(lambda one: instances.running(region, one), lambda one: instances.may_register(region, one))
    own = [Vetoes(), commands, Registry(region), Pricing(), boxes]
    return Gateway(journal, [*(part.operations for part in own), provided.operations])


def serve(application) -> BaseWSGIServer:
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def address(server: BaseWSGIServer) -> str:
    return f"http://127.0.0.1:{server.port}"


def box_environment(state: Path, found: dict) -> dict[str, str]:
    """What a real box has from its network and its role; the Hub token is not among it."""
    aws = {name: value for name, value in world.aws_environment(state, found["aws"], found["region"]).items() if value is not None}
    return aws | {"HF_ENDPOINT": found["hub"], "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def publish(state: Path, found: dict) -> None:
    """From now on the world is there for others to see."""
    process = psutil.Process()
    temporary = state / "state.json.new"
    temporary.touch(mode=0o600)  # the Hub token stands in it
    temporary.write_text(json.dumps({"pid": process.pid, "started": process.create_time()} | found))
    temporary.rename(state / "state.json")


if __name__ == "__main__":
    main()
