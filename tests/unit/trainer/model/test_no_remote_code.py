"""A model's own Python is never run: not by asking on a terminal, which is what transformers does where nothing is said."""

import ast
import json

import pytest

from conf.paths import ROOT
from conf.problem import Problem
from trainer.model import model


def test_every_load_says_that_the_code_of_a_repository_is_not_run():
    loads = 0
    for path in (ROOT / "trainer").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            function = call.func if isinstance(call, ast.Call) else None
            if not isinstance(function, ast.Attribute) or function.attr not in ("from_pretrained", "from_config"):
                continue
            if ast.unparse(function.value).startswith("Auto"):  # the classes that would take one of the repository's
                loads += 1
                said = [ast.unparse(each.value) for each in call.keywords if each.arg is None]
                assert any(words.endswith("NO_REMOTE_CODE") for words in said), f"{path}:{call.lineno}"
    assert loads > 4 and model.NO_REMOTE_CODE == {"trust_remote_code": False}


def test_the_code_of_a_tokenizer_and_of_a_config_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # what a person may answer who is asked
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w')\nfrom transformers import PretrainedConfig as Own, PreTrainedTokenizerFast as Tokenizer\n"
    (tmp_path / "own.py").write_text(code)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": [None, "own.Tokenizer"]}}))
    for load in (lambda: model.load_tokenizer("some/model", tmp_path), lambda: model.shape_of_config("some/model", tmp_path)):
        with pytest.raises(Problem):
            load()
    assert not ran.exists()
