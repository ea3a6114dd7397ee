"""Own rows get settings made for them: a name, a learning rate, epochs and a limit of answers."""

import pytest

from conf import load, made_for_rows
from conf.problem import Problem

OWN = ("cloud=twin", "experiment=own", "data.validation=held_out.jsonl", "data.fields=[shop,date]")


@pytest.mark.parametrize(
    "source, name",
    [
        ("receipts.jsonl", "receipts"),
        ("/home/me/Receipts 2025/train.jsonl", "receipts-2025"),
        ("my.rows.jsonl.gz", "my"),
        ("hub:owner/Notes:train", "notes"),
        ("train.jsonl", "own"),
        ("/Quittungen/übung.csv", "bung"),
    ],
)
def test_a_run_is_called_by_its_rows(source, name):
    run = load.load([*OWN, f"data.train='{source}'"])
    assert run.name == name and load.load([*OWN, f"data.train='{source}'", "name=mine"]).name == "mine"


def test_small_models_learn_ten_times_as_fast_where_their_name_says_their_size():
    rates = {name: load.load([*OWN, "data.train=a.jsonl", f"model.id={name}"]).train.lr for name in ("a/B-135M-Instruct", "a/B-8B", "a/B")}
    assert rates == {"a/B-135M-Instruct": 2e-3, "a/B-8B": 2e-4, "a/B": 2e-4}


def test_few_rows_are_visited_more_often():
    assert [made_for_rows.epochs(rows) for rows in (20, 120, 400, 1200, 100_000)] == [10, 10, 3, 1, 1]


def test_an_answer_may_be_a_quarter_longer_than_the_longest():
    assert [made_for_rows.max_new_tokens(longest) for longest in (1, 75, 200)] == [8, 104, 256]


def test_the_keys_to_score_have_to_be_named():
    with pytest.raises(Problem, match=r"`data.fields` has no value(.|\n)*'data.fields=\[city,people\]'` scores these keys"):
        load.load([word for word in OWN if "fields" not in word] + ["data.train=a.jsonl"])
    with pytest.raises(Problem, match="`data.train` has no value(.|\n)*`data.train=my.jsonl`"):
        load.load(list(OWN))


def test_settings_that_are_made_for_rows_are_the_same_run_again():
    run = load.load([*OWN, "data.train=a.jsonl"])
    assert (run.train.steps, run.train.epochs, run.data.max_new_tokens) == (None, None, None)
    saved = load.read(load.dump(run).encode())
    assert load.fingerprint(saved) == load.fingerprint(run)
