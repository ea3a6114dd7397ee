"""A file of settings that is broken: which file, which line, how to mend it; never a traceback."""

import re
import shlex
import subprocess

import pytest
import yaml
from omegaconf import OmegaConf

from conf import load, yaml_file
from conf.problem import Problem

BROKEN = {
    "a tab": (b"data:\n\ttrain: x.jsonl\n", "line 2: a tab where YAML wants spaces"),
    "a tab further in": (b"data:\n  train: x\n\tvalidation: y\n", "line 3: a tab"),
    "an open brace": (b"name: x\ndata: {train: x.jsonl\n", "line 2: a bracket or brace"),
    "an open list": (b"data:\n  fields: [a, b\nname: x\n", "line 2: a bracket or brace"),
    "an open quote": (b"seed: 1\nname: 'x\n", "line 2: a quote that opens there is not closed"),
    "latin-1": (b"seed: 1\nname: caf\xe9\n", "line 2: the byte 0xe9 is not UTF-8; in Windows-1252 it is 'é'"),
    "two colons": (b"name: a: b\n", "line 1: a second colon"),
    "one further right": (b"data:\n  train: x\n   validation: y\n", "line 3: a second colon, or a line whose indentation differs"),
    "one further left": (b"data:\n  train: x\n validation: y\n", "line 3: a line whose indentation differs"),
    "a key twice": (b"name: x\nname: y\n", "line 2: a key that was there before"),
    "a tag": (b"name: !x y\nbox: !!python/object:os.system y\n", "a tag"),
    "two documents": (b"name: a\n---\nname: b\n", "line 2: a second document"),
    "a list": (b"- a\n", "is not a mapping of settings"),
    "a text": (b"hello\n", "is not a mapping of settings"),
    "a sign": (b"name: @x\n", "line 1: "),
    "a control sign": (b"name: a\x07b\n", "line 1: the character U+0007"),
    "hours and minutes": (b"train:\n  max_hours: 1:30\n", "line 2: `1:30` is another number"),
    "hours in a list of options": (b"train:\n  optimizer_options: {betas: [0.9, 1:30.5]}\n", "line 2: `1:30.5` is another number"),
    "a number with a zero before it": (b"lora: {r: 010}\n", "line 1: `010` is another number"),
    "names that hold a colon": (b"data:\n  fields:\n    - city\n    - a: b\n", "line 4: `data.fields` takes texts"),
    "a list in a list": (b"lora: {targets: [[q_proj]]}\n", "line 1: `lora.targets` takes texts"),
    "nothing in a list": (b"data:\n  fields:\n    -\n", "line 3: `data.fields` takes texts"),
    "a list of settings": (b"lora: [8]\n", "line 1: `lora` is a list"),
    "no setting": (b"data:\n  trian: x\n", "line 2: there is no setting `data.trian`"),
    "an alias": (b"name: *x\n", "line 1: "),
    "deep": (b"lora: {options: " + b"{a: " * 60 + b"1" + b"}" * 61 + b"\n", "nested more than"),
    "very deep": (b"lora: {options: {a: " + b"[" * 3000 + b"]" * 3000 + b"}}\n", "nested more than"),
    "aliases without end": (b"lora: {options: &a {a: *a}}\n", "aliases"),
    "aliases of aliases": (
        b"lora: {options: {"
        + b", ".join(b"a%d: &a%d [%s]" % (n, n, b", ".join([b"*a%d" % (n - 1) if n else b"1"] * 9)) for n in range(9))
        + b"}}\n",
        "aliases",
    ),
}


@pytest.mark.parametrize("place", ["conf/local.yaml", "conf/my data.yaml"])
@pytest.mark.parametrize("body, sentence", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_named_with_its_line_and_the_mend_can_be_pasted(body, sentence, place, tmp_path):
    file = tmp_path / place
    file.parent.mkdir()
    file.write_bytes(body)
    with pytest.raises(Problem) as caught:
        yaml_file.read(body, place)
    assert caught.value.what.startswith(place)
    assert sentence in caught.value.what
    assert "\n" not in caught.value.what
    for command in re.findall(r"`([^`]+)`", caught.value.hint):
        if command.partition(" ")[0] in ("sed", "iconv", "perl"):
            done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True)
            assert (done.returncode, done.stderr) == (0, b"")
            assert not command.startswith("sed -i")  # a Mac's wants a word behind it
    if "tab" in sentence or "UTF-8" in sentence:  # one paste mends it
        assert yaml_file.read(file.read_bytes(), place)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_file_from_windows_is_read(encoding):
    mark = {"utf-16-le": "\ufeff", "utf-16-be": "\ufeff"}.get(encoding, "")
    assert yaml_file.read(f"{mark}name: é\r\nseed: 3\r\n".encode(encoding), "x") == {"name": "é", "seed": 3}


def test_settings_of_which_none_is_left_say_nothing():
    assert yaml_file.read("seed: 7\ndata:\n  # train: x.jsonl\ntrain:\n", "conf/local.yaml") == {"seed": 7}


def test_numbers_in_tens_and_texts_of_any_looks_are_read():
    read = yaml_file.read(
        "train: {lr: 1e-4, steps: 1_000, max_hours: 0.5, warmup_ratio: 0}\ndata: {fields: [010, 1:30]}\n", "conf/local.yaml"
    )
    assert read == {"train": {"lr": 1e-4, "steps": 1000, "max_hours": 0.5, "warmup_ratio": 0}, "data": {"fields": ["010", "1:30"]}}


def test_a_date_and_what_a_merge_brings_are_the_texts_that_stand_there():
    body = "base: &b {name: 2026-01-05}\n"
    assert yaml_file.read("name: 2026-01-05\nmodel: {note: 12:30:45}", "x") == {"name": "2026-01-05", "model": {"note": "12:30:45"}}
    assert yaml_file.read(f"lora: {{options: {{{body[:4]}: 1}}}}\n<<: {{name: 1e3}}", "x")["name"] == "1e3"


@pytest.mark.parametrize("verb", ["local", "data", "experiment", "run"])
def test_every_file_of_settings_is_read_so(verb, tmp_path, monkeypatch):
    """local.yaml, a group's file, an experiment, a run's config.yaml: text is text, and a broken line is named."""
    group = tmp_path / "conf"
    subprocess.run(["cp", "-r", str(load.FOLDER), str(group)], check=True)
    monkeypatch.setattr(load, "FOLDER", group)
    (group / "local.yaml").unlink(missing_ok=True)
    local, name, overrides = group / "local.yaml", "data: {fields: [land, no]}\nname: 1e3\n", []
    file = local
    if verb == "data":
        file, name, overrides = group / "data/mine.yaml", "defaults: [medical_ie]\nfields: [land, no]\n", ["data=mine", "name=1e3"]
    elif verb == "experiment":
        file, overrides = group / "experiment/mine.yaml", ["experiment=mine"]
        name = "# @package _global_\nname: 1e3\nkind: full\ndata: {fields: [land, no]}\n"
    elif verb == "run":
        saved = load.dump(load.load(["name=1e3"], local=local))
        assert load.read(saved.replace('name: "1e3"', "name: 1e3")).name == "1e3"
        for text in ("\tname: x\n", "name: [\n"):
            with pytest.raises(Problem, match="config.yaml of the run, line "):
                load.read(saved + text)
        return
    file.write_text(name)
    run = load.load(overrides, local=local)
    assert (run.name, run.data.fields) == ("1e3", ["land", "no"])
    for broken in ("data:\n\ttrain: x\n", "name: [\n", "nothing: 3\n"):
        file.write_text(broken)
        with pytest.raises(Problem, match=re.escape(file.name)):
            load.load(overrides, local=local)


def test_what_is_written_is_the_same_text_to_any_reader():
    values = {"name": "1e3", "model": {"revision": "no", "note": "2026-01-05"}, "data": {"also": {"1_000": 0.5, "on": 1.0}}, "runs": "0o17"}
    text = yaml_file.write(values)
    assert yaml.safe_load(text) == values
    assert OmegaConf.to_container(OmegaConf.create(text)) == values
    assert shlex.split(text.splitlines()[0]) == ["name:", "1e3"]


def test_a_file_of_settings_that_is_no_text_is_no_traceback_where_its_bytes_only_name_a_memory(tmp_path, monkeypatch):
    from remote.view import status_cache

    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/local.yaml").write_bytes(b"name: caf\xe9\n")
    monkeypatch.setattr("sys.argv", ["inv", "status", "--", "data.train=a\udcff"])
    assert status_cache.place(tmp_path).parent.name == "status"
