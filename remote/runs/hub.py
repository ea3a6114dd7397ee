"""Publishing from the laptop: S3 to the Hub, with a token that is read when it is needed and kept nowhere."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from conf import schema
from conf.problem import Problem
from conf.text import quoting, secret
from remote.aws.s3 import Store
from remote.aws.session import Aws

TOKENS = "https://huggingface.co/settings/tokens"


def token(aws: Aws) -> str:
    """The Hub token, from the secret that `cloud.hub_secret` names."""
    name = aws.cloud.hub_secret
    try:
        value = aws.secret(name)
    except aws.client("secretsmanager").exceptions.ResourceNotFoundException:  # also a secret that has no value yet
        value = ""
    if not value:
        hint = f"`inv init --token FILE` puts one there; {TOKENS} makes one, of the role `write`"
        raise Problem(f"there is no Hub token in the secret `{name}`", hint, reason="refused")
    if not secret.is_token(value):
        what = f"what the secret `{name}` holds is no Hub token: it is more than the token itself, or has letters that no token has"
        raise Problem(what, "`inv init --token FILE` puts one there", reason="refused")
    return value


class Upload(Protocol):
    """Puts a finished run's folder on the Hub, and answers the record of what is there."""

    def __call__(
        self,
        folder: Path,
        repository: str,
        private: bool,
        endpoint: str | None,
        token: str,
        say: Callable[[str], None],
        merged: bool = False,
        gguf: str | None = None,
    ) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Published:
    url: str
    record: dict[str, Any]


def publish(
    aws: Aws, upload: Upload, run_id: str, folder: Path, run: schema.Run, endpoint: str | None, say: Callable[[str], None]
) -> Published:
    """Upload the adapter and its card to the Hub, download it again, compare every hash."""
    repository = _repository(aws, run, run_id, json.loads((folder / "manifest.json").read_text(encoding="utf-8")))
    gguf = run.publish.gguf and run.publish.gguf.value
    record = upload(folder, repository, run.publish.private, endpoint, token(aws), say, run.publish.merged, gguf)
    store, name = Store(aws), f"runs/{run_id}/published.json"
    before = store.json(name) or {}
    if _without_time(before) == _without_time(record):
        return Published(before["url"], before)  # it was published then, not now
    store.put(name, json.dumps(record, indent=2).encode())
    return Published(record["url"], record)


def _repository(aws: Aws, run: schema.Run, run_id: str, stated: dict) -> str:
    """Where the caller's own settings put a run; a Problem where the run says that it is none of these settings."""
    if stated["kind"] != run.kind.value:
        what = f"run {run_id} is a {stated['kind']} run, and these settings are those of a {run.kind.value} one"
        raise Problem(
            what,
            f"say which experiment it is of: `inv publish --run {run_id} -- {quoting.setting('kind', stated['kind'])}`",
            reason="refused",
        )
    named = run.publish.repository or aws.cloud.hub_repository
    if named is None and stated.get("name") != run.name:
        what = f"run {run_id} is called `{stated.get('name')}`, and these settings `{run.name}`: that would be its repository's name"
        hint = f"say where it belongs: `inv publish --run {run_id} -- publish.repository=NAME`"
        raise Problem(what, hint, reason="refused")
    return named or run.name


def _without_time(record: dict) -> dict:
    rest = {key: value for key, value in record.items() if key != "published_at"}
    return rest | {key: _without_time(value) for key, value in rest.items() if isinstance(value, dict)}
