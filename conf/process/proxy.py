"""The proxies that the environment names: one that the clients of AWS and of the Hub cannot use is reported with its variable."""

import os
from urllib.parse import urlsplit

from conf.problem import Problem

NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")  # in small letters as well


def proxy_variables() -> dict[str, str]:
    """The variables that are set, with their values."""
    return {name: value for name, value in os.environ.items() if name.upper() in NAMES and value}


def check_proxies() -> None:
    """A Problem where a variable names a proxy that no client goes through; without it each ends in a traceback of its own."""
    for name, value in proxy_variables().items():
        if fault := _proxy_fault(value):
            hint = f"`env -u {name} inv ...` goes without it; a proxy is named like `export HTTPS_PROXY=http://HOST:PORT`"
            raise Problem(f"{name} names {fault}: neither the client of AWS nor that of the Hub can go through it", hint, "unreachable")


def _proxy_fault(value: str) -> str | None:
    """What is wrong with a proxy's address, without the password that may stand in it; None where nothing is."""
    address = value if "://" in value else f"http://{value}"  # as both clients read it
    kind = address.partition("://")[0]
    if kind.lower() not in ("http", "https"):
        return f"a proxy of the kind {kind!r}"
    try:
        host, _port = urlsplit(address).hostname, urlsplit(address).port
        return None if host else "no address"
    except ValueError:
        return "no address"
