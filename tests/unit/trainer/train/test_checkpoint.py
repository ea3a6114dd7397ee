"""A checkpoint is whole or not there, brings back every bit, and serves no other run."""

import json
import shutil

import pytest
import torch

from conf import schema
from conf.problem import Problem
from trainer.files import read_json_lines
from trainer.model import model
from trainer.model.distributed import ProcessGroup
from trainer.record.record import Record
from trainer.rows.sampler import Sampler, WeightedRows
from trainer.train import checkpoint, loop
from trainer.train.checkpoint import Progress


@pytest.fixture
def settings(settings_for, tmp_path):
    settings = settings_for(tmp_path)
    settings.train.steps, settings.train.batch_size, settings.train.save_steps = 5, 3, 1
    return settings


def adapted(base_for):
    torch.manual_seed(3)
    return model.add_adapter(
        base_for(), schema.Lora(4, 8, 0.1, "all-linear", {}), gradient_checkpointing=False
    )  # dropout: chance must resume too


def train(tuned, examples, settings, store, record):
    order = Sampler([WeightedRows(examples)], settings.seed, settings.train.batch_size)
    return loop.train(tuned, order, examples[:2], settings, store, record, ProcessGroup(), lambda: 0.0)


def weights(tuned):
    return {name: weight.detach().clone() for name, weight in tuned.named_parameters() if weight.requires_grad}


def test_a_run_that_goes_on_at_any_step_ends_as_one_that_was_left_alone(number_format, base_for, examples, settings, tmp_path):
    settings.train.save_total_limit = 10
    whole = adapted(base_for)
    expected = train(whole, examples, settings, checkpoint.CheckpointStore(tmp_path / "a", "x", 10), Record(tmp_path))
    for step in (1, 2, 3, 4):
        place = tmp_path / f"from {step}"
        shutil.copytree(tmp_path / "a", place)
        for later in range(step + 1, 6):
            shutil.rmtree(place / f"step-{later:06d}")
        again = adapted(base_for)
        torch.manual_seed(99)
        progress = train(again, examples, settings, checkpoint.CheckpointStore(place, "x", 10), Record(tmp_path))
        assert progress == expected
        assert all(torch.equal(weight, weights(whole)[name]) for name, weight in weights(again).items())


def test_a_run_that_goes_on_in_another_number_format_says_so_and_keeps_it(base_for, examples, settings, tmp_path, capsys):
    def attempt(format):
        return train(adapted(base_for), examples, settings, checkpoint.CheckpointStore(tmp_path / "a", "x", 10, format), Record(tmp_path))

    assert attempt("bf16 on a GPU").changed is None
    assert attempt("bf16 on a GPU").changed is None
    shutil.rmtree(tmp_path / "a" / "step-000005")
    assert "the number format" not in capsys.readouterr().out
    change = attempt("fp32 on a CPU").changed
    assert "from step 1 in bf16 on a GPU; from step 5 in fp32 on a CPU" in change
    assert f"note: {change}" in capsys.readouterr().out
    recorded = [event["formats"] for event in read_json_lines(tmp_path / "events.jsonl") if event["event"] == "formats"]
    assert recorded == [[[0, "bf16 on a GPU"], [4, "fp32 on a CPU"]]]
    assert attempt("fp32 on a CPU").changed == change, "the last checkpoint keeps it"


@pytest.fixture
def saved(tuned, tmp_path):
    """A store with the steps 1 and 2, and the optimizer that it was saved with."""
    store = checkpoint.CheckpointStore(tmp_path / "checkpoints", "x", 3)
    optimizer = torch.optim.AdamW([weight for weight in tuned.parameters() if weight.requires_grad])
    for step in (1, 2):
        store.save(Progress(step=step, best_step=1), tuned, optimizer)
    return store, optimizer


@pytest.mark.parametrize("name", ["COMPLETE", "adapter.safetensors", "progress.json"])
def test_a_half_written_checkpoint_is_passed_over(name, saved, tuned):
    store, optimizer = saved
    path = store.folder / "step-000002" / name
    path.unlink() if name == "COMPLETE" else path.write_bytes(path.read_bytes()[:-1])
    assert store.resume(tuned, optimizer).step == 1


def test_a_checkpoint_of_another_run_is_refused(saved, tuned):
    store, optimizer = saved
    other = checkpoint.CheckpointStore(store.folder, "other settings", 3)
    with pytest.raises(Problem, match="step-000002 was made with other settings") as caught:
        other.resume(tuned, optimizer)
    assert caught.value.reason == "refused"


def test_the_newest_and_the_best_are_kept(saved, tuned):
    store, optimizer = saved
    for step in (3, 4, 5, 6):
        store.save(Progress(step=step, best_step=1), tuned, optimizer)
    assert sorted(place.name for place in store.folder.iterdir()) == ["step-000001", "step-000004", "step-000005", "step-000006"]


def test_what_an_interrupted_save_left_is_no_checkpoint(saved, tuned):
    store, optimizer = saved
    (store.folder / "part").mkdir()
    (store.folder / "part" / "COMPLETE").write_text("{}")
    assert store.resume(tuned, optimizer).step == 2
    store.save(Progress(step=3, best_step=1), tuned, optimizer)
    assert json.loads((store.folder / "step-000003" / "progress.json").read_text())["step"] == 3
    assert not (store.folder / "part").exists()
