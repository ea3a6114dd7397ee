"""A port of this machine for a server that only this machine can reach."""

import socket

from conf.problem import Problem

HOST, HIGHEST = "127.0.0.1", 65535


def check_number(port: int, command: str) -> None:
    """A Problem where no machine has such a port; `command` names one that it has."""
    if port > HIGHEST:
        raise Problem(f"there is no port {port}; the highest is {HIGHEST}", f"`{command}`", "refused")


def check(port: int, command: str) -> None:
    """A Problem where another program listens on this port; `command` is what takes the number of another one."""
    check_number(port, f"{command} 8000")
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        what = f"port {port} of {HOST} cannot be used ({error.strerror})"
        raise Problem(what, f"take another one: `{command} {port % HIGHEST + 1}`", "refused") from error
