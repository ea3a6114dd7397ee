"""Containers of the stand-in docker: a process in its own session, a shim that waits for it, a folder that remembers both."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from images import ROOT, layer_folder
from words import Failure, now, write

CONTAINERS = ROOT / "var/lib/docker/containers"
CONTAINER_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Container:
    """A folder with config.json, state.json and log; its shim keeps the state true while it runs."""

    def __init__(self, name: str):
        self.folder = CONTAINERS / name
        if not (self.folder / "config.json").exists():
            raise Failure(f"Error response from daemon: No such container: {name}")
        self.config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        self.name = name

    @property
    def state(self) -> dict:
        state = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
        if state["Running"] and not self.shim_lives(state["ShimPid"]):
            state |= {"Status": "exited", "Running": False, "ExitCode": 255}  # what docker says after a machine died
        return state

    def shim_lives(self, pid: int) -> bool:
        try:
            os.kill(pid, 0)
            line = Path(f"/proc/{pid}/cmdline")
            return str(self.folder).encode() in line.read_bytes() if line.parent.parent.exists() else True
        except (ProcessLookupError, FileNotFoundError):
            return False

    def document(self) -> dict:
        return self.config | {"State": self.state, "NetworkSettings": {"Networks": {"fine-tune-slm": {"IPAddress": "127.0.0.1"}}}}

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.state["Pid"], number)

    def end_members(self) -> None:
        """No process is left when the main one has ended, as in a PID namespace; /proc shows which have this container's HOSTNAME."""
        mark = f"HOSTNAME={self.config['Id'][:12]}\0".encode()
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # ended, or somebody else's
                if mark in path.read_bytes():
                    os.kill(int(path.parent.name), signal.SIGKILL)

    def wait(self, seconds: float = float("inf")) -> bool:
        deadline = time.monotonic() + seconds
        while self.state["Running"] and time.monotonic() < deadline:
            time.sleep(0.05)
        return not self.state["Running"]


def create(options: dict, image: dict, reference: str, words: list[str]) -> Container:
    """A container that has not started; making its folder is what claims the name."""
    identifier = os.urandom(32).hex()
    name = options.get("--name", [f"container-{identifier[:8]}"])[-1]
    if not re.fullmatch(r"[a-zA-Z0-9][\w.-]*", name):
        what = f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        raise Failure(f"docker: Error response from daemon: {what}", 125)
    folder = CONTAINERS / name
    CONTAINERS.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir()
    except FileExistsError:
        what = f'Conflict. The container name "/{name}" is already in use by container "{Container(name).config["Id"]}".'
        mend = "You have to remove (or rename) that container to be able to reuse that name."
        raise Failure(f"docker: Error response from daemon: {what} {mend}\n\nRun 'docker run --help' for more information", 125) from None
    (folder / "log").touch()
    state = {"Status": "created", "Running": False, "Pid": 0, "ShimPid": 0, "ExitCode": 0, "Error": "", "OOMKilled": False}
    write(folder / "state.json", state | {"StartedAt": "0001-01-01T00:00:00Z", "FinishedAt": "0001-01-01T00:00:00Z"})
    about = {"Id": identifier, "Name": f"/{name}", "Created": now(), "Image": image["Id"], "LogPath": str(folder / "log")}
    host = {"AutoRemove": "--rm" in options, "StopTimeout": int(options.get("--stop-timeout", ["10"])[-1])}
    host["DeviceRequests"] = [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}] if "--gpus" in options else []
    host["Devices"] = [{"PathOnHost": one, "PathInContainer": one, "CgroupPermissions": "rwm"} for one in options.get("--device", [])]
    write(folder / "config.json", about | {"HostConfig": host, "Config": settings(options, image, identifier, reference, words)})
    return Container(name)


def settings(options: dict, image: dict, identifier: str, reference: str, words: list[str]) -> dict:
    own, files = image["Config"], [str(layer_folder(one)) for one in image["RootFS"]["Layers"]]
    environment = {"PATH": CONTAINER_PATH, "HOSTNAME": identifier[:12], "HOME": str(ROOT / "root")}
    environment |= {key: path_in_box(value, files) for key, _, value in (pair.partition("=") for pair in own["Env"])}
    for pair in options.get("--env", []):
        key, equals, value = pair.partition("=")
        if equals or key in os.environ:
            environment[key] = value if equals else os.environ[key]
    return {
        "Image": reference,
        "Labels": dict(label.partition("=")[::2] for label in options.get("--label", [])),
        "Env": [f"{key}={value}" for key, value in environment.items()],
        "User": options.get("--user", [""])[-1],  # shown, not followed: all of a box runs as the user who started the emulation
        "Entrypoint": entrypoint(options, own["Entrypoint"], files),
        "Cmd": words,
        "WorkingDir": options.get("--workdir", [f"{files[0]}{own['WorkingDir']}" if files else own["WorkingDir"]])[-1],
    }


def entrypoint(options: dict, own: list[str], files: list[str]) -> list[str]:
    if override := options.get("--entrypoint"):
        # What NVIDIA's toolkit puts into a container that is given a GPU.
        return [shutil.which("nvidia-smi")] if override[-1] == "nvidia-smi" and "--gpus" in options else [override[-1]]
    return [sys.executable if files and word == "python" else word for word in own[:1]] + own[1:]


def path_in_box(value: str, files: list[str]) -> str:
    """A path that an image with files of its own names is one of the box; those of a registered command are meant as they are."""
    return f"{ROOT}{value}" if files and re.fullmatch(r"/[^:]*", value) else value


def begin(container: Container, **streams) -> subprocess.Popen | None:
    """The container's main process with its environment and nothing else, its devices given anew; None when it cannot be executed."""
    config = container.config["Config"]
    environment = dict(pair.partition("=")[::2] for pair in config["Env"]) | {"BOX_ROOT": str(ROOT)}
    (container.folder / "gpu-lost").unlink(missing_ok=True)
    words, directory = config["Entrypoint"] + config["Cmd"], config["WorkingDir"] or ROOT
    try:
        process = subprocess.Popen(words, cwd=directory, env=environment, start_new_session=True, **streams)
    except OSError as error:
        change(container, Status="exited", ExitCode=127, Error=f"exec: {error}", FinishedAt=now())
        return None
    change(container, Status="running", Running=True, Pid=process.pid, ShimPid=os.getpid(), StartedAt=now())
    return process


def finish(container: Container, process: subprocess.Popen) -> int:
    code = process.wait()
    code = code if code >= 0 else 128 - code
    container.end_members()
    if container.config["HostConfig"]["AutoRemove"]:
        erase(container)
    else:
        change(container, Status="exited", Running=False, Pid=0, ExitCode=code, FinishedAt=now())
    return code


def start_detached(container: Container, program: Path) -> None:
    """The container runs, waited for by a shim that outlives this command."""
    shim = [sys.executable, "-E", "-s", "-S", str(program), "--shim", str(container.folder)]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.Popen(shim, start_new_session=True, env={"BOX_ROOT": str(ROOT), "PATH": CONTAINER_PATH}, **quiet)
    while (state := container.state)["Status"] == "created":
        time.sleep(0.01)
    fail_unless_started(state)


def fail_unless_started(state: dict) -> None:
    if state["Error"]:
        raise Failure(f"docker: Error response from daemon: failed to create task for container: {state['Error']}", 127)


def shim(folder: str) -> None:
    """Outlives the command that started it: waits for the container and writes down how it ended."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # at a shutdown, too, the container's end is recorded
    container = Container(Path(folder).name)
    with (container.folder / "log").open("ab") as log:
        process = begin(
            container, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL)
        )
    if process:
        finish(container, process)


def foreground(container: Container, interactive: bool) -> int:
    process = begin(container, stdin=None if interactive else subprocess.DEVNULL)
    fail_unless_started(container.state)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: process.send_signal(number))
    return finish(container, process)


def erase(container: Container) -> None:
    for path in container.folder.iterdir():
        path.unlink()
    container.folder.rmdir()


def change(container: Container, **fields) -> None:
    write(container.folder / "state.json", json.loads((container.folder / "state.json").read_text(encoding="utf-8")) | fields)
