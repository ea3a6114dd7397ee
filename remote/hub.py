"""Publishing from the laptop: S3 to the Hub, with a token that is read when it is needed and kept nowhere."""

import json
from collections.abc import Callable
from pathlib import Path

from conf import schema, secret
from conf.problem import Problem
from remote.aws import Aws
from remote.store import Store

TOKENS = "https://huggingface.co/settings/tokens"


def token(aws: Aws) -> str:
    """The Hub token, from the secret that `cloud.hub_secret` names."""
    name = aws.cloud.hub_secret
    try:
        found = aws.secret(name)
    except aws.client("secretsmanager").exceptions.ResourceNotFoundException:  # also a secret that has no value yet
        found = ""
    if not found:
        hint = f"`inv init --token FILE` puts one there; {TOKENS} makes one, of the role `write`"
        raise Problem(f"there is no Hub token in the secret `{name}`", hint, reason="refused")
    if not secret.is_token(found):
        what = f"what the secret `{name}` holds is no Hub token: it is more than a word, or has letters that no token has"
        raise Problem(what, "`inv init --token FILE` puts one there", reason="refused")
    return found


def publish(
    aws: Aws, upload: Callable[..., dict], run_id: str, folder: Path, settings: schema.Publish, endpoint: str | None, say: Callable
) -> dict:
    """Upload the adapter and its card to the Hub, download it again, compare every hash."""
    repository = settings.repository or aws.cloud.hub_repository
    record = upload(folder, repository, settings.private, endpoint, token(aws), say, settings.merged)
    store, name = Store(aws), f"runs/{run_id}/published.json"
    before = json.loads(store.get(name) or "{}")
    if _timeless(before) == _timeless(record):
        return before  # it was published then, not now
    store.put(name, json.dumps(record, indent=2).encode())
    return record


def _timeless(record: dict) -> dict:
    kept = {key: value for key, value in record.items() if key != "published_at"}
    return kept | {key: _timeless(value) for key, value in kept.items() if isinstance(value, dict)}
