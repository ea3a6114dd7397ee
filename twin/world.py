"""Starts, asks and stops an emulated world: one background process, one state folder, nothing outside of it.

`python -m twin` is that process; it writes `state.json` when all is ready. Several worlds can run side by side.
"""

import fcntl
import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from twin.aws.iam.keys import LAPTOP, OWNER
from twin.aws.services import ecr
from twin.aws.wire import ACCOUNT as ACCOUNT
from twin.aws.wire import CALLER as CALLER
from twin.box import processes, real_agent
from twin.box.machine import cleanup, debian, prerequisites
from twin.box.machine import lifecycle as machine

PATIENCE = 300.0  # seconds a start may take; it needs two, many more on a busy machine
MOTO = {
    "MOTO_AMIS_PATH": str(Path(__file__).with_name("aws") / "ec2/amis.json"),  # its own 44 take a second to load, and none has a GPU driver
    "MOTO_ENABLE_AMI_VALIDATION": "true",
    "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "true",
}
# NO_PROXY alone is not enough: the Hub's client ends at the mere name of a SOCKS proxy.
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
# What the path of a world cannot hold beside what cannot be printed: any other mark is quoted on its way.
UNUSABLE = {":": "which ends a folder in PATH", "[": "which begins a pattern in `aws s3 cp --include`"}


class WorldError(Exception):
    """One sentence about why the world cannot be had, and a hint."""

    hint = "`inv twin.status` shows whether it runs, `inv twin.faults` what it can do"


def start(state: Path, models: dict[str, Path], account: dict, grade: str = "process", cache: Path = Path(".cache/machine")) -> None:
    """The world runs and answers; does nothing when it does already. Boxes of the grade `machine` are made of what `cache` keeps."""
    state = state.resolve()
    if reason := real_agent.unfit(grade):
        raise WorldError(reason)
    check_place(state)
    if grade == "machine" and (reason := prerequisites.missing()):
        raise WorldError(f"boxes of the grade `machine` cannot be had here: {reason}")
    if grade == "machine":
        reap()
    state.mkdir(parents=True, exist_ok=True)
    state.chmod(0o700)  # a world's data is for its owner to read
    with locked(state):
        if read(state):
            return
        clear(state)
        if grade == "machine":
            debian.box_layers(cache.resolve())  # a minute the first time, and no caller of an API waits so long
            cleanup.prune(cache.resolve())
        plan = {"models": {name: str(Path(folder).resolve()) for name, folder in models.items()}, "account": account}
        plan |= {"grade": grade, "cache": str(cache.resolve())}
        (state / "start.json").touch(mode=0o600)
        (state / "start.json").write_text(json.dumps(plan), encoding="utf-8")
        wait(state, launch(state))


def check_place(state: Path) -> None:
    """A WorldError where a box in this folder would not find its own programs or files."""
    for mark in os.fsencode(state).decode(errors="surrogateescape"):
        if mark in UNUSABLE or not mark.isprintable():
            why = UNUSABLE.get(mark, "and the tables of a box hold a path a line")
            error = WorldError(f"no emulated world can be in {str(state)!r}: the path holds {mark!r}, {why}")
            error.hint = "keep it in another folder: `cloud.state=/tmp/twin` behind `--`, with each verb"
            raise error


def stop(state: Path) -> None:
    """Nothing of the world runs any more; the Hub's repositories, the journal and the log stay."""
    state = state.resolve()
    if state.is_dir():
        with locked(state):
            clear(state)


def reap() -> None:
    """Nothing is left of worlds whose process was killed, no box, mount or loop device; those of living worlds stay."""
    for state in cleanup.states():
        with locked(state) if state.is_dir() else nullcontext():  # its disks may be all that is left
            if not read(state):
                cleanup.kill(state)
                machine.clear(state)
                clear(state)


def status(state: Path) -> dict | None:
    """Process id, addresses and boxes of the world, or None when it does not run."""
    details = read(state.resolve())
    if not details:
        return None
    boxes = [{"instance": root.parent.name, "processes": len(processes.of(root))} for root in roots(state.resolve())]
    return {name: details[name] for name in ("pid", "aws", "hub", "webhook")} | {"boxes": boxes}


def forward(state: Path, seconds: float) -> float:
    """The world's clock after it was moved forward; schedules, timeouts and prices go with it, and the `date` of every box."""
    return ask(state, "forward", seconds=seconds)["now"]


def fault(state: Path, name: str, **options) -> dict:
    """Lets something go wrong, as FAULTS.md lists it: `fault(state, "throttle", only="ssm.*", count=3)`."""
    return ask(state, "fault", name=name, **options)


def faults(state: Path) -> dict:
    """Every fault that there is (`known`), and how often those that were armed have struck (`armed`)."""
    return ask(state, "faults")


def clear_faults(state: Path) -> None:
    """No call is struck any more; what befell a box stays."""
    ask(state, "heal")


def enforce(state: Path, documents: list[dict] | None, role: str = "") -> None:
    """IAM holds the laptop's calls against these policies from now on, as a role where one is named; None: it may do everything."""
    ask(state, "enforce", documents=documents, role=role)


def used(state: Path) -> dict[str, list[dict]]:
    """What `laptop` (while it is held to policies) and `box` have asked IAM for so far: each action, resource and context once."""
    return ask(state, "used")


def mutations(state: Path) -> list[str]:
    """The calls so far by which the laptop may have changed something, in their order: where it can be killed."""
    from twin.aws.faults import is_mutating

    calls = []
    for line in (state / "journal.jsonl").read_text(encoding="utf-8").splitlines():
        call = json.loads(line)
        laptop = call["by"] in (LAPTOP, OWNER, "") and call["service"] not in ("twin", "imds", "ec2messages", "registry")
        if laptop and is_mutating(call["service"], call["operation"]):
            calls.append(f"{call['service']}.{call['operation']}")
    return calls


def costs(state: Path) -> dict:
    """What the world's account would have to pay so far: `rows`, one a stretch, `sums` by kind, `total`, and what has no known price."""
    return ask(state, "costs")


def mails(state: Path) -> list[dict]:
    """What SNS has sent by e-mail, the oldest first: `time`, `to`, `subject` and `text`."""
    return _lines(state / "mail.jsonl")


def posts(state: Path) -> list[dict]:
    """What was posted to the receiver of webhooks, the oldest first: `time`, `path` without its token, and `body`."""
    return _lines(state / "webhook.jsonl")


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def confirm_mail(state: Path) -> list[str]:
    """The subscriptions that wait for their owner, all confirmed now."""
    return ask(state, "confirm_mail")["confirmed"]


def ask(state: Path, verb: str, **content) -> dict:
    """What the world itself answers, beside AWS."""
    details = running(state)
    scope = f"{details['keys'][OWNER]}/20260101/{details['region']}/twin/aws4_request"
    signed = {"Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=none"}
    connection = http.client.HTTPConnection(urlsplit(details["aws"]).netloc, timeout=60)
    try:
        connection.request("POST", f"/_twin/{verb}", json.dumps(content), {"Content-Type": "application/json"} | signed)
        reply = connection.getresponse()
        answer = json.loads(reply.read())
    finally:
        connection.close()
    if reply.status != 200:
        raise WorldError(answer["message"])
    return answer


def environment(state: Path) -> dict[str, str | None]:
    """What points any AWS or Hub client at this world and at nothing else; None means: unset this variable."""
    state = state.resolve()
    details = running(state)
    nowhere = {name: None for name in os.environ if name.startswith(("AWS_", "HF_", "HUGGING_FACE_")) or name.upper() in PROXIES}
    ways = {"FABRIC_SSH_CONFIG_PATH": str(state / "ssh_config")}  # where Fabric reads how a host is reached; `ssh -F` takes it, too
    return (
        nowhere
        | ways
        | aws_environment(state, details["aws"], details["region"], details["keys"][LAPTOP])
        | hub_environment(state, details["hub"], details["token"])
    )


def register_image(state: Path, repository: str, tag: str, command: list[str], directory: Path, environment: dict) -> str:
    """The digest of an image in ECR that consists of a command."""
    manifest = ecr.manifest(command, str(directory), environment)
    registry = client(state, "ecr")
    images = registry.batch_get_image(repositoryName=repository, imageIds=[{"imageTag": tag}])["images"]
    if images and images[0]["imageManifest"] != manifest:
        registry.batch_delete_image(repositoryName=repository, imageIds=[{"imageTag": tag}])  # a tag may be immutable
    with suppress(registry.exceptions.ImageAlreadyExistsException):  # the same manifest under the same tag
        registry.put_image(repositoryName=repository, imageManifest=manifest, imageTag=tag)
    return ecr.digest(manifest.encode())


def build_image(state: Path, cache: Path, repository: str, tag: str, context: Path, packages: tuple[Path, Path]) -> None:
    """The image of `context`/docker/Dockerfile is in ECR under this tag, really built and pushed; what has the tag already stays.

    The tag stands for the content: the same one is built once, for all worlds.
    """
    from twin.box.machine import builder, image_cache

    registry = client(state, "ecr")
    if registry.batch_get_image(repositoryName=repository, imageIds=[{"imageTag": tag}])["images"]:
        return
    files, name = state.resolve() / "registry/files", f"{repository.replace('/', '-')}-{tag}"
    with image_cache.locked(cache, name):
        if image_cache.copy_to_registry(cache, name, files):
            return
        uri = registry.describe_repositories(repositoryNames=[repository])["repositories"][0]["repositoryUri"]
        login = registry.get_authorization_token()["authorizationData"][0]["authorizationToken"]
        with builder.running(cache) as made:
            made.build(context, context / "docker/Dockerfile", *packages, f"{uri}:{tag}")
            made.push(f"{uri}:{tag}", login)
        image_cache.put(cache, name, files)


def client(state: Path, service: str, who: str = OWNER, **options):
    """A boto3 client of this world's owner, who may do everything, whatever profile or endpoint this process's environment names.

    `who` is the laptop (`twin`), or another access key; `options` are those of botocore's Config.
    """
    import boto3
    import botocore.session
    from botocore.config import Config

    details = running(state)
    fixed = {"profile": None, "config_file": os.devnull, "credentials_file": os.devnull}
    deaf = {name: (None, None, value, None) for name, value in fixed.items()}  # read neither from files nor from the environment
    key = details["keys"].get(who, who)
    session = boto3.Session(key, key, region_name=details["region"], botocore_session=botocore.session.Session(session_vars=deaf))
    return session.client(service, endpoint_url=details["aws"], config=Config(proxies={}, **options))


def aws_environment(state: Path, address: str, region: str, key: str) -> dict[str, str | None]:
    empty = str(state / "no-aws-configuration")
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": key,
        "AWS_DEFAULT_REGION": region,
        "AWS_REGION": region,
        "AWS_CONFIG_FILE": empty,
        "AWS_SHARED_CREDENTIALS_FILE": empty,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_PROFILE": None,
        "AWS_SESSION_TOKEN": None,
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": None,
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def hub_environment(state: Path, address: str, token: str) -> dict[str, str | None]:
    return {
        "HF_ENDPOINT": address,
        "HF_TOKEN": token,
        "HF_TOKEN_PATH": None,
        "HF_HOME": str(state / "hf-home"),
        "HF_HUB_DISABLE_XET": "1",  # with Xet the client insists on a storage service that no emulation has
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": None,
        "TRANSFORMERS_OFFLINE": None,
    }


def read(state: Path) -> dict | None:
    """What the running world wrote about itself; None when there is none, or only the file of one that died."""
    try:
        details = json.loads((state / "state.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return details if processes.alive(details["pid"], details["started"]) else None


def running(state: Path) -> dict:
    details = read(state.resolve())
    if not details:
        raise WorldError(f"no emulated world runs in {state}.")
    return details


def launch(state: Path) -> subprocess.Popen:
    # TWIN_WARM names where somebody who needs many worlds keeps this program loaded: `python -m twin --serve PLACE`.
    warm = os.environ.get("TWIN_WARM")
    program = [sys.executable, "-I", "-S", str(Path(__file__).with_name("forkserver.py")), warm] if warm else [sys.executable, "-m", "twin"]
    with (state / "twin.log").open("wb") as log:
        return subprocess.Popen(
            [*program, "--state", str(state)],
            cwd=Path(__file__).parents[1],
            env={name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MOTO_", "HF_"))} | MOTO,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def wait(state: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + PATIENCE
    while not read(state):
        late = time.monotonic() > deadline
        if late or process.poll() is not None:
            end(process.pid, processes.started(process.pid))
            words = f"did not answer within {PATIENCE:.0f} s" if late else f"ended with exit code {process.returncode}"
            last = (state / "twin.log").read_text(errors="replace", encoding="utf-8").strip()[-2000:]
            raise WorldError(f"the emulated world {words}; the end of {state / 'twin.log'}:\n{last}")
        time.sleep(0.02)


def clear(state: Path) -> None:
    """Ends the boxes first, then the server that they talk to, and forgets what lived in the server's memory only."""
    for root in roots(state):
        processes.end(root)
    if (state / "stand-ins").exists():
        machine.clear(state)
    if details := read(state):
        end(details["pid"], details["started"])
    for volatile in ("boxes", "volumes", "snapshots", "stand-ins", "registry"):
        shutil.rmtree(state / volatile, ignore_errors=True)
    for volatile in ("state.json", "start.json", "ssh_config", "mail.jsonl", "webhook.jsonl"):
        (state / volatile).unlink(missing_ok=True)


def end(pid: int, started: float | None) -> None:
    if started is None or not processes.alive(pid, started):
        return
    process = psutil.Process(pid)
    process.terminate()
    try:
        process.wait(5)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(5)


def roots(state: Path) -> list[Path]:
    return sorted((state / "boxes").glob("*/root"))


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """One start or stop at a time in a state folder."""
    with (state / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
