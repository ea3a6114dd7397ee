"""Overrides with values that may be anything, such as a path: Hydra, and a shell into which a hint is pasted, take them as meant."""

import re
import shlex

from conf.text import secret
from conf.text.visible import CONTROL

ODD = re.compile(f"{CONTROL.pattern}|[`\n\t\ud800-\udfff]")  # what would end the line of a message or a command in it, or is no letter


def quoted(value: object) -> str:
    """The text in quotes, as the value of an override or a part of one."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text=str(value), quote=Quote.single).with_quotes()


def setting(name: str, value: object) -> str:
    """`NAME=VALUE`, quoted for Hydra, for the shell and for the message where any would make something else of it."""
    plain = re.fullmatch(r"[\w./:@+-]+", str(value))
    return shell_word(f"{name}={value if plain else quoted(value)}")


def without_secrets(words: list[str]) -> str:
    """The words of a command as a shell takes them, without those that hold what nobody may read off a screen."""
    return " ".join(shell_word(word) for word in words if not secret.in_override(word) and secret.hide(word) == word)


def shell_word(word: str) -> str:
    """The word as a shell takes it; one that holds what no line may is written in the escapes of bash and zsh."""
    if not ODD.search(word):
        return shlex.quote(word)
    return "$'" + "".join(f"\\{letter}" if letter in "'\\" else _escaped(letter) for letter in word) + "'"


def _escaped(letter: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", "surrogateescape")) if ODD.match(letter) else letter
