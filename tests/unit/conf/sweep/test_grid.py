"""Which combinations the words of a sweep ask for."""

import pytest

from conf.problem import Problem
from conf.sweep import grid

USAGE = grid.Usage("inv sweep --", "inv sweep --trials 12 --", "--trials")


def test_combinations_are_read_as_hydra_reads_them():
    words = ["model=tiny", "lora.r=range(1,3)", "lora.targets=[q_proj,v_proj]", "train.lr=1e-4,2e-4", "seed=1", "seed=2"]
    combinations = grid.combinations(words, USAGE)
    assert [swept for _, swept in combinations] == [[f"lora.r={r}", f"train.lr={lr}"] for r in (1, 2) for lr in ("0.0001", "0.0002")]
    assert combinations[0][0] == ["model=tiny", "lora.r=1", "lora.targets=[q_proj,v_proj]", "train.lr=0.0001", "seed=2"]
    with pytest.raises(Problem, match="several values"):
        grid.combinations(["lora.targets=[q_proj,v_proj]"], USAGE)


def test_an_interval_needs_a_search_and_the_hint_is_its_command():
    with pytest.raises(Problem, match="needs `--trials`") as error:
        grid.combinations(["lora.r=8,16", "train.lr=interval(1e-5,1e-3)"], USAGE)
    assert "`inv sweep --trials 12 -- lora.r=8,16 'train.lr=interval(1e-5,1e-3)'`" in error.value.hint
