"""Who may come to a port of this world at all: no web page, and where clients send no key, nobody but the owner of the world and root."""

import ipaddress
import os
import socket
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from werkzeug.wrappers import Response

TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


def programs_only(application: Callable) -> Callable:
    """The same WSGI application for programs only: of a page, a browser says where it is from, or the name that it got to lead here."""

    def answer(environ: dict, start_response: Callable) -> Iterable[bytes]:
        if "HTTP_ORIGIN" in environ or not is_local_address(environ.get("HTTP_HOST", "")):
            return Response("no web page may ask here\n", 403, content_type="text/plain")(environ, start_response)
        return application(environ, start_response)

    return answer


def is_local_address(host: str) -> bool:
    """Whether it is an address, which nobody else's DNS leads anywhere, or `localhost`."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def is_own_socket(caller: tuple[str, int]) -> bool:
    """Whether the socket that a connection comes from is of the user who runs this, or of root."""
    return uid_of(caller) in (0, os.geteuid())


def uid_of(caller: tuple[str, int]) -> int | None:
    """Whose socket is at this address; None where nobody can say."""
    if not Path(TABLES[0]).exists():
        return own_processes(caller)
    plain, mapped = (f"{int.from_bytes(word, sys.byteorder):08X}" for word in (socket.inet_aton(caller[0]), b"\0\0\xff\xff"))
    address = (plain, f"{0:016X}{mapped}{plain}")  # as the kernel writes IPv4 in either table
    for table in TABLES:
        for line in Path(table).read_text(encoding="ascii").splitlines()[1:] if Path(table).exists() else ():
            fields = line.split()
            at, _, port = fields[1].partition(":")
            if at in address and int(port, 16) == caller[1] and fields[9] != "0":  # one that is closed counts as root's
                return int(fields[7])
    return None


def own_processes(caller: tuple[str, int]) -> int | None:
    """Where no table of the kernel says it: whether a process of this user has the socket."""
    for process in psutil.process_iter():
        try:
            if process.uids().effective == os.geteuid() and any(one.laddr == caller for one in process.net_connections("tcp")):
                return os.geteuid()
        except psutil.Error:
            continue
    return None
