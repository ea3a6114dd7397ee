"""The adapter of a finished run that `lora.adapter` names: checked to fit the new run's settings, and put among its inputs."""

import tempfile
from pathlib import Path

from conf import override_words, paths, schema
from conf.problem import Problem
from conf.text.quoting import setting, shell_word
from remote.aws.s3 import Store
from remote.aws.session import Aws
from remote.runs import download, manifest, runs

FILES = ("adapter_config.json", "adapter_model.safetensors")
SHAPE = ("r", "alpha", "targets")  # settings that must be the same in both runs
NEW = "start a new adapter: `lora.adapter=null`"


def check(aws: Aws, run: schema.Run) -> None:
    """Nothing, or a Problem where training cannot go on from the run that `lora.adapter` names; another person's is said to be his."""
    if names_run(run):
        store, name = Store(aws), str(run.lora.adapter)
        _fitting_manifest(store, run)
        runs.check_named_run(aws, store, name, {name: {"config.yaml"}})


def names_run(run: schema.Run) -> bool:
    """Whether `lora.adapter` names a run, and not a repository on the Hub."""
    return bool(run.lora.adapter) and "/" not in str(run.lora.adapter)


def upload(store: Store, run: schema.Run) -> dict[str, str]:
    """Put the adapter's two files among the inputs, unless they are there; the sha256 of each. A Problem where it does not fit."""
    name = str(run.lora.adapter)
    entries = _fitting_manifest(store, run)["files"]
    hashes = {}
    with tempfile.TemporaryDirectory() as folder:
        for file in FILES:
            entry = entries[f"adapter/{file}"]
            hashes[file] = entry["sha256"]
            if f"inputs/{entry['sha256']}" not in store.names(f"inputs/{entry['sha256']}"):
                download.fetch(store, name, f"adapter/{file}", entry, Path(folder))
                store.put_input(paths.inside(Path(folder), f"adapter/{file}"))
    return hashes


def _fitting_manifest(store: Store, run: schema.Run) -> dict:
    """The manifest of the earlier run; a Problem where its adapter does not fit these settings."""
    name = str(run.lora.adapter)
    stated = manifest.read(store, name) if schema.RUN_ID.fullmatch(name) else None
    if stated is None:
        what = f"lora.adapter names `{name}`, and there is no finished run of this name"
        raise Problem(what, f"`inv status` lists the runs; or {NEW}", "refused")
    missing = [file for file in FILES if f"adapter/{file}" not in stated["files"]]
    if missing:
        raise Problem(f"run `{name}` has no adapter/{missing[0]}", NEW, "refused")
    earlier = runs.saved_settings(store, name).run
    if earlier.model.id != run.model.id:
        what = f"run `{name}` trained {earlier.model.id}, and this run trains {run.model.id}"
        raise Problem(what, f"`{setting('model.id', earlier.model.id)}`, or {NEW}", "refused")
    for part in SHAPE:
        trained, asked = getattr(earlier.lora, part), getattr(run.lora, part)
        if trained != asked:
            own, word = (override_words.word(f"lora.{part}", value) for value in (asked, trained))
            what = f"run `{name}` has {word}, and this run {own.partition('=')[2]}"
            raise Problem(what, f"`{shell_word(word)}`, or {NEW}", "refused")
    return stated
