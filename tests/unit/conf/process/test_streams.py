"""A command whose reader has gone ends as the shell's own commands do."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT
from invoke import Collection, Context, task

from conf import cli

VERBS = [["--list"], ["--help", "up"], ["--dry", "image.build", "--", "cloud=twin"]]


def unread(words: list[str], environment: dict, **streams) -> subprocess.CompletedProcess:
    """A command whose stdout is a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    try:
        command = [sys.executable, "-m", "invoke", *words]
        return subprocess.run(command, cwd=ROOT, env=os.environ | environment, stdout=write, text=True, **streams)
    finally:
        os.close(write)


@pytest.mark.parametrize("environment", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_a_command_that_nobody_reads_ends_without_a_word(words, environment):
    ended = unread(words, environment, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_so_it_does_where_both_streams_are_that_pipe():
    assert unread(["--list"], {"PYTHONUNBUFFERED": "1"}, stderr=subprocess.STDOUT).returncode == 141


def test_a_command_without_a_stdout_needs_none():
    command = ["sh", "-c", '"$0" -m invoke --list >&-', sys.executable]
    ended = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


@task
def cut(c):
    raise BrokenPipeError  # of a connection, or of a program that it has started


def test_another_pipe_that_breaks_is_an_error_as_any_other():
    with pytest.raises(BrokenPipeError):
        cli.user_errors(Collection(cut), lambda error: None)["cut"](Context())
