"""The Hub token: read with the job's role into a file on tmpfs that only the trainer's user reads; in no argument and no environment."""

import os
import tempfile
import time
from pathlib import Path

import boto3

from conf.text import secret

TMPFS = Path("/run/fine-tune-slm")  # of the job's definition
AGE = 600  # seconds until it is read again: a token that was replaced in its secret is replaced here while the run goes on


class HubToken:
    def __init__(self, secret_id: str, owner: int | None):
        self.secret_id, self.owner, self.read_at = secret_id, owner, 0.0
        in_memory = TMPFS if TMPFS.is_dir() and os.access(TMPFS, os.W_OK) else Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(prefix="fine-tune-slm-", dir=in_memory if in_memory.is_dir() else None))
        self.path = self.folder / "hub-token"
        if owner is not None:
            self.folder.chmod(0o755)

    def refresh(self) -> None:
        """Read it, unless it was read a moment ago."""
        if self.read_at and time.monotonic() - self.read_at < AGE:
            return
        stored = boto3.client("secretsmanager").get_secret_value(SecretId=self.secret_id)["SecretString"]
        part = self.folder / "part"
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{secret.value(stored)}\n")
        if self.owner is not None:
            os.chown(part, self.owner, self.owner)
        part.replace(self.path)
        self.read_at = time.monotonic()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.folder.rmdir()
