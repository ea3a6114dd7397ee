"""The trainer as a process: of the image's own user, without anything that this one may do at AWS."""

import ctypes
import os
import pwd
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from carrier import files

COMMAND = [sys.executable, "-m", "trainer"]
USER = "trainer"  # of docker/Dockerfile
OURS = ("AWS_", "ECS_", "BUCKET", "PREFIX", "HUB_SECRET")  # variables that the trainer has no use of
NO_NEW_PRIVILEGES = 38  # prctl(2), PR_SET_NO_NEW_PRIVS
LAST_WORDS = 65536  # bytes


def owner() -> int | None:
    """The number of the image's user; None where there is none, or where this process may not become another: the trainer is then the
    same user as the carrier, as on a machine whose containers isolate nothing."""
    if os.geteuid() != 0:
        return None
    with suppress(KeyError):
        return pwd.getpwnam(USER).pw_uid
    return None


class Trainer:
    """A run's trainer. What it prints before its log is open goes into a file of ours."""

    def __init__(self, folder: Path, config_sha256: str, token: Path, user: int | None):
        self.folder = folder
        self.printed = folder.parent / f"{folder.name}.printed"
        environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        environment |= {"HF_TOKEN_PATH": str(token), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        identity: dict[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        with self.printed.open("wb") as output:
            self.process = subprocess.Popen(
                [*COMMAND, "run", str(folder), config_sha256],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
                umask=0o077,
                preexec_fn=_give_up_rights,
                **identity,
            )
        with suppress(OSError):  # where memory is full the kernel ends the trainer, and not who has to say so
            Path(f"/proc/{self.process.pid}/oom_score_adj").write_text("1000", encoding="ascii")

    @property
    def code(self) -> int | None:
        """How it ended: what it returned, or 128 and the signal that ended it; None while it goes on."""
        code = self.process.poll()
        return 128 - code if code is not None and code < 0 else code

    def stop(self, seconds: float) -> None:
        """It may write a checkpoint first."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        self.end()

    def end(self) -> None:
        """Nothing of it is left."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def last_words(self) -> bytes:
        said = files.take(self.printed.parent, self.printed.name, LAST_WORDS, max(0, self.printed.stat().st_size - LAST_WORDS))
        return said or b""

    def remove(self) -> None:
        self.printed.unlink(missing_ok=True)


def _give_up_rights() -> None:
    """In the new process: no program gives it more rights."""
    ctypes.CDLL(None).prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
