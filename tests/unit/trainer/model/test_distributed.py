"""Two processes that train together end with the adapter of one that trains alone."""

import pytest
import torch
from safetensors.torch import load_file

from tests.unit.trainer import forked
from trainer.files import digest, read_json_lines
from trainer.model.distributed import ProcessGroup

# Each process adds up its own rows first, so sums differ in their last bits; Adam divides by the root of tiny second moments,
# which makes those bits visible: equal within 1 % of the largest weight, and the losses of all steps within one in a thousand.
WORDS = ["quant=none", "train.report_to=[]", "train.steps=3", "train.batch_size=6", "train.eval_steps=3", "data.eval_rows=2"]


def test_every_row_of_a_step_has_one_place_and_the_shares_weigh_the_same(examples):
    shares = []
    for index in (0, 1):
        team = ProcessGroup()
        team.world_size, team.rank = 2, index
        shares.append(team.shard(examples))
    assert sorted(row.row.id for share in shares for row in share) == sorted(row.row.id for row in examples)
    tokens = [sum(map(len, share)) for share in shares]
    assert max(tokens) - min(tokens) <= max(map(len, examples))


@pytest.fixture(scope="module")
def runs(settings_for, tmp_path_factory):
    """The folders of the run by one process, and of the same run by two."""
    place = tmp_path_factory.mktemp("volume") / "runs"
    alone, together = settings_for(place, *WORDS), settings_for(place, *WORDS)
    one, two = forked.make(alone, "of-one"), forked.make(together, "of-two")
    forked.whole(alone, one)
    forked.together(together, two, 2)
    return one, two


@pytest.mark.slow
def test_two_processes_train_the_adapter_that_one_trains(runs):
    one, two = (load_file(folder / forked.ADAPTER) for folder in runs)
    assert one.keys() == two.keys()
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=0.01 * weight.abs().max().item())
    assert digest(runs[0] / forked.ADAPTER) != digest(runs[1] / forked.ADAPTER), (
        "sums in another order: had the second process done nothing, the bytes would be equal"
    )


@pytest.mark.slow
def test_two_processes_print_the_losses_of_one_once(runs):
    one, two = ([event for event in read_json_lines(folder / "events.jsonl") if event["event"] == "step"] for folder in runs)
    assert [event["step"] for event in two] == [1, 2, 3]
    for alone, together in zip(one, two, strict=True):
        assert together["loss"] == pytest.approx(alone["loss"], rel=1e-3)
        assert together["grad_norm"] == pytest.approx(alone["grad_norm"], rel=1e-2)
