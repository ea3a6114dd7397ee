"""The Hub token on the box: from both forms of a secret into a file of root's, again after a rotation, and out of every log."""

import os
import subprocess
from types import SimpleNamespace

import pytest

from conf.problem import Problem
from conf.text import secret
from data.readers.text import decode
from remote.account import hub_token
from remote.plan import script as scripts
from remote.runs import hub

TOKEN, NEXT = "hf_the_first_token_of_all", "hf_the_token_after_it"
AWS = """#!/bin/bash
case "$1" in
  secretsmanager) cat "$SECRET" ;;
  *) : ;;
esac
"""
GIVEN = {"REGION": "us-east-1", "MOUNT_PATH": "/mnt", "BUCKET": "b", "PREFIX": "p", "LOG_GROUP": "/l", "STREAM_PREFIX": "s"}
GIVEN |= {"HUB_SECRET": "hub/token", "TOKEN_AGE": "600"}


@pytest.fixture
def box(tmp_path):
    """Runs bash text behind lib.sh and ship.sh in a box's root, with Secrets Manager in a file."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "aws").write_text(AWS)
    (tools / "aws").chmod(0o755)
    (tools / "chown").symlink_to("/bin/true")  # only root gives files away

    def run(text: str) -> str:
        parts = "\n".join(scripts.body(name) for name in ("lib", "container", "ship"))
        script = f"{scripts.settings_block(GIVEN)}{parts}\n{text}"
        place = {"BOX_ROOT": str(tmp_path / "root"), "PATH": f"{tools}:{os.environ['PATH']}", "SECRET": str(tmp_path / "secret")}
        return subprocess.run(["bash"], input=script, env=place, text=True, capture_output=True, check=True).stdout

    run.secret, run.state = tmp_path / "secret", tmp_path / "root/run/fine-tune-slm"
    return run


FORMS = [TOKEN, f'{{"token": "{TOKEN}"}}', f'{{"user": "me",\n  "HF_TOKEN" : "{TOKEN}", "more": "x"}}', f'{{"value": "{TOKEN}"}}']
FORMS += [
    f"\ufeff{TOKEN}\r",
    f'"{TOKEN}"',
    f"'{TOKEN}' ",
    f'\ufeff{{"token": " {TOKEN}"}}',
    f"\u200b{TOKEN}\u00a0",
]  # as people's files have it


@pytest.mark.parametrize("stored", FORMS)
def test_both_forms_of_a_secret_give_a_file_that_only_the_trainer_reads(box, stored):
    box.secret.write_text(stored, encoding="utf-8")
    box("fetch_token")
    assert secret.value(stored) == TOKEN  # on the laptop, too
    assert (box.state / "trainer/hub-token").read_text() == TOKEN + "\n"
    assert (box.state / "trainer/hub-token").stat().st_mode & 0o777 == 0o400
    assert (box.state / "hub-tokens").stat().st_mode & 0o777 == 0o600


def test_a_rotated_token_replaces_the_old_one_when_it_is_old_enough(box):
    box.secret.write_text(TOKEN)
    box("fetch_token")
    box.secret.write_text(NEXT)
    box("rotate_token")
    assert (box.state / "trainer/hub-token").read_text() == TOKEN + "\n"
    os.utime(box.state / "trainer/hub-token", (0, 0))
    box("rotate_token")
    assert (box.state / "trainer/hub-token").read_text() == NEXT + "\n"
    assert set((box.state / "hub-tokens").read_text().split()) == secret.forms(TOKEN) | secret.forms(NEXT)


def test_a_secret_that_cannot_be_read_again_leaves_the_token_at_hand(box):
    box.secret.write_text(TOKEN)
    box("fetch_token")
    box.secret.unlink()
    os.utime(box.state / "trainer/hub-token", (0, 0))
    box("rotate_token")
    assert (box.state / "trainer/hub-token").read_text() == TOKEN + "\n"


def test_every_token_that_was_ever_fetched_is_out_of_the_log_and_no_offset_moves(box, tmp_path):
    for value in (TOKEN, NEXT):
        box.secret.write_text(value)
        box("fetch_token")
    log = tmp_path / "log.txt"
    text = f"\nBearer {TOKEN}: 401\nä then {NEXT}{NEXT}\n"
    log.write_text(text)
    box(f"hide '{log}'")
    assert log.read_text() == text.replace(TOKEN, "*" * len(TOKEN)).replace(NEXT, "*" * len(NEXT))


def test_a_box_that_has_fetched_nothing_hides_nothing(box, tmp_path):
    (tmp_path / "log.txt").write_text("all of it\n")
    box(f"hide '{tmp_path / 'log.txt'}'")
    assert (tmp_path / "log.txt").read_text() == "all of it\n"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
def test_a_token_is_read_from_a_file_of_any_origin(tmp_path, form, encoding):
    (tmp_path / "token").write_bytes(
        form.encode(encoding) + "\r\n".encode(encoding).removeprefix(b"\xff\xfe").removeprefix(b"\xef\xbb\xbf")
    )
    assert hub_token._read_token(tmp_path / "token", False, decode) == TOKEN


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"hf_a b", b"caf\xe9", "hf_é".encode(), b"hf_a\x00b", b"HF_TOKEN=hf_ab", b"PK\x03\x04\xff\xff"]
)
def test_a_file_that_holds_no_token_is_refused(tmp_path, content):
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(Problem, match="that is no Hub token"):
        hub_token._read_token(tmp_path / "token", False, decode)


def test_a_secret_that_holds_no_token_is_a_sentence(monkeypatch):
    class Account:
        cloud = SimpleNamespace(hub_secret="hub/token")

        def client(self, _):
            return SimpleNamespace(exceptions=SimpleNamespace(ResourceNotFoundException=KeyError))

        def secret(self, _):
            return secret.value("hf_é and more")

    with pytest.raises(Problem, match="what the secret `hub/token` holds is no Hub token"):
        hub.token(Account())
