"""What the tests share: a world of their own (never the user's), and the `inv` command as a user types it."""

import json
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import loaded
import pytest
import reads

from conf.text.quoting import quoted

ODD = "a laptop in R&D; O'Brien's $H *ü"  # whatever a shell, a pattern or a locale may make something of
ROOT = Path(__file__).resolve().parent.parent
TINY, SMALL = ROOT / ".cache/models/tiny", ROOT / ".cache/models/smollm2-135m"
# As on a laptop that is logged in to a real account: none of it may ever be used.
HOSTILE = {
    "AWS_PROFILE": "company",
    "AWS_ACCESS_KEY_ID": "AKIAREALACCOUNT00000",
    "AWS_SECRET_ACCESS_KEY": "real-secret",
    "AWS_SESSION_TOKEN": "real-session",
    "AWS_ENDPOINT_URL_S3": "https://s3.example.invalid",
    "HF_TOKEN": "hf_real_token_of_the_user",
    "HF_ENDPOINT": "https://hub.example.invalid",
    "ALL_PROXY": "socks5://127.0.0.1:9",
    "http_proxy": "socks5://127.0.0.1:9",
}


def pytest_configure(config):
    """A shell without job control starts what it puts behind itself deaf to Ctrl-C, and what that starts is deaf too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["OMP_NUM_THREADS"] = "1"  # tests run beside each other: more threads would wait for cores that others have
    loaded.descriptions()
    loaded.settings()
    loaded.folder()  # before xdist starts its workers
    if config.args_source is config.ArgsSource.TESTPATHS and config.getoption("tx", None) and not hasattr(config, "workerinput"):
        with ThreadPoolExecutor() as pool:  # all that so many tests start: on every core while there are no workers yet
            worker, *_ = [pool.submit(one) for one in (loaded.worker, loaded.trainer, loaded.worlds, loaded.inv, loaded.aws)]
        config.option.tx = [worker.result()] * len(config.option.tx)
    if "READS" in os.environ:
        reads.install()


class Laptop:
    """Runs `inv` in a world of its own, in an environment full of real credentials."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.state = folder / "world"

    def words(self, *overrides: str, experiment: str = "smoke") -> list[str]:
        return [
            "--",
            "cloud=twin",
            f"cloud.state={quoted(self.state)}",
            f"runs={quoted(self.folder / 'runs')}",
            f"experiment={experiment}",
            *overrides,
        ]

    def command(self, *verbs: str, overrides: tuple[str, ...] = ()) -> list[str]:
        return [*loaded.inv(), *verbs, *self.words(*overrides)]

    def inv(self, *verbs: str, overrides: tuple[str, ...] = (), ok: bool = True, timeout: int = 1800) -> subprocess.CompletedProcess:
        if "twin.start" in verbs:
            loaded.worlds()
        done = subprocess.run(
            self.command(*verbs, overrides=overrides),
            cwd=ROOT,
            env=os.environ | HOSTILE,
            text=True,
            capture_output=True,
            timeout=timeout,
        )
        if ok:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    def popen(self, *verbs: str, overrides: tuple[str, ...] = ()) -> subprocess.Popen:
        return subprocess.Popen(
            self.command(*verbs, overrides=overrides),
            cwd=ROOT,
            env=os.environ | HOSTILE,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def journal(self) -> list[dict]:
        return [json.loads(line) for line in (self.state / "journal.jsonl").read_text().splitlines()]

    @property
    def environment(self) -> dict[str, str]:
        """The environment that `inv twin.env` prints, on top of this process's own."""
        from twin import world

        merged = os.environ | world.environment(self.state)
        return {name: value for name, value in merged.items() if value is not None}

    def client(self, service: str):
        from twin import world

        return world.client(self.state, service)

    def aws(self, *words: str) -> str:
        """What the unmodified AWS CLI answers with the exports of `inv twin.env`."""
        return subprocess.run([*loaded.aws(), *words], env=self.environment, text=True, capture_output=True, check=True).stdout

    def objects(self) -> list[str]:
        pages = self.client("s3").get_paginator("list_objects_v2").paginate(Bucket="fine-tune-slm")
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def object(self, key: str) -> bytes:
        return self.client("s3").get_object(Bucket="fine-tune-slm", Key=key)["Body"].read()


@pytest.fixture(scope="session")
def sshd():
    """Nothing but that it is there; who is not root can use it, too."""
    from machine import lacking

    from twin.box.machine import prerequisites

    if not prerequisites.program("sshd"):
        lacking("it needs Debian's openssh-server: apt-get install --no-install-recommends openssh-server")


@pytest.fixture(scope="module")
def laptop(tmp_path_factory):
    """A laptop whose world runs; it ends with the module."""
    from twin import world

    made = Laptop(tmp_path_factory.mktemp(ODD))
    made.inv("twin.start")
    yield made
    world.stop(made.state)
