"""Secrets are read in the forms that people store them in, and shown to nobody."""

import base64
import os
import shlex
import subprocess
import sys
from urllib.parse import quote

import pytest

from conf.text import secret
from remote.plan import script

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


ODD = "hf_with/signs+that=URLs~have"


@pytest.mark.parametrize("token", [TOKEN, ODD])
def test_it_is_hidden_in_base64_and_in_a_url_wherever_it_stands_there(token):
    secret.know(token)
    for user in ("", "m", "me", "someone:"):
        for code in (base64.b64encode, base64.urlsafe_b64encode):
            coded = code(f"{user}{token}:behind".encode()).decode()
            shown = secret.hide(f"Authorization: Basic {coded}.")
            assert len(shown) == len(f"Authorization: Basic {coded}.")
            clear = [letters for letters in shown.split()[-1].rstrip(".=").split("*") if letters]
            assert all(token[3:] not in str(base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_")) for part in clear)
            assert "*" * (len(token) - 2) in shown
    written = quote(token, safe="")
    assert token[3:7] not in secret.hide(f"{written} {written.replace('%2F', '%2f').replace('%2B', '%2b').replace('%3D', '%3d')}")


def test_the_box_hides_the_same_forms(tmp_path):
    for token in (TOKEN, ODD, "short"):
        forms = script.body("lib") + script.body("container")
        text = script.settings_block({"MOUNT_PATH": "/mnt", "REGION": "us-east-1"}) + forms + f"\nforms {shlex.quote(token)}\n"
        done = subprocess.run(["bash"], input=text, text=True, capture_output=True, env=os.environ | {"BOX_ROOT": str(tmp_path)})
        assert set(done.stdout.split()) == (secret.forms(token) if len(token) >= secret.SHORTEST else {token}), done.stderr


def test_what_trackers_and_aws_log_in_with_is_hidden_too(monkeypatch):
    for name in ("WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, f"value of {name}")
        assert secret.hide(f"it is {name}: value of {name}!").startswith(f"it is {name}: ***")


def test_no_process_of_ours_leaves_its_memory_behind():
    code = "from conf.process import streams; streams.make_safe(); import resource, subprocess, sys;"
    code += "print(resource.getrlimit(resource.RLIMIT_CORE), flush=True); subprocess.run(['bash', '-c', 'ulimit -c; ulimit -Hc'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["(0,", "0)", "0", "0"]


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
