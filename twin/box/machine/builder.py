"""Builds images with a docker daemon of its own, which keeps its layers from one time to the next and listens on no port."""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from twin.box.machine import debian, prerequisites, requirements_lock

PATIENCE = 60.0  # seconds until the daemon answers
LAYERS = "5GB"  # of build steps are kept: one image and the stages that it comes from take 3.4
CPU_TORCH = "https://download.pytorch.org/whl/cpu"  # plain torch brings gigabytes of CUDA


class Builder:
    def __init__(self, cache: Path, socket: Path):
        self.cache = cache
        self.environment = os.environ | {"PATH": prerequisites.SYSTEM_PATH, "DOCKER_HOST": f"unix://{socket}", "DOCKER_BUILDKIT": "1"}
        self.environment["DOCKER_CONFIG"] = str(socket.parent)  # nobody's own logins

    def docker(self, *words: str, check: bool = True, text: str | None = None, **options) -> subprocess.CompletedProcess:
        command = [prerequisites.program("docker"), *words]
        input_options = {"input": text} if text is not None else {"stdin": options.pop("stdin", subprocess.DEVNULL)}
        done = subprocess.run(
            command, env=self.environment, encoding="utf-8", errors="replace", capture_output=True, **input_options, **options
        )
        if check and done.returncode:
            raise RuntimeError(f"docker {words[0]} failed:\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
        return done

    def build(self, context: Path, dockerfile: Path, requirements: Path, locked: Path, tag: str) -> None:
        """The image of a Dockerfile that takes BASE and WHEELS, made without any registry: on a Debian of ours, from wheels."""
        base = self.imported(debian.base(self.cache))
        wheels = self.imported(wheelhouse(self.cache, requirements, locked))
        arguments = ["--build-arg", f"BASE={base}", "--build-arg", f"WHEELS={wheels}", "--network", "host"]
        self.docker("build", *arguments, "--file", str(dockerfile), "--tag", tag, str(context))
        self.prune({base, wheels, tag})

    def push(self, image: str, login: str) -> None:
        """The image is in its registry; `login` is user and password as ECR hands them out. Here it is forgotten: its steps stay."""
        user, _, password = base64.b64decode(login).decode().partition(":")
        self.docker("login", "--username", user, "--password-stdin", image.partition("/")[0], text=password)
        self.docker("push", "--quiet", image)
        self.docker("image", "rm", image)

    def imported(self, folder: Path) -> str:
        """The name of an image that holds a folder's files."""
        name = f"{folder.name}:local"
        if self.docker("image", "inspect", name, check=False).returncode:
            with subprocess.Popen(["tar", "-C", str(folder), "-c", "."], stdout=subprocess.PIPE) as tar:
                self.docker("import", "-", name, stdin=tar.stdout)
        return name

    def prune(self, keep: set[str]) -> None:
        """Only what the next build begins with is left."""
        listed = self.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
        for name in {name for name in listed if "<none>" not in name} - keep:
            self.docker("image", "rm", "--force", name)
        self.docker("image", "prune", "--force")
        self.docker("builder", "prune", "--all", "--force", "--keep-storage", LAYERS)


@contextmanager
def running(cache: Path) -> Iterator[Builder]:
    """A builder whose daemon runs until the end; one at a time."""
    cache = cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    # A socket's name has 107 characters at most.
    run = Path(tempfile.gettempdir()) / f"builder-{hashlib.sha256(bytes(cache)).hexdigest()[:8]}"
    with debian.locked(cache / "builder"):
        clear(run)
        run.mkdir(mode=0o700)
        daemon = start(cache, run)
        try:
            builder = Builder(cache, run / "docker.sock")
            wait(builder, daemon, cache / "builder.log")
            yield builder
        finally:
            daemon.terminate()
            daemon.wait()
            clear(run)


def clear(run: Path) -> None:
    """Nothing is left of a daemon, not even of one whose builder was killed: it ends by itself, and may not have ended yet."""
    with suppress(FileNotFoundError, ValueError, psutil.NoSuchProcess):
        psutil.Process(int((run / "pid").read_text(encoding="utf-8"))).wait(PATIENCE)
    shutil.rmtree(run, ignore_errors=True)


def start(cache: Path, run: Path) -> subprocess.Popen:
    places = ["--data-root", cache / "docker", "--exec-root", run / "exec", "--pidfile", run / "pid", "--host", f"unix://{run}/docker.sock"]
    # No bridge and no iptables: the network of this machine stays as it is.
    # Its mounts are in a namespace of its own and end with it, and it ends with the builder.
    words = [
        "unshare",
        "--mount",
        "setpriv",
        "--pdeathsig",
        "TERM",
        prerequisites.program("dockerd"),
        *map(str, places),
        "--bridge=none",
        "--iptables=false",
        "--ip-masq=false",
    ]
    with (cache / "builder.log").open("wb") as log:
        environment = os.environ | {"PATH": prerequisites.SYSTEM_PATH}
        return subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def wait(builder: Builder, daemon: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while builder.docker("info", check=False).returncode:
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"dockerd does not answer:\n{log.read_text(errors='replace', encoding='utf-8')[-2000:]}")
        time.sleep(0.2)


def wheelhouse(cache: Path, requirements: Path, locked: Path) -> Path:
    """A folder with the wheels of all requirements, for the Python that runs this; it is kept while they stay the same."""
    content = requirements.read_bytes() + locked.read_bytes() + sys.version.split()[0].rpartition(".")[0].encode()
    return debian.made_once(cache / f"wheels-{hashlib.sha256(content).hexdigest()[:12]}", lambda part: fetch(part, requirements, locked))


def fetch(part: Path, requirements: Path, locked: Path) -> None:
    """What has hashes is held against them; torch, which has none, is held by its version, and may be one that was built here."""
    torch = next(line for line in requirements.read_text(encoding="utf-8").splitlines() if line.startswith("torch=="))
    into = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(part)]
    subprocess.run([*into, "--no-deps", "--retries", "0", "--timeout", "5", "--index-url", CPU_TORCH, torch], capture_output=True)
    made(*into, "--no-deps", "--require-hashes", "-r", str(locked))
    made(*into, "--find-links", str(part), "-c", "/dev/stdin", torch, text=requirements_lock.versions(locked))


def made(*command: str, text: str = "") -> None:
    done = subprocess.run(command, input=text, encoding="utf-8", errors="replace", capture_output=True)
    if done.returncode:
        raise RuntimeError(f"pip cannot make the wheels:\n{done.stderr[-2000:]}")
