"""A sealed run on the Hub: private unless asked otherwise, one commit, tagged with the run's id, read back and compared.

What is published is a closed list: of the adapter folder the files that PEFT and transformers load (`ADAPTER`), of a merged
model those that transformers, llama.cpp and Ollama load (`MERGED`), the card as README.md, and metrics.json. The rest stays: optimizer
states and checkpoints; predictions, report and log, which hold rows of the user's data; config.yaml and manifest.json, which name
folders, buckets and accounts. The card shows what of them may be public.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from conf.problem import Problem
from trainer.hub import permissions
from trainer.hub_errors import HUB, NEW_TOKEN, explained
from trainer.record import card, record

ADAPTER = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "chat_template.jinja",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
TOKENIZER = ADAPTER[2:]
GGUF = ("model-f16.gguf", "model-q8_0.gguf", "Modelfile")
MERGED = (*GGUF, "config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json", *TOKENIZER)
SHARDS = re.compile(r"model-\d+-of-\d+\.safetensors")
OURS = (*ADAPTER, *MERGED, "README.md", "metrics.json")

Say = Callable[[str], None]


def publish(
    folder: Path,
    repository: str,
    private: bool,
    endpoint: str | None,
    token: str,
    say: Say,
    merged: bool = False,
    gguf: str | None = None,
) -> dict:
    """Where the run is on the Hub, with the sha256 of every file as the Hub gave it back. Doing it again changes nothing.

    A `repository` without an owner is the token's.
    With `merged`, the merged model goes to `<repository>-merged`, and its place is under "merged"; `gguf` is the form of the GGUF file
    that is to be with it.
    """
    with record.readable(folder):
        run = record.verify(folder, without=() if merged else ("merged/",))
        kind = run["kind"]
        if not isinstance(kind, str) or not isinstance(run["run_id"], str):
            raise TypeError("kind and run_id are texts")
    if not token:  # huggingface_hub would use any login on this machine instead
        raise Problem("there is no token for the Hub", NEW_TOKEN, "refused")
    hub = HfApi(endpoint=endpoint, token=token)
    with explained(repository if "/" in repository else "your account", endpoint):
        repository = permissions.repository_id(repository, "", kind, "" if "/" in repository else hub.whoami()["name"])
    with record.readable(folder):
        contents = {repository: _adapter_files(folder, repository, run)}
        if merged:
            contents[f"{repository}-merged"] = _merged_files(folder, repository, run, gguf, say)
    private = _private(run, private, say)
    done = [_publish_files(hub, name, content, run, private, endpoint, say) for name, content in contents.items()]
    return done[0] | ({"merged": done[1]} if merged else {})


def _publish_files(hub: HfApi, repository: str, content: dict, run: dict, private: bool, endpoint: str | None, say: Say) -> dict:
    """Put the files into the repository, tagged with the run's id, and compare what the Hub gives back."""
    hashes = {name: hashlib.sha256(data).hexdigest() if isinstance(data, bytes) else record.digest(data) for name, data in content.items()}
    with explained(repository, endpoint):
        private = _open_repository(hub, repository, private, say)
        tagged = _tagged_commit(hub, repository, run["run_id"])
        say(f"{repository} has the tag {run['run_id']} already" if tagged else f"uploading {len(content)} files to {repository}")
        revision = tagged or _upload(hub, repository, run["run_id"], content)
        _verify_upload(hub, repository, revision, hashes)
        if not tagged:
            # Only what was read back gets the tag: an interrupted publish resumes when it is repeated.
            hub.create_tag(repository, tag=run["run_id"], revision=revision)
    say(f"downloaded {repository} again: all {len(hashes)} files are those of the run")
    where = {"repository": repository, "url": f"{(endpoint or HUB).rstrip('/')}/{repository}", "revision": revision, "tag": run["run_id"]}
    return {**where, "private": private, "files": hashes, "published_at": record.now(), "verified": True}


def _private(run: dict, private: bool, say: Say) -> bool:
    if run["kind"] == "smoke" and not private:
        say("a smoke run is published privately, whatever is asked")
        return True
    return private


def _adapter_files(folder: Path, repository: str, run: dict) -> dict[str, Path | bytes]:
    """What will be published: name in the repository -> file or text."""
    adapter = {path.name: path for path in (folder / name for name in run["files"]) if path.parent == folder / "adapter"}
    chosen = {name: path for name, path in adapter.items() if name in ADAPTER}
    missing = [name for name in ("adapter_config.json", "adapter_model.safetensors") if name not in chosen]
    if missing:
        raise Problem(
            f"run {folder.name} has no adapter/{missing[0]}", "publish a run that exported its adapter: `inv publish --run RUN`", "refused"
        )
    base, trained = json.loads(chosen["adapter_config.json"].read_text(encoding="utf-8"))["base_model_name_or_path"], run["model"]
    if trained["revision"] is None:
        what = f"run {folder.name} was trained on {trained['id']}, which is not on the Hub: others could not load its adapter"
        raise Problem(what, "train again on a model of the Hub: `model.id=OWNER/NAME`", "refused")
    if base != trained["id"]:
        what = f"the adapter of run {folder.name} names the base model {base}, and the run trained {trained['id']}"
        raise Problem(what, "train again with `inv train`", "damaged_run")
    return {**chosen, "metrics.json": folder / "metrics.json", "README.md": card.render(folder, repository).encode()}


def _merged_files(folder: Path, repository: str, run: dict, gguf: str | None, say: Say) -> dict[str, Path | bytes]:
    """What will be published of the merged model."""
    merged = {path.name: path for path in (folder / name for name in run["files"]) if path.parent == folder / "merged"}
    chosen = {name: path for name, path in merged.items() if name in MERGED or SHARDS.fullmatch(name)}
    if "config.json" not in chosen:
        hint = "train again with `publish.merged=true`, or publish the adapter alone: `publish.merged=false`"
        raise Problem(f"run {folder.name} has no merged model: it was trained without one", hint, "refused")
    if gguf and f"model-{gguf}.gguf" not in chosen:
        made = json.loads((folder / "metrics.json").read_text(encoding="utf-8")).get("gguf") or {}
        if made.get("format") != gguf:
            hint = f"train again with `publish.merged=true publish.gguf={gguf}`, or publish without one: `publish.gguf=null`"
            raise Problem(f"run {folder.name} has no GGUF file {gguf}: it was trained without one", hint, "refused")
        say(f"no GGUF file is published: {made['why']}")
    card_of_it = card.render_merged(folder, f"{repository}-merged", repository)
    return {**chosen, "metrics.json": folder / "metrics.json", "README.md": card_of_it.encode()}


def _open_repository(hub: HfApi, repository: str, private: bool, say: Say) -> bool:
    """Make sure that the repository is there and not more public than asked. Returns whether it is private."""
    if not hub.repo_exists(repository):
        hub.create_repo(repository, private=private, exist_ok=True)
    is_private = bool(hub.repo_info(repository).private)
    if private and not is_private:
        hide = f"hide it with `hf repos settings {repository} --private`"
        hint = f"{hide}, name another with `publish.repository=OWNER/NAME`, or agree with `publish=public`"
        raise Problem(f"{repository} is public, and this run is to be published privately", hint, "refused")
    if is_private and not private:
        say(f"{repository} is private and stays so; to show it to everyone: hf repos settings {repository} --public")
    return is_private


def _tagged_commit(hub: HfApi, repository: str, tag: str) -> str | None:
    """The commit that the tag names, if the repository has the tag."""
    return next((ref.target_commit for ref in hub.list_repo_refs(repository).tags if ref.name == tag), None)


def _upload(hub: HfApi, repository: str, run_id: str, content: dict[str, Path | bytes]) -> str:
    """Put the files there in one commit, without those that an earlier run left; returns the commit."""
    stale = [name for name in hub.list_repo_files(repository) if name in OURS and name not in content]
    operations = [CommitOperationAdd(name, data) for name, data in content.items()] + [CommitOperationDelete(name) for name in stale]
    return hub.create_commit(repository, operations, commit_message=f"Run {run_id}").oid


def _verify_upload(hub: HfApi, repository: str, revision: str, hashes: dict[str, str]) -> None:
    """Download the revision into an empty place, so that no cache can answer, and compare every file."""
    with tempfile.TemporaryDirectory() as folder:
        fetched = Path(hub.snapshot_download(repository, revision=revision, cache_dir=folder, allow_patterns=list(hashes)))
        for name, sha256 in hashes.items():
            if not (fetched / name).is_file() or record.digest(fetched / name) != sha256:
                raise Problem(
                    f"{name} in {repository} at {revision[:12]} is not the file of this run",
                    f"someone or something changed it: name another repository, or delete the run's tag in {repository} and publish again",
                    "damaged_run",
                )
