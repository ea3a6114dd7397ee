"""Secrets are read in the forms that people store them in, and shown to nobody."""

import os

import pytest

from conf import secret

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    "stored",
    [
        TOKEN,
        f"  {TOKEN}\n",
        f'{{"token": "{TOKEN}"}}',
        f'{{"user": "me", "HF_TOKEN": "{TOKEN}"}}',
        f'{{"api-token":\n "{TOKEN}", "note": "a token for {{}}"}}',
        f'{{"value": "{TOKEN}"}}',
    ],
)
def test_plain_text_and_json_give_the_token(stored):
    assert secret.value(stored) == TOKEN


def test_what_was_read_is_hidden_by_its_value_and_moves_no_offset():
    secret.value(TOKEN)
    shown = secret.hide(f"401 for {TOKEN}, sent as Bearer {TOKEN}.")
    assert TOKEN not in shown and shown.startswith("401 for *") and shown.endswith("*.")
    assert len(shown) == len(f"401 for {TOKEN}, sent as Bearer {TOKEN}.")


def test_the_environments_own_token_and_the_one_in_its_file_are_hidden(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_environment")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    (tmp_path / "token").write_text("hf_before_rotation\n")
    assert "hf_" not in secret.hide("hf_of_the_environment hf_before_rotation")
    (tmp_path / "token").write_text("hf_after_rotation\n")
    assert "hf_" not in secret.hide("hf_after_rotation")


def test_a_short_word_is_no_secret():
    secret.know("a")
    assert secret.hide("banana") == "banana"


def test_a_file_is_hidden_in_place_while_another_process_appends_to_it(tmp_path):
    secret.know(TOKEN)
    log = tmp_path / "log.txt"
    log.write_bytes(b"one " + TOKEN.encode() + b"\ntwo " + TOKEN.encode() + b"\n")
    size, writer = log.stat().st_size, os.open(log, os.O_WRONLY | os.O_APPEND)
    secret.hide_in(log)
    os.write(writer, b"three\n")
    os.close(writer)
    content = log.read_bytes()
    assert TOKEN.encode() not in content and len(content) == size + 6 and content.endswith(b"\nthree\n")
