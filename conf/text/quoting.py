"""Overrides with values that may be anything, such as a path: Hydra, and a shell into which a hint is pasted, take them as meant."""

import re
import shlex


def quoted(value: object) -> str:
    """The text in quotes, as the value of an override or a part of one."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text=str(value), quote=Quote.single).with_quotes()


def setting(name: str, value: object) -> str:
    """`NAME=VALUE`, quoted for Hydra and for the shell where either would make something else of it."""
    plain = re.fullmatch(r"[\w./:@+-]+", str(value))
    return shlex.quote(f"{name}={value if plain else quoted(value)}")
