"""Secrets: read in the forms that people store them in, and hidden in everything that is printed or written."""

import base64
import json
import os
import re
import resource
import sys
import traceback
from functools import cache
from pathlib import Path
from urllib.parse import quote

_read: set[str] = set()  # every value that this process has read
NAMED = re.compile(r".*(TOKEN|PASSWORD|API_KEY|SECRET_ACCESS_KEY)")  # in the environment: ours, AWS's, and those of trackers
LOGIN = re.compile(r"(?<=://)[^/\s@]+@")  # in an address, as of an index of packages: a name and a password, or a token
SHORTEST = 8  # a shorter word would blot out innocent text


def value(stored: str) -> str:
    """The token in a secret: the text itself, or of a JSON object the entry with `token` in its name, else its only entry."""
    text = _bare(stored)
    if text.startswith("{"):
        try:
            entries = json.loads(text)
        except ValueError:
            entries = {}
        candidates = [text_of_entry for name, text_of_entry in entries.items() if "token" in name.lower()] or list(entries.values())
        text = _bare(str(candidates[0])) if candidates else text
    know(text)
    return text


def is_token(text: str) -> bool:
    """Whether it can be one: it travels in a line of HTTP, and is not the `NAME=` line of a file of variables."""
    return bool(re.fullmatch("(?![A-Z_]+=)[!-~]+", text))


def _bare(text: str) -> str:
    """Without what files and forms put around it: spaces, line ends, the mark of UTF-8, quotes. lib.sh does the same on the box."""
    around = "[\\s\ufeff\u200b\u00a0]+"
    text = re.sub(f"^{around}|{around}$", "", text)
    return text[1:-1] if text[:1] == text[-1:] and text[:1] in ("'", '"') and len(text) > 1 else text


def know(text: str) -> None:
    """From now on `hide` finds this value."""
    if len(text) >= SHORTEST:
        _read.add(text)


def in_override(word: str) -> list[str]:
    """What nobody may read of an override: the login of an address, the value of a setting that is called like a secret."""
    name, _, text = word.lstrip("+~").partition("=")
    logins = LOGIN.findall(word)
    secrets = logins + [part for login in logins for part in login[:-1].split(":") if len(part) >= SHORTEST]
    if NAMED.fullmatch(name.upper().replace(".", "_")) and text:
        secrets.append(text if len(text) >= SHORTEST else word)
    return secrets


def know_overrides(words: list[str]) -> None:
    """From now on `hide` finds what nobody may read of these overrides."""
    _read.update(text for word in words for text in in_override(word))


def hide(text: str) -> str:
    """`text` with each known secret replaced by as many asterisks: no offset moves."""
    for secret in known():
        text = text.replace(secret, "*" * len(secret))
    return text


def hide_in(path: Path) -> None:
    """Hide the secrets in the file, in place: a process that appends to it can go on."""
    with path.open("r+b") as file:
        content = file.read()
        for secret in (known_secret.encode() for known_secret in known()):
            offset = content.find(secret)
            while offset >= 0:
                file.seek(offset)
                file.write(b"*" * len(secret))
                offset = content.find(secret, offset + len(secret))


def hide_in_tracebacks() -> None:
    """A crash shows its traceback without them, too."""
    sys.excepthook = lambda kind, error, trace: print(
        hide("".join(traceback.format_exception(kind, error, trace))), file=sys.stderr, end=""
    )


def known() -> list[str]:
    """What was read, and what the Hub's own client would read: the longest first, one may be a part of another."""
    secrets = set(_read)
    texts = [text for name, text in os.environ.items() if NAMED.fullmatch(name)]
    token_path = os.environ.get("HF_TOKEN_PATH")
    if token_path and Path(token_path).is_file():
        texts.append(Path(token_path).read_text(encoding="utf-8", errors="ignore"))
    secrets |= {text.strip() for text in texts if len(text.strip()) >= SHORTEST}
    return sorted({form for secret in secrets for form in forms(secret)}, key=len, reverse=True)


@cache
def forms(secret: str) -> frozenset[str]:
    """The secret as others may write it: as it is, in base64 wherever it begins in there, in a URL. lib.sh does the same on the box."""
    encoded = {secret, quote(secret, safe=""), re.sub("%..", lambda sign: sign[0].lower(), quote(secret, safe=""))}
    for before in range(3):  # bytes: base64 writes three in four letters, and those that a neighbour has a part in are left out
        coded = base64.b64encode(b"\0" * before + secret.encode()).decode()
        own_part = coded[-(-before * 8 // 6) : (before + len(secret.encode())) * 8 // 6]
        encoded |= {own_part, own_part.replace("+", "-").replace("/", "_")}
    return frozenset(encoded)


def keep_out_of_core_dumps() -> None:
    """From here on nothing that this process or its children know is written where one of them dies."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
