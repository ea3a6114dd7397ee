"""A chat template of a stranger renders what transformers would render, in a process whose time, memory and knowledge have an end."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from jinja2 import TemplateError
from transformers import AutoTokenizer

from conf.paths import ROOT
from conf.problem import Problem
from trainer.rows import chat_template, description, prompt, template_sandbox, tokens

TURNS = [{"role": "user", "content": "Wie heißt du?\n 😀"}, {"role": "assistant", "content": "<|im_end|> é"}]
TAKES_ALL = {
    "text": "{{ 'a' * 20000000000 }}",
    "text of a row": "{{ messages[0].content * 10 ** 10 }}",
    "while it is read": "{% set x = 'a' * 10 ** 11 %}{{ x }}",
    "list": "{% set all = namespace(x=[1]) %}{% for i in range(90000) %}{% set all.x = all.x + all.x %}{% endfor %}",
    "format": "{{ '%1000000000000d' % 1 }}",
    "width": "{{ 'a'.center(10 ** 11) }}",
    "number": "{{ 9 ** (9 ** 9) }}",
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "recursion": "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
}


@pytest.mark.slow
@pytest.mark.parametrize("text", TAKES_ALL.values(), ids=TAKES_ALL)
def test_a_template_that_takes_all_time_or_memory_is_a_sentence(text):
    """One took 19 GB, and with it the machine's memory."""
    with pytest.raises((Problem, TemplateError)) as caught:
        template_sandbox.render(text, {"messages": TURNS})
    assert not isinstance(caught.value, Problem) or "takes more than" in caught.value.what
    assert template_sandbox.render("{{ 1 + 1 }}", {}) == "2", "the next one is not harmed"
    with suppress(Problem, TemplateError):  # Jinja computes what is constant, and lets be what it cannot
        assert template_sandbox.variables(text) == set()
    assert template_sandbox.render("{{ 1 + 1 }}", {}) == "2"


@pytest.mark.slow
def test_the_model_of_such_a_template_is_refused_on_the_laptop_and_in_training(tiny):
    for tokenizer in (AutoTokenizer.from_pretrained(tiny), tokens.Tokens(tiny)):
        tokenizer.chat_template = "{{ 'a' * 20000000000 }}"
        with pytest.raises(Problem, match="the model's chat template takes more than") as caught:
            prompt.Prompt(tokenizer, description.stops(tiny))
        assert caught.value.reason == "model_unavailable"


@pytest.mark.parametrize("name", ["tiny", "smollm2-135m"])
def test_it_writes_what_transformers_writes(name):
    folder = ROOT / ".cache/models" / name
    if not folder.exists():
        pytest.skip("`make setup` makes it")
    theirs = AutoTokenizer.from_pretrained(folder)
    for generation in (True, False):
        for turns in (TURNS, TURNS[:1]):
            whole = theirs.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation)
            assert (
                chat_template.render(theirs, turns, add_generation_prompt=generation)
                == chat_template.render(tokens.Tokens(folder), turns, add_generation_prompt=generation)
                == whole
            )


def test_it_sees_no_token_no_file_and_none_of_our_objects(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_the_users_own")
    template_sandbox._child.cache_clear()
    environment = f"/proc/{template_sandbox._child(os.getpid()).process.pid}/environ"
    with open(environment, "rb") as file:
        assert b"hf_the_users_own" not in file.read()
    for evil in (
        "{{ cycler.__init__.__globals__ }}",
        "{{ messages.append(1) }}",
        "{% include '/etc/passwd' %}",
        "{{ ''.__class__.mro() }}",
    ):
        with pytest.raises(TemplateError):
            template_sandbox.render(evil, {"messages": []})


def test_what_goes_wrong_in_it_is_the_templates(monkeypatch):
    for evil in (
        "{{ 1 / 0 }}",
        "{{ messages[7].content + 1 }}",
        "{{ raise_exception('no system turn') }}",
        "{% nonsense %}",
    ):
        with pytest.raises(TemplateError):
            template_sandbox.render(evil, {"messages": TURNS})
    assert template_sandbox.render("{{ '\udffe' }}{{ x }}", {"x": "\udffe"}) == "\udffe\udffe"


MAC = """
import pathlib, resource
from trainer.rows import template_sandbox
original = resource.setrlimit
def setrlimit(what, limits):
    if what == resource.RLIMIT_AS:
        raise ValueError("current limit exceeds maximum limit")
    original(what, limits)
resource.setrlimit, template_sandbox.STATM = setrlimit, pathlib.Path("/nowhere")
template_sandbox.serve()
"""


def test_a_mac_which_refuses_a_limit_of_memory_renders_all_the_same():
    request = json.dumps({"template": "{{ x }}", "values": {"x": "ü"}})
    done = subprocess.run([sys.executable, "-c", MAC], cwd=ROOT, input=f"{request}\n", capture_output=True, text=True)
    assert done.stdout.splitlines()[1:] == [json.dumps({"result": "ü"})], done.stderr


def test_it_ends_with_its_parent():
    code = "import os; from trainer.rows import template_sandbox as sandbox; sandbox.render('', {})\n"
    code += "print(sandbox._child(os.getpid()).process.pid)"
    for more in ("", "; os.kill(os.getpid(), 9)"):
        done = subprocess.run([sys.executable, "-uc", code + more], cwd=ROOT, capture_output=True, text=True)
        deadline = time.monotonic() + 600
        while _is_renderer(int(done.stdout)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _is_renderer(int(done.stdout))


def test_a_fork_has_a_child_of_its_own_and_ends_no_other():
    code = "import os, sys; from trainer.rows import template_sandbox\n"
    code += "render = lambda: template_sandbox.render('{{ x }}', {'x': os.getpid()}); render()\n"
    code += "if not (pid := os.fork()): sys.exit(render() != str(os.getpid()))\n"
    code += "sys.exit(os.waitpid(pid, 0)[1] or render() != str(os.getpid()) or template_sandbox._child.cache_info().misses != 1)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def _is_renderer(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"trainer.rows.template_sandbox" in file.read()
    except OSError:
        return False


def test_a_model_whose_files_are_no_json_is_a_sentence(tmp_path):
    for body in ("[" * 100_000, "{", "\udcff".encode("utf-8", "surrogateescape").decode("latin-1")):
        (tmp_path / "config.json").write_text(body)
        with pytest.raises(Problem, match=r"config\.json cannot be read"):
            description.stops(tmp_path)
