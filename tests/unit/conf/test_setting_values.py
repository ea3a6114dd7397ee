"""Every setting of the schema, given values of other types: it is what was meant, or a sentence names setting, value and what it takes."""

import functools
import operator
from enum import Enum
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from conf import load, override_words, setting_types, setting_values, yaml_file
from conf.problem import Problem
from conf.setting_types import Kind

NOWHERE = Path("no-such-local.yaml")
ROOMS = (Kind.room, Kind.group)
PLACEHOLDER = "placeholder-of-a-value"
SETTINGS = [path for path in setting_types.all_paths() if setting_types.kind_of(path) not in ROOMS]
# What a file may hold, by what it would have to be for each type to be right; of every other type it is refused.
WRITTEN: dict[str, dict[object, object]] = {
    "true": {bool: True},
    "on": {bool: True},
    "'false'": {bool: False},
    "7": {int: 7, float: 7.0},
    "-7": {int: -7, float: -7.0},
    "'7'": {int: 7, float: 7.0},
    "1_000": {int: 1000, float: 1000.0},
    "'7 '": {},
    "3.7": {float: 3.7},
    "2.0": {float: 2.0},
    "1e3": {float: 1000.0},
    ".nan": {},
    "'nan'": {},
    "-.inf": {},
    "1e400": {},
    "99999999999999999999": {float: 1e20},
    "[1]": {Kind.texts: ["1"]},
    "[null]": {},
    "[[a]]": {},
    "{a: 1}": {Kind.options: {"a": 1}, Kind.named_numbers: {"a": 1.0}, Kind.named_texts: {"a": "1"}},
    "{a: true}": {Kind.options: {"a": True}, Kind.named_texts: {"a": "true"}},
    "{a: 'no'}": {Kind.named_texts: {"a": "no"}},
    "{a: .inf}": {Kind.named_texts: {"a": ".inf"}},
    "{a: [1, 'YES']}": {},
    "FULL": {},
    "''": {},
    "null": {},
}


@pytest.fixture(scope="module")
def saved() -> dict:
    return load.values(load.dump(load.load(["cloud=twin"], local=NOWHERE)))


def kind_of(path: str) -> object:
    kind = setting_types.kind_of(path)
    return setting_types.annotation(path) if kind is Kind.other else kind


def check_problem(problem: Problem, path: str, value: object) -> None:
    """The sentence names setting and value, the hint what is taken."""
    assert f"`{path}" in problem.what and "cannot be " in problem.what, problem
    assert "\n" not in problem.what
    shown = setting_values.short_json(value)
    assert problem.what.endswith(shown) or any(problem.what.endswith(setting_values.short_json(each)) for each in inside(value)), problem


def inside(value: object) -> list:
    each = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return each + [deeper for entry in each for deeper in inside(entry)]


def placed(path: str, written: str) -> str:
    *rooms, name = path.split(".")
    body = "".join(f"{'  ' * depth}{room}:\n" for depth, room in enumerate(rooms))
    return f"# a file of settings\n{body}{'  ' * len(rooms)}{name}: {written}\n"


def held(values: dict, path: str) -> object:
    return functools.reduce(operator.getitem, path.split("."), values)


@pytest.mark.parametrize("path", SETTINGS)
def test_a_value_in_a_file_is_what_was_meant_or_refused_with_its_line(path):
    kind = kind_of(path)
    for written, right in WRITTEN.items():
        body = placed(path, written)
        try:
            value = held(yaml_file.read(body, "conf/local.yaml"), path)
        except Problem as problem:
            if "takes texts" in problem.what:
                continue
            assert problem.what.startswith(f"conf/local.yaml, line {body.count(chr(10))}: ")
            check_problem(problem, path, held(yaml_file.read(body, "conf/local.yaml", strict=False), path))
            assert problem.hint.startswith("it takes ")
            assert kind not in right, f"{written} is right"
            continue
        if written == "null":
            assert kind is Kind.either or setting_types.takes_null(path)
        elif kind is Kind.text:
            assert isinstance(value, str) and (value or path == "model.note")
        elif kind is not Kind.either:  # by a rule of its own
            assert kind in right, f"{written} was taken for {value!r}"


@pytest.mark.parametrize("path", [path for path in SETTINGS if kind_of(path) not in (Kind.text, Kind.either)])
def test_a_typed_value_is_taken_as_it_is_in_a_file(path):
    kind, typed = kind_of(path), {"'7 '": "'7 '", ".nan": "nan", "-.inf": "-inf", "on": "on", "FULL": "FULL", "3.7": "3.7", "7": "2"}
    for written, word in typed.items():
        right = kind in WRITTEN[written] and kind is not Kind.texts
        (override,) = OverridesParser.create().parse_overrides(override_words.quoted([f"{path}={word}"]))
        assert (setting_values.invalid_value(path, override.value()) is None) == right, word


@pytest.mark.parametrize("path", SETTINGS)
def test_what_a_saved_run_holds_is_taken_whole_or_refused(path, saved):
    kind = kind_of(path)
    words = {bool: "2", int: "3.7", float: ".nan", Kind.texts: "null" if not setting_types.takes_null(path) else "7", Kind.text: "[a]"}
    wrong = words.get(kind, "[a]")
    if kind is not Kind.either:
        with pytest.raises(Problem) as caught:
            load.read(file_with(saved, path, wrong))
        assert caught.value.what.startswith(f"config.yaml of the run: `{path}` cannot be ")
        assert caught.value.reason == "damaged_run"


@pytest.mark.parametrize("kind", [bool, int, float])
def test_what_is_right_is_of_the_settings_type(kind, saved):
    values = {"publish.private": {bool}, "train.eval_steps": {int}, "train.max_grad_norm": {float}}
    path = next(path for path, kinds in values.items() if kind in kinds)
    for written, right in WRITTEN.items():
        if kind in right and right[kind] > -1 and right[kind] != 1e20:
            value = functools.reduce(getattr, path.split("."), load.read(file_with(saved, path, written)))
            assert value == right[kind] and type(value) is kind


def file_with(saved: dict, path: str, written: str) -> str:
    """A saved configuration in which the setting is written so."""
    *rooms, name = path.split(".")
    values = {**saved}
    place = values
    for room in rooms:
        place[room] = {**place[room]}
        place = place[room]
    place[name] = PLACEHOLDER
    return yaml_file.write(values).replace(PLACEHOLDER, written)


def test_every_kind_of_setting_is_tried():
    kinds = {kind_of(path) for path in SETTINGS}
    assert kinds >= {bool, int, float, Kind.text, Kind.texts, Kind.either, Kind.options, Kind.named_texts, Kind.named_numbers}
    assert all(isinstance(kind, Kind) or kind in (bool, int, float) or issubclass(kind, Enum) for kind in kinds)


@pytest.mark.parametrize(
    "word", ["lora.options.use_rslora=no", "train.optimizer_options.amsgrad=off", "data.chat_template_kwargs={t: 'no'}"]
)
def test_a_word_that_another_library_would_take_for_true_is_refused(word):
    """`if "no":` is true."""
    with pytest.raises(Problem, match="cannot be") as caught:
        load.load(["cloud=twin", word], local=NOWHERE)
    assert "true or false" in caught.value.hint


@pytest.mark.parametrize(
    "word", ["publish.private=2", "quant.double=7", "train.steps=1e3", "lora.r=true", "train.epochs=inf", "data.train=''"]
)
def test_a_value_of_another_type_is_refused_on_the_command_line(word):
    with pytest.raises(Problem, match="` cannot be ") as caught:
        load.load(["cloud=twin", word], local=NOWHERE)
    assert "it takes " in caught.value.hint
