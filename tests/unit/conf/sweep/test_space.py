"""What a search may try, and what it tries next: by Hydra's words, by Optuna, the same whenever it is asked."""

import math

import pytest

from conf.problem import Problem
from conf.sweep import space as spaces
from conf.sweep.space import Trial

WORDS = [
    "model=tiny",
    "train.lr=tag(log,interval(1e-5,1e-3))",
    "lora.r=8,16,32",
    "train.steps=range(10,50,10)",
    "data.max_length=interval(4,64)",
]


def score(values: dict) -> float:
    """Best at a rate of 1e-4 and the second rank."""
    return -abs(math.log10(values["train.lr"]) + 4) - abs(values["lora.r"] - 1)


def trials(space: spaces.Space, count: int, ended: list[Trial] = ()) -> list[Trial]:
    ended = list(ended)
    while len(ended) < count:
        values = space.draw(ended, seed=17)
        ended.append(Trial(values, score(values)))
    return ended


def test_words_are_read_as_hydra_reads_them():
    space = spaces.read(["seed=1", *WORDS, "seed=2"], 3)
    assert space.fixed == ["seed=2", "model=tiny"]
    rate, rank, steps, alpha = space.axes
    assert (rate.low, rate.high, rate.whole, rate.log) == (1e-5, 1e-3, False, True)
    assert rank.listed == ("8", "16", "32") and not rank.ordered
    assert steps.listed == ("10", "20", "30", "40") and steps.ordered
    assert (alpha.whole, alpha.log) == (True, False), "a setting of whole numbers gets whole numbers"
    assert spaces.read(["lora.dropout=interval(0,1)"], 1).axes[0].whole is False
    assert spaces.read(["train.lr=int(interval(1,8))"], 1).axes[0].whole is True


def test_every_value_and_both_ends_are_in_a_corner():
    corners = spaces.read(["lora.r=8,16,32", "train.lr=interval(1e-5,1e-3)"], 1).corners()
    assert corners == [["lora.r=8", "train.lr=1e-05"], ["lora.r=16", "train.lr=0.001"], ["lora.r=32", "train.lr=0.001"]]


def test_draws_are_words_of_the_space_and_are_read_back_as_the_same_values():
    space = spaces.read([*WORDS, "lora.targets=[q_proj],[q_proj,v_proj]"], 12)
    for trial in trials(space, 12):
        words = space.words(trial.values)
        assert space.values(words) == trial.values
        texts = dict(word.split("=", 1) for word in words)
        assert 1e-5 <= float(texts["train.lr"]) <= 1e-3 and texts["lora.r"] in ("8", "16", "32")
        assert texts["train.steps"] in ("10", "20", "30", "40") and 4 <= int(texts["data.max_length"]) <= 64
    assert space.values(words[1:]) is None and space.values([*words, "seed=3"]) is None
    for strange in ("lora.r=64", "data.max_length=65", "train.lr=2e-3", "train.lr=x"):
        assert space.values([strange if word.startswith(strange.partition("=")[0] + "=") else word for word in words]) is None


def test_a_search_that_was_broken_off_draws_what_an_unbroken_one_draws():
    space = spaces.read(WORDS, 14)
    unbroken = trials(space, 14)
    for broken_after in (1, 5, 9, 13):
        read_back = [Trial(space.values(space.words(trial.values)), trial.score) for trial in unbroken[:broken_after]]
        assert trials(spaces.read(WORDS, 14), 14, read_back) == unbroken
    assert len({str(trial.values) for trial in unbroken}) == 14
    assert space.draw(unbroken, seed=18) != space.draw(unbroken, seed=17) != space.draw(unbroken, seed=17, attempt=1)


def test_scores_decide_what_is_drawn_and_the_search_finds_what_is_better():
    space = spaces.read(["train.lr=tag(log,interval(1e-6,1e-2))", "lora.r=4,8,16,32,64"], 40)
    ended = trials(space, 40)
    first, later = [one.score for one in ended[:10]], [one.score for one in ended[-10:]]
    assert sum(later) / 10 > sum(first) / 10 + 0.5
    worse = [Trial(one.values, -one.score) for one in ended]
    assert space.draw(worse, seed=17) != space.draw(ended, seed=17)


def test_of_a_few_values_each_is_drawn_once_even_what_scores_badly():
    space, ended = spaces.read(["lora.r=1,2,4,8", "train.steps=1,2"], 8), []
    while words := next(space.draws(ended, seed=17), None):
        ended.append(Trial(space.values(words), float(words == ["lora.r=1", "train.steps=1"])))
    assert len(ended) == 8 == len({str(one.values) for one in ended})


def test_a_trial_that_failed_has_no_score_and_counts():
    space = spaces.read(WORDS, 8)
    ended = trials(space, 7)
    failed = [*ended[:6], Trial(ended[6].values, None)]
    assert space.values(space.words(space.draw(failed, seed=17)))
    assert space.draw(failed, seed=17) != space.draw(ended[:6], seed=17)


def test_a_trial_that_goes_on_is_kept_away_from_as_one_that_failed_is_not():
    space = spaces.read(["train.lr=tag(log,interval(1e-6,1e-2))"], 12)
    ended = [Trial({"train.lr": 10 ** -(2 + number / 3)}, -abs(number - 6)) for number in range(13)]

    def distance(seed: int, goes_on: bool) -> float:
        """Between one draw and the next, in powers of ten."""
        first = space.draw(ended, seed)
        after = space.draw([*ended, Trial(first, None, goes_on)], seed)
        return abs(math.log10(first["train.lr"] / after["train.lr"]))

    going, failed = (sum(distance(seed, goes_on) for seed in range(24)) for goes_on in (True, False))
    assert going > 1.2 * failed, (going, failed)


def test_what_has_become_of_a_trial_is_told_to_optuna_by_its_own_names():
    ends = [Trial({}, 0.5), Trial({}, None), Trial({}, None, goes_on=True), Trial({}, None, measured={5: -2.0})]
    assert [trial.state for trial in ends] == ["COMPLETE", "FAIL", "RUNNING", "PRUNED"]
    space = spaces.read(WORDS, 12)
    *ended, last = trials(space, 8)
    pruned = [*ended, Trial(last.values, None, measured={5: -2.0, 10: -1.5})]
    assert space.draw(pruned, seed=17) != space.draw([*ended, Trial(last.values, None)], seed=17), "what it measured counts"


@pytest.mark.parametrize(
    ("words", "what", "hint"),
    [
        (["lora.r=8"], "no setting has several values", "lora.r=8,16"),
        (["train.lr=interval(1e-3,1e-5)"], "an interval with nothing in it", "interval(1,8)"),
        (["lora.r=interval(8.2,8.8)"], "an interval with nothing in it", "a higher one"),
        (["train.lr=tag(log,interval(0,1))"], "begins at 0, and logarithms begin above 0", "above 0"),
        (["train.lr=tag(lgo,interval(1,2))"], "is tagged lgo", "only `log`"),
        (["lora=glob(*)"], "does not say which values to try", "`lora=A,B`"),
        (["train.lr=interval(1e-3"], "interval(1e-3", "quote"),
    ],
)
def test_what_cannot_be_searched_is_one_sentence_and_a_hint(words, what, hint):
    with pytest.raises(Problem) as error:
        spaces.read(words, 3)
    assert what in error.value.what and hint in error.value.hint


def test_without_optuna_the_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(spaces, "find_spec", lambda name: None)
    with pytest.raises(Problem, match="Optuna, which is not installed here") as error:
        spaces.read(["lora.r=8,16"], 3)
    assert "`pip install optuna`" in error.value.hint
