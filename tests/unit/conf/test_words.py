"""Settings are what was typed: text stays text, from the command line, a file and local.yaml to the saved configuration and back."""

import random
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from conf import load, override_words, paths, schema, setting_types, setting_values, yaml_file
from conf.problem import Problem
from conf.sweep import grid
from remote.sweep.command import USAGE

NOWHERE = Path("no-such-local.yaml")
# What some reader takes for a number, a truth value, a date, nothing, a list, a comment or the end.
LOOKS = """1e3 2024_01_05 no 12345e6 7e10121 0x1F 1_000 on 12:30:45 2026-01-05 0o17 017 .5 1. -3 +4 1e-3 .inf nan Null TRUE y n off ~ =
<< - ? : ! & * | > % @ ` # [] {} [a] {a} a:b {a:b} a#b a,b 'a' it's \\ a\\ \\\\ C:\\rows\\a.jsonl a=b == $ $x ${ } données (1).jsonl 日本 😀
hub:owner/name:train ~/x.jsonl true,false --- ... !!str \\u00e9 0b1 1:2 ._ _1 1__0 inf -inf e3 1E3 12e03 0.1.2 3.10"""
TRAPS = LOOKS.split()
TRAPS += [
    '"a"',
    'say"so"',
    "train (1).jsonl",
    " ",
    "a b",
    " a",
    "a ",
    "a: b",
    "a #b",
    "- a",
    "? a",
    "a\tb",
    "a\nb",
    "",
    "null",
    "\x7f",
    "\u2028",
    "\ufeffa",
    "\x85",
]


def texts(count: int, seed: int = 1) -> list[str]:
    """Many short texts of signs that mean something to some reader, and the traps."""
    draw = random.Random(seed)
    signs = "aeEnoy019_ -+.,:;=/\\'\"()[]{}$%é日😀~@?|#&*!<>`\t\n"
    return TRAPS + ["".join(draw.choice(signs) for _ in range(draw.randrange(1, 9))) for _ in range(count)]


@pytest.fixture(scope="module")
def run():
    return load.load(["cloud=twin", "experiment=smoke"], local=NOWHERE)


def hydra(word: str) -> object:
    (override,) = OverridesParser.create().parse_overrides(override_words.quoted([word]))
    return override.value()


@pytest.mark.parametrize("key", ["name", "model.revision", "data.train", "cloud.bucket"])
def test_a_text_comes_through_the_command_line(key):
    for text in texts(200):
        word = override_words.word(key, text)
        assert hydra(word) == text, word
        assert override_words.quoted([word]) == [word]


def test_a_text_comes_as_it_is_typed_where_it_means_nothing_else_to_hydra():
    for text in texts(400):
        other = text.strip() != text or set(text) & set(",\\") or text[:1] in ("'", '"') or text.lower() == "null" or "(" in text
        if not other:
            assert hydra(f"model.revision={text}") == text


def test_lists_and_names_come_through_the_command_line():
    several = texts(150)
    assert hydra(override_words.word("data.fields", several)) == several
    assert hydra(override_words.word("lora.targets", several)) == several
    assert hydra("data.fields=[land, no,1e3, 'a, b',\"c]\"]") == ["land", "no", "1e3", "a, b", "c]"]
    assert hydra("cloud.build_args={PYTHON: 3.10, BASE: debian:12@sha256:ab}") == {"PYTHON": "3.10", "BASE": "debian:12@sha256:ab"}


@pytest.mark.parametrize("key", ["name", "data.fields"])
def test_several_texts_are_a_sweep_of_texts(key):
    value = {"name": "1e3,no,choice_x", "data.fields": "[no],[1e3,on]"}[key]
    own = [one for _, (one,) in grid.combinations([f"{key}={value}"], USAGE)]
    assert [hydra(word) for word in own] == {"name": ["1e3", "no", "choice_x"], "data.fields": [["no"], ["1e3", "on"]]}[key]
    assert [hydra(word) for _, (word,) in grid.combinations(["name=choice(1e3,2e4)"], USAGE)] == ["1e3", "2e4"]


def test_what_is_no_text_is_left_to_hydra():
    for word in ("lora.r=8,16", "train.lr=tag(log,interval(1e-5,1e-3))", "lora.options.use_dora=true", "~data.train", "foo", "--dry", "-m"):
        assert override_words.quoted([word]) == [word]


def test_all_texts_are_the_same_in_a_saved_configuration(run):
    several = list(dict.fromkeys(text for text in texts(300) if text != "???"))
    also = dict.fromkeys(several, 0.5)
    data = replace(run.data, train="1e3", fields=several, also=also, also_sha256={text: text for text in several})
    for text in ("no", "1e3", "2024_01_05", "${x}", "\\${", "a\nb", "'"):
        changed = replace(run, data=data, model=replace(run.model, revision=text, note=text))
        assert load.read(load.dump(changed)) == changed
        data = replace(data, also={}, also_sha256={}, fields=[text])  # all of them once are enough


def test_texts_are_the_same_from_words_to_a_run_to_its_file_and_back():
    several = [text for text in texts(300, seed=2) if text and "${" not in text]
    several = list(dict.fromkeys(several))
    overrides = ["cloud=twin", override_words.word("data.fields", several), override_words.word("model.revision", "1e3")]
    overrides += [override_words.word("data.also", dict.fromkeys(several, 0.5)), "name=1e3", "publish.repository=2024_01_05"]
    run = load.load(overrides, local=NOWHERE)
    assert (run.data.fields, list(run.data.also), run.name, run.model.revision) == (several, several, "1e3", "1e3")
    assert run.publish.repository == "2024_01_05"
    assert load.read(load.dump(run)) == run


def test_texts_are_the_same_in_local_yaml(tmp_path):
    several = list(dict.fromkeys(text for text in texts(300, seed=3) if text and "${" not in text))
    local = tmp_path / "local.yaml"
    values = {"name": "1e3", "data": {"fields": several, "also": dict.fromkeys(several, 0.5)}, "lora": {"options": {"bias": "none"}}}
    local.write_text(yaml_file.write(values), encoding="utf-8")
    run = load.load([], local=local)
    assert (run.name, run.data.fields, list(run.data.also), run.lora.options) == ("1e3", several, several, {"bias": "none"})


def test_texts_without_quotes_are_text_in_a_file():
    plain = [text for text in TRAPS if re.fullmatch(r"[\w.:/+-]+", text) and text.lower() not in ("null", "-", "?", ":", "---", "...")]
    assert len(plain) > 30
    read = yaml_file.read("data:\n  fields:\n" + "".join(f"  - {text}\n" for text in plain), "x.yaml")
    assert read == {"data": {"fields": plain}}
    for text in plain:
        assert yaml_file.read(f"name: {text}\nbox: {{name: {text}}}", "x.yaml") == {"name": text, "box": {"name": text}}


@pytest.mark.parametrize(
    "typed",
    [
        "data.also={train (1).jsonl: 0.5}",
        'data.also={"train (1).jsonl": 0.5}',
        r"data.also={train \(1\).jsonl: 0.5}",
        "data.also={hub:owner/name:train: 0.5}",
        "data.also={données.jsonl: 0.5}",
        "data.also={données.jsonl:0.5,b.jsonl: 2}",
    ],
)
def test_a_file_of_any_name_can_be_given_besides(typed):
    also = load.load(["cloud=twin", typed], local=NOWHERE).data.also
    name = next(iter(also))
    assert name in ("train (1).jsonl", "hub:owner/name:train", "données.jsonl")
    assert also[name] == 0.5


def test_bytes_that_are_no_text_are_refused_in_a_word():
    with pytest.raises(Problem, match=r"`data.train=a\\udcff` holds bytes"):
        override_words.quoted(["data.train=a\udcff"])


def test_a_typed_file_lies_where_its_user_stands_and_any_other_in_the_repository(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    for place in (tmp_path / "my.jsonl", tmp_path / "sub/my.jsonl", tmp_path / "data.jsonl"):
        place.write_text("{}")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    sub = tmp_path / "sub"
    assert paths.from_typed("my.jsonl", sub) == "sub/my.jsonl"
    assert paths.from_typed("../my.jsonl", sub) == "my.jsonl"
    assert paths.from_typed("my.jsonl", tmp_path) == "my.jsonl"
    assert paths.from_typed("data.jsonl", sub) == "data.jsonl"  # nothing of that name is here
    assert paths.from_typed("no.jsonl", sub) == "sub/no.jsonl"
    assert paths.from_typed("x.jsonl", Path("/")) == "/x.jsonl"
    assert [paths.from_typed(same, sub) for same in ("hub:a/b:train", "~/x.jsonl", "/x.jsonl")] == [
        "hub:a/b:train",
        "~/x.jsonl",
        "/x.jsonl",
    ]
    monkeypatch.chdir(sub)
    assert override_words.quoted(["data.train=my.jsonl,data.jsonl"], sub) == ["data.train=sub/my.jsonl,data.jsonl"]
    assert override_words.quoted(["data.also={my.jsonl: 2}"], sub) == ["data.also={sub/my.jsonl: 2}"]
    assert paths.resolve("sub/my.jsonl") == tmp_path / "sub/my.jsonl"
    monkeypatch.setenv("HOME", "/home/jo")
    assert paths.resolve("~/x.jsonl") == Path("/home/jo/x.jsonl")


BAD = [
    *("lora.r=8,16", "train=null", "+new=1", "data.also.more.jsonl=0.5", "data.also=x", "data.also=[x]", "data.train=a,b", "foo", "=3"),
    *(
        "lora.r=(",
        "lora.r=é",
        "data.train=null",
        "data.fields=abc",
        "lora.r=1e3",
        "box.spot=maybe",
        "data=null",
        "data=nó",
        "train.steps=[1]",
    ),
    *("data.also={a: x}", "lora.options={é: 1}", "train.lr=a=b", "name=${", "~data.trian", "data.train@x=3", "model@foo=tiny", "lora=8"),
    *(
        "quant.kind=int3",
        "train.lr_scheduler=cosin",
        "lora.targets=3",
        "model.revision=null",
        "data.eval_rows=",
        "data.fields=[a,a]",
        "hydra.foo=3",
    ),
    *(
        "train.lrr=3",
        "clod=aws",
        "train.gradient_checkpointing=maybe",
        "cloud.build_args=3",
        "train.report_to=mlflow",
        "data.also={}x",
        "data=[x,y]",
    ),
]


@pytest.mark.parametrize("word", BAD)
def test_what_a_hint_says_to_type_can_be_typed_and_is_something_else(word):
    with pytest.raises(Problem) as caught:
        load.load(["cloud=twin", word], local=NOWHERE)
    hint = caught.value.hint
    assert "``" not in hint
    for command in re.findall(r"`([^`]+)`", hint):
        tokens = shlex.split(command)
        assert word not in tokens or tokens[:2] == ["inv", "sweep"], hint
        if tokens[0] == "ls":
            assert subprocess.run(tokens, cwd=paths.ROOT, capture_output=True).returncode == 0
        elif tokens[:2] == ["inv", "sweep"]:
            assert len(grid.combinations(tokens[3:], USAGE)) > 1
        elif setting_types.kind_of(tokens[0]):  # `did you mean`, or a room's name
            continue
        else:
            for token in tokens:
                assert override_words.WORD.fullmatch(token), hint
                key, _, value = token.partition("=")
                assert setting_types.kind_of(key), hint
                if value not in ("VALUE", "FILE", "owner/name"):
                    hydra(token)


def test_every_setting_says_what_it_takes_with_a_word_that_it_would():
    for path in setting_types.all_paths():
        for command in re.findall(r"`([^`]+)`", setting_values.accepted_hint(path)):
            (token,) = shlex.split(command) if "=" in command else ("",)
            if token:
                value = hydra(token)
                assert isinstance(value, str | int | float | bool | list | dict)


def test_there_is_a_kind_for_every_setting():
    assert all(setting_types.kind_of(path) for path in setting_types.all_paths())
    assert setting_types.kind_of("data.nothing") is setting_types.kind_of("") is setting_types.kind_of("a\0b") is None
    assert schema.Run.__dataclass_fields__.keys() == {path for path in setting_types.all_paths() if "." not in path}
