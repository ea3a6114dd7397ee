"""What cannot work is known on the laptop: a token without an embedding, a row past the context, a name that the Hub does not take."""

import json
import re
import shlex
import shutil

import pytest
from huggingface_hub.utils import validate_repo_id

from conf import load
from conf.problem import Problem
from trainer.estimate import limits
from trainer.hub import permissions
from trainer.preflight import preflight

ROW = {"prompt": "Where?", "completion": "Here."}


@pytest.fixture
def check_rows(tiny, tmp_path):
    """Inspects rows for the tiny model with changed files."""

    def inspect_rows(rows, *words, config=None, tokens=()):
        folder = shutil.copytree(tiny, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
        for name, change in (("config.json", config), ("tokenizer.json", None)):
            values = json.loads((folder / name).read_text())
            if name == "tokenizer.json":
                values["added_tokens"] += [
                    {"id": number, "content": text, "special": False}
                    | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
                    for number, text in tokens
                ]
            (folder / name).write_text(json.dumps(values | (change or {})))
        for name, split_rows in (("train", rows), ("held", [ROW])):
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in split_rows))
        files = [f"data.train={tmp_path}/train.jsonl", f"data.validation={tmp_path}/held.jsonl", "data.fields=null"]
        settings = load.load(["cloud=twin", f"model.id={folder}", *files, *words])
        return preflight.inspect(settings, None, None)

    return inspect_rows


def test_a_token_beyond_the_models_embeddings_is_named_with_its_row(check_rows):
    with pytest.raises(Problem) as caught:
        check_rows([ROW, {"prompt": "x", "completion": "<|city|> 1", "id": "r9"}], tokens=[(640, "<|city|>")])
    assert caught.value.what == "row r9 has token 640, and the model has 640 embeddings (0 to 639)"


@pytest.mark.parametrize(
    "config",
    [
        {"max_position_embeddings": 20},
        {"max_position_embeddings": None, "n_positions": 20},
        {"text_config": {"max_position_embeddings": 20}},
    ],
)
def test_a_row_past_the_longest_context_is_named_with_what_to_do(check_rows, config):
    with pytest.raises(Problem) as caught:
        check_rows([ROW, {"prompt": "many words " * 30, "completion": "x", "id": "long"}], config=config)
    assert re.fullmatch(r"row long has \d+ tokens, and the model reads at most 20", caught.value.what)
    (command,) = re.findall(r"`([^`]+)`", caught.value.hint)
    assert load.load(["cloud=twin", *shlex.split(command)]).data.max_length == 20


def test_what_stretches_a_models_positions_counts():
    yarn = {"max_position_embeddings": 100, "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 100}}
    stated = {"max_position_embeddings": 400, "rope_parameters": {"factor": 4.0, "original_max_position_embeddings": 100}}
    assert limits._context(yarn) == limits._context(stated) == 400
    assert limits._context({"max_position_embeddings": 100, "rope_parameters": {"rope_type": "default"}}) == 100
    assert limits._context({}) is None


@pytest.mark.parametrize("answer, fits", [(20, True), (57, False), (200, False)])
def test_answers_past_a_table_of_positions_are_refused(tmp_path, answer, fits):
    from data.rows import normalise
    from trainer.rows.prompt import Example

    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 10, "n_positions": 60}))
    example = Example(normalise(ROW, "f:1"), [1] * 4, [2] * 3)
    data = load.load(["cloud=twin", f"data.max_new_tokens={answer}"]).data
    if fits:
        limits.check_token_limits(tmp_path, [example], [example], data)
        return
    with pytest.raises(Problem, match="the longest prompt to score has 4 tokens, and the model reads 60") as caught:
        limits.check_token_limits(tmp_path, [example], [example], data)
    (command,) = re.findall(r"`([^`]+)`", caught.value.hint)
    limits.check_token_limits(tmp_path, [example], [example], load.load(["cloud=twin", command]).data)


@pytest.mark.parametrize(
    "scaling", [{"rope_scaling": {"type": "dynamic", "factor": 4.0}}, {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0}}]
)
def test_positions_that_a_longer_row_has_stretched_are_never_met(scaling, tmp_path):
    from data.rows import normalise
    from trainer.rows.prompt import Example

    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 10, "max_position_embeddings": 60} | scaling))
    data = load.load(["cloud=twin", "data.max_new_tokens=20"]).data
    short, long = Example(normalise(ROW, "f:1"), [1] * 4, [2] * 3), Example(normalise(ROW, "f:2"), [1] * 50, [2] * 20)
    limits.check_token_limits(tmp_path, [short], [short], data)
    for training, scored in (([long], [short]), ([short], [Example(short.row, [1] * 45, [2])])):
        with pytest.raises(Problem, match="past 60 this model stretches positions by the longest row before") as caught:
            limits.check_token_limits(tmp_path, training, scored, data)
        assert "`data.max_length=40 data.too_long=drop`" in caught.value.hint


@pytest.mark.parametrize(
    "scaling", [{"rope_scaling": {"type": "su"}, "original_max_position_embeddings": 60}, {"rope_parameters": {"rope_type": "longrope"}}]
)
def test_an_answer_that_would_end_in_other_positions_than_it_began_in_is_refused(scaling, tmp_path):
    """LongRoPE has one form for rows up to 60 tokens and another one for longer rows; each row is learned in one."""
    from data.rows import normalise
    from trainer.rows.prompt import Example

    stated = 600 if "rope_scaling" in scaling else 60
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 10, "max_position_embeddings": stated} | scaling))
    assert limits.length_dependent_rope(json.loads((tmp_path / "config.json").read_text())) == ("longrope", 60)
    example = Example(normalise(ROW, "f:1"), [1] * 45, [2])
    limits.check_token_limits(tmp_path, [example], [example], load.load(["cloud=twin", "data.max_new_tokens=15"]).data)
    with pytest.raises(Problem, match=r"row f:1 to score has 45 tokens and up to 20 in its answer: past 60 this model") as caught:
        limits.check_token_limits(tmp_path, [example], [example], load.load(["cloud=twin", "data.max_new_tokens=20"]).data)
    (command,) = re.findall(r"`([^`]+)`", caught.value.hint)
    limits.check_token_limits(tmp_path, [example], [example], load.load(["cloud=twin", command]).data)


NAMES = [
    "my--exp",
    "a..b",
    "x.git",
    "a" * 120,
    "-x",
    "x-",
    "a/b/c",
    "me/a/b",
    "me/my model",
    "me/é",
    "me/" + "a" * 90,
    ".x",
    "a-.-b",
    "me/--",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["full", "smoke"])
@pytest.mark.parametrize("merged", [False, True])
def test_a_name_that_the_hub_does_not_take_is_refused_with_one_that_it_does(name, kind, merged):
    target = permissions.repository_id(name, "exp", kind, "local-user")
    names = [target, *[f"{target}-merged"] * merged]
    if all(taken(each) for each in names):
        permissions.check_repository_id(target, merged)
        return
    with pytest.raises(Problem) as caught:
        permissions.check_repository_id(target, merged)
    assert "cannot be the name of a repository" in caught.value.what and "at most 96" in caught.value.hint
    (word,) = re.findall(r"`publish.repository=([^`]+)`", caught.value.hint)
    better = permissions.repository_id(word, "exp", kind, "local-user")
    permissions.check_repository_id(better, merged)
    assert load.load(["cloud=twin", f"publish.repository={word}"]).publish.repository == word


def taken(name: str) -> bool:
    try:
        validate_repo_id(name)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("words", [["name=my--exp"], ["name=a..b"], ["name=x.git"], ["publish.repository=local-user/a/b"]])
def test_such_a_name_is_refused_on_the_laptop_without_a_token_too(words, monkeypatch):
    settings = load.load(["cloud=twin", "experiment=smoke", *words])
    monkeypatch.setattr(preflight, "check_data", lambda *_: {})
    if settings.name == "x.git":  # a smoke run's repository ends otherwise
        settings.kind = settings.kind.__class__.full
    with pytest.raises(Problem, match="cannot be the name of a repository"):
        preflight.check_inputs(settings, "http://127.0.0.1:9", None)
