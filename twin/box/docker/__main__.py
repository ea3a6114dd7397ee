"""Stands for docker in a box of the process grade: same commands, exit codes and messages, no isolation.

An image is a command that its config names, and the files that were copied into it; a container is a process in a session of its
own with the environment that docker would give it. Whatever real docker has and this has not is refused, so that no script relies
on it unnoticed.
The box's launcher runs this folder with the standard library alone; its modules therefore import each other by plain names.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from build import build
from containers import CONTAINERS, Container, create, erase, foreground, shim, start_detached
from images import ROOT, image, image_or_pull, login, pull, push
from words import Failure, fill, parse, show, single, write

ABOUT = {
    "ServerVersion": "29.0.2",
    "OSType": "linux",
    "Architecture": "x86_64",
    "Driver": "overlayfs",
    "Runtimes": {"nvidia": {}, "runc": {}},
}
RUN_FLAGS = "--detach --rm --interactive --read-only"
RUN_VALUES = (
    "--name --gpus --network --ipc --shm-size --restart --label --user --workdir --env --volume --tmpfs --stop-timeout --entrypoint"
)
RUN_VALUES += " --log-driver --log-opt --cap-drop --security-opt --device --userns --memory --memory-swap --pids-limit --ulimit"
NETWORKS = ROOT / "var/lib/docker/networks"
ONLY = {
    "--gpus": ["all"],
    "--ipc": ["host"],
    "--userns": ["host"],
    "--restart": ["no"],
    "--log-driver": ["json-file", "local"],
    "--cap-drop": ["ALL"],
}


def run(arguments: list[str]) -> None:
    options, rest = parse(arguments, RUN_FLAGS, RUN_VALUES)
    for name, allowed in ONLY.items():
        if set(options.get(name, [])) - set(allowed):
            raise Failure(f"docker: this emulated docker knows {name} {' or '.join(allowed)} only", 125)
    if not rest:
        raise Failure("docker: 'docker run' requires at least 1 argument", 125)
    reference, *words = rest
    check_network(options)
    check_volumes(options)
    check_devices(options)
    container = create(options, image_or_pull(reference), reference, words)
    if "--detach" not in options:
        sys.exit(foreground(container, "--interactive" in options))
    start_detached(container, Path(__file__).parent)
    print(container.config["Id"])


def check_network(options: dict) -> None:
    """It must exist; all of them are this machine's own network."""
    for name in options.get("--network", []):
        if name not in ("bridge", "host", "none") and not (NETWORKS / name).exists():
            raise Failure(f"docker: Error response from daemon: network {name} not found", 125)


def network(arguments: list[str]) -> None:
    verb, *arguments = arguments or [""]
    if verb not in ("create", "inspect"):
        raise Failure(f"this emulated docker has no `docker network {verb}`")
    _, rest = parse(arguments, "", "--driver --opt" if verb == "create" else "")
    place = NETWORKS / single(rest)
    if verb == "create" and place.exists():
        raise Failure(f"Error response from daemon: network with name {place.name} already exists")
    if verb == "inspect" and not place.exists():
        raise Failure(f"[]\nError response from daemon: network {place.name} not found")
    place.mkdir(parents=True, exist_ok=True)
    print(place.name if verb == "create" else json.dumps([{"Name": place.name, "Driver": "bridge"}]))


def check_volumes(options: dict) -> None:
    for volume in options.get("--volume", []):
        here, _, there = volume.partition(":")
        if there.removesuffix(":ro").removesuffix(":rw") != here:
            raise Failure(f"docker: this emulated docker has no files of its own: both sides of --volume must be equal, not {volume}", 125)
        if not Path(here).exists():
            Path(here).mkdir(parents=True)  # as docker does
    for path in (place.partition(":")[0] for place in options.get("--tmpfs", [])):
        if not Path(path).is_dir() and not path.startswith(f"{ROOT}/"):
            raise Failure(f"docker: this emulated docker cannot make a tmpfs at {path}; use a folder of the box", 125)
        Path(path).mkdir(parents=True, exist_ok=True)


def check_devices(options: dict) -> None:
    for device in options.get("--device", []):
        if not Path(device).is_char_device():
            what = f'error gathering device information while adding custom device "{device}": no such file or directory'
            raise Failure(f"docker: Error response from daemon: {what}", 125)


def ps(arguments: list[str]) -> None:
    options, _ = parse(arguments, "--all --quiet --no-trunc", "--filter --format")
    for condition in options.get("--filter", []):
        if condition.partition("=")[0] not in ("name", "label", "status"):
            raise Failure(f"Error response from daemon: invalid filter '{condition}'")
    plain = "{{.ID}}\t{{.Image}}\t{{.Status}}\t{{.Names}}"
    template = "{{.ID}}" if "--quiet" in options else options.get("--format", [plain])[-1]
    if template == plain:
        print("CONTAINER ID\tIMAGE\tSTATUS\tNAMES")
    for path in sorted(CONTAINERS.glob("*/config.json")):
        container = Container(path.parent.name)
        state = container.state
        if ("--all" in options or state["Running"]) and all(matches(container, state, one) for one in options.get("--filter", [])):
            print(fill(template, row(container, state, "--no-trunc" in options)))


def row(container: Container, state: dict, whole: bool) -> dict:
    status = "Up" if state["Running"] else f"Exited ({state['ExitCode']})"
    identifier = container.config["Id"] if whole else container.config["Id"][:12]
    image = container.config["Config"]["Image"]
    return {"ID": identifier, "Image": image, "Names": container.name, "State": state["Status"], "Status": status}


def matches(container: Container, state: dict, condition: str) -> bool:
    kind, _, wanted = condition.partition("=")
    if kind == "name":
        return any(re.search(wanted, name) for name in (container.name, f"/{container.name}"))
    if kind == "label":
        key, equals, value = wanted.partition("=")
        labels = container.config["Config"]["Labels"]
        return key in labels and (not equals or labels[key] == value)
    return state["Status"] == wanted


def inspect(arguments: list[str]) -> None:
    options, rest = parse(arguments, "", "--format")
    name = single(rest)
    if not (CONTAINERS / name / "config.json").exists():
        raise Failure(f"[]\nError: No such object: {name}")
    show(Container(name).document(), options)


def logs(arguments: list[str]) -> None:
    """Both streams come on stdout, in the order they were written."""
    follow = [word for word in arguments if word in ("--follow", "-f")]
    options, rest = parse([word for word in arguments if word not in follow], "", "--tail")
    container, tail = Container(single(rest)), options.get("--tail", ["all"])[-1]
    with (container.folder / "log").open("rb") as log:
        if tail != "all":
            lines = log.read().splitlines(keepends=True)
            log.seek(sum(map(len, lines[: max(len(lines) - int(tail), 0)])))
        while True:
            running = container.state["Running"]
            while piece := log.read(65536):
                os.write(1, piece)
            if not follow or not running:
                return
            time.sleep(0.1)


def start(arguments: list[str]) -> None:
    _, rest = parse(arguments, "", "")
    container = Container(single(rest))
    if not container.state["Running"]:
        write(container.folder / "state.json", container.state | {"Status": "created", "Error": ""})
        start_detached(container, Path(__file__).parent)
    print(container.name)


def stop(arguments: list[str]) -> None:
    options, rest = parse(arguments, "", "--time --timeout")
    container = Container(single(rest))
    chosen = options.get("--time", options.get("--timeout", [container.config["HostConfig"]["StopTimeout"]]))
    if container.state["Running"]:
        container.send(signal.SIGTERM)
        if not container.wait(float(chosen[-1])):
            container.send(signal.SIGKILL)
            container.wait()
    print(container.name)


def kill(arguments: list[str]) -> None:
    options, rest = parse(arguments, "", "--signal")
    container = Container(single(rest))
    if not container.state["Running"]:
        raise Failure(f"Error response from daemon: cannot kill container: {container.name}: container is not running")
    wanted = options.get("--signal", ["KILL"])[-1]
    container.send(int(wanted) if wanted.isdigit() else signal.Signals["SIG" + wanted.removeprefix("SIG")])
    print(container.name)


def rm(arguments: list[str]) -> None:
    options, rest = parse(arguments, "--force")
    if "--force" in options and not (CONTAINERS / single(rest)).exists():
        print(f"Error response from daemon: No such container: {rest[0]}", file=sys.stderr)
        return  # with --force that is no failure
    container = Container(single(rest))
    if container.state["Running"]:
        if "--force" not in options:
            what = "container is running: stop the container before removing or force remove"
            raise Failure(f'Error response from daemon: cannot remove container "/{container.name}": {what}')
        container.send(signal.SIGKILL)
        container.wait()
    erase(container)
    print(container.name)


def execute(arguments: list[str]) -> None:
    """A program of the box with the container's environment: what is asked of its GPU has the container's answer."""
    _, (name, *words) = parse(arguments, "", "")
    container = Container(name)
    if not container.state["Running"]:
        raise Failure(f"Error response from daemon: container {container.config['Id']} is not running")
    if words[0] == "nvidia-smi" and (container.folder / "gpu-lost").exists():
        raise Failure("Failed to initialize NVML: Unknown Error", 255)
    environment = dict(pair.partition("=")[::2] for pair in container.config["Config"]["Env"]) | {"BOX_ROOT": str(ROOT)}
    sys.exit(subprocess.run(words, env=environment | {"PATH": os.environ["PATH"]}, stdin=subprocess.DEVNULL, check=False).returncode)


def wait(arguments: list[str]) -> None:
    container = Container(single(parse(arguments)[1]))
    container.wait()
    print(container.state["ExitCode"])


def info(arguments: list[str]) -> None:
    options, _ = parse(arguments, "", "--format")
    print(fill(options["--format"][-1], ABOUT) if "--format" in options else f"Server:\n Server Version: {ABOUT['ServerVersion']}")


VERBS = {
    "login": login,
    "pull": pull,
    "image": image,
    "run": run,
    "ps": ps,
    "inspect": inspect,
    "logs": logs,
    "start": start,
    "stop": stop,
    "kill": kill,
}
VERBS |= {"network": network, "exec": execute, "rm": rm, "wait": wait, "info": info, "build": build, "push": push}


def apply_faults(verb: str, arguments: list[str]) -> None:
    """The faults of this box, which are files beside its root."""
    faults = ROOT.parent / "faults"
    if (faults / "disk-cold").exists():
        time.sleep(max(0, float((faults / "disk-cold").read_text(encoding="utf-8")) - time.time()))
    if (faults / "docker-slow").exists():
        time.sleep(float((faults / "docker-slow").read_text(encoding="utf-8")))
    if (faults / "docker-dead").exists():
        raise Failure("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?")
    if verb == "run" and "--gpus" in arguments and (faults / "gpu-missing").exists():
        raise Failure('docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]]', 125)


def main() -> None:
    verb, *arguments = sys.argv[1:] or [""]
    if verb != "--shim":
        apply_faults(verb, arguments)
    if verb == "--shim":
        shim(*arguments)
    elif verb in VERBS:
        VERBS[verb](arguments)
    else:
        raise Failure(f"docker: '{verb}' is not a docker command.\nthis emulated docker knows: {' '.join(VERBS)}")


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        print(failure, file=sys.stderr)
        sys.exit(failure.code)
