import shlex
import subprocess
import sys

import pytest

from conf import cli, commands, load
from conf.problem import Problem
from conf.text import secret

TYPED = ["cloud=twin", "cloud.state='/a b'", "data.train=it's.jsonl", "experiment=smoke"]


@pytest.fixture
def typed(monkeypatch):
    """Words behind `--`."""
    return lambda *words: monkeypatch.setattr(sys, "argv", ["inv", "up", "--", *words])


def words(text: str) -> list[str]:
    return shlex.split(text.partition("`")[2].partition("`")[0])


def test_a_command_has_what_was_typed_in_its_order_and_ready_for_a_shell():
    found = commands.runnable("start it with `inv up`; then `inv deploy train`", TYPED)
    first, second = found.split("; then ")
    assert words(first) == ["inv", "up", "--", *TYPED] and words(second) == ["inv", "deploy", "train", "--", *TYPED]


def test_a_text_stays_as_it_is_where_nothing_was_typed():
    assert commands.runnable("`inv up -- box.ssh=true`", []) == "`inv up -- box.ssh=true`"


@pytest.mark.parametrize("own", ["box.ssh=true", "++box.ssh=true", "'box.ssh=true'", "'+box.ssh=true' lora.r=8"])
def test_a_setting_that_the_command_has_itself_keeps_its_value(own):
    found = commands.runnable(f"`inv up -- {own}`", ["cloud=twin", "box.ssh=false", "~train.report_to"])
    assert words(found) == ["inv", "up", "--", "cloud=twin", "~train.report_to", *shlex.split(own)]


@pytest.mark.parametrize("word", [*TYPED, "data.train=a`b", "data.train=line\nend", "data.train=\x1b[31m'\\", "data.train=\udce9.jsonl"])
def test_a_second_time_changes_nothing_and_a_shell_gives_back_every_letter(word):
    once = commands.runnable("`inv up -- lora.r=8`", [word])
    assert once == commands.runnable(once, [word]) and "\x1b" not in once and "\n" not in once
    script = f"printf '%s' {once.strip('`').partition(' -- ')[2].removesuffix(' lora.r=8')}"
    said = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout
    assert said.decode("utf-8", "surrogateescape") == word


@pytest.mark.parametrize("word", ["+hub.token=hf_abcdefgh", "cloud.build_args={INDEX: https://me:pass@index}", "run_id=very-secret-word"])
def test_a_secret_is_in_no_command(word, monkeypatch):
    monkeypatch.setattr(secret, "_read", {"very-secret-word"})
    assert words(commands.runnable("`inv up`", ["cloud=twin", word])) == ["inv", "up", "--", "cloud=twin"]


@pytest.mark.parametrize(
    "word",
    ["hub.token=hf_abcdefgh", "hub.token=abc", "data.train=https://me:hunter22@index/a,b", "x.api_key=abcdefgh=", "seed=https://a:b@c"],
)
def test_no_error_repeats_a_secret_that_was_typed(word, typed, monkeypatch):
    monkeypatch.setattr(secret, "_read", set())
    typed("cloud=twin", word)
    with pytest.raises(cli.Exit) as ended:
        cli.in_sentences(lambda: load.load(cli.overrides()), lambda error: None)()
    for hidden in ("hf_abcdefgh", "token=abc", "hunter22", "abcdefgh=", "a:b@"):
        assert hidden not in ended.value.message


def test_the_name_of_a_secret_is_none():
    assert "cloud.hub_secret=mine" in commands.runnable("`inv up`", ["cloud.hub_secret=mine"])


def test_what_a_sweep_tries_is_in_its_own_command_alone():
    swept = ["cloud=twin", "lora.r=8,16", "train.lr=interval(1e-5,1e-3)", "data.fields=[a,b]"]
    assert words(commands.runnable("`inv sweep --name x`", swept))[5:] == swept
    assert words(commands.runnable("`inv up`", swept))[3:] == ["cloud=twin", "data.fields=[a,b]"]
    assert words(commands.runnable("`inv train`", [*swept, "lora.r=8"]))[3:] == ["cloud=twin", "data.fields=[a,b]", "lora.r=8"]


@pytest.mark.parametrize("text", ["`inv data.build`", "`inv bench.cli`", "`env -u X inv ...`", "`make test`", "inv up", "`inv --list`"])
def test_what_takes_no_settings_gets_none(text):
    assert commands.runnable(text, TYPED) == text


def test_an_error_names_commands_as_they_were_typed(typed):
    def body():
        raise Problem("no box: `inv status`", "`inv up`")

    typed("cloud=twin")
    with pytest.raises(cli.Exit) as ended:
        cli.in_sentences(body, lambda error: None)()
    assert ended.value.message == "error: no box: `inv status -- cloud=twin`\n\nhint: `inv up -- cloud=twin`"


def test_words_that_contradict_each_other_end_in_a_sentence(typed):
    def body():
        cli.overrides()

    typed("train.hours=1", "train.max_hours=2")
    with pytest.raises(cli.Exit, match="one setting with two values"):
        cli.in_sentences(body, lambda error: None)()


def test_a_long_text_of_somebody_else_takes_no_time():
    assert commands.runnable("`inv a" + " -- " * 200_000, ["cloud=twin"]).startswith("`inv a -- ")


def test_a_run_s_words_are_typed_again_on_another_cloud(typed, monkeypatch, tmp_path):
    """From another folder too; what only its cloud had, a secret, a sweep's values and what is no setting are left out."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "it's mine.jsonl").write_text("{}\n")
    typed("cloud=twin", "cloud.state=/a", "data.train=it's mine.jsonl", "data.fields=[a,b]", "hub.token=hf_abcdefgh", "lora.r=8,16")
    recorded = commands.recorded()
    monkeypatch.chdir("/")
    again = commands.again([*recorded, "rm -rf=1"], "cloud=aws")
    run = load.load(shlex.split(again))
    assert (run.cloud.name, run.data.fields, run.data.train) == ("aws", ["a", "b"], str(tmp_path / "it's mine.jsonl"))
    assert len(shlex.split(again)) == 3
    typed("cloud=twin", "cloud.state=/a", "seed=3")
    assert commands.runnable(f"`inv up -- {again}`").count("cloud") == 1 and "seed=3" in commands.runnable(f"`inv up -- {again}`")
