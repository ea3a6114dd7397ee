"""The Hub token in its secret: put there once, from a file, standard input or the keyboard."""

import getpass
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from conf.problem import Problem
from conf.process.screen import screen
from conf.text import secret
from remote.aws.session import Aws

TOKENS = "https://huggingface.co/settings/tokens shows yours"

TokenState = Literal["there", "stored", "none yet"]


@dataclass(frozen=True)
class Token:
    token: TokenState


def store(aws: Aws, token: Path | None, ask_for_it: bool, decode: Callable[[bytes], str]) -> Token:
    """Put the Hub token into its secret, where one was given or there is none yet."""
    if token is None and has_token(aws):
        return Token("there")
    value = _read_token(token, ask_for_it, decode)
    if not value:
        name = aws.cloud.hub_secret
        screen.note(f"  the secret `{name}` has no value yet: `inv init --token FILE` puts a Hub token into it; `-` reads standard input")
        return Token("none yet")
    client = aws.client("secretsmanager")
    if token is None or not has_token(aws) or aws.secret(aws.cloud.hub_secret) != value:
        client.put_secret_value(SecretId=aws.cloud.hub_secret, SecretString=value)
        return Token("stored")
    return Token("there")


def has_token(aws: Aws) -> bool:
    client = aws.client("secretsmanager")
    try:
        return bool(aws.secret(aws.cloud.hub_secret))
    except client.exceptions.ResourceNotFoundException:
        return False


def _read_token(token: Path | None, ask_for_it: bool, decode: Callable[[bytes], str]) -> str:
    if token is None:
        with screen.paused():
            typed = getpass.getpass("Hub token (https://huggingface.co/settings/tokens; empty: later): ") if ask_for_it else ""
        return _checked(typed) if typed.strip() else ""
    try:
        data = sys.stdin.buffer.read() if str(token) == "-" else token.expanduser().read_bytes()
    except OSError as error:
        raise Problem(f"cannot read the token: {error}", "`--token FILE`; `-` reads standard input", reason="refused") from error
    try:
        return _checked(decode(data))
    except ValueError as error:
        raise Problem(f"that is no Hub token: {error}", TOKENS, "refused") from error


def _checked(text: str) -> str:
    value = secret.value(text)
    if not secret.is_token(value):
        raise Problem("that is no Hub token: it is empty, more than the token itself, or has letters that no token has", TOKENS, "refused")
    return value
