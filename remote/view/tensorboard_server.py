"""TensorBoard for this user alone: `python -m remote.view.tensorboard_server` with the words that `tensorboard` takes.

Its clients are browsers, which send no key: the kernel says whose the other end of a connection is. A page that got a name of its own to
lead to this machine sends that name.
"""

import ipaddress
import os
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

from absl import app
from tensorboard import default, main_lib, program
from werkzeug.wrappers import Response

TABLE = Path("/proc/net/tcp")


class Server(program.WerkzeugServer):
    def __init__(self, application, flags):
        super().__init__(lambda environ, start: (application if here(environ) else Response(status=403))(environ, start), flags)

    def verify_request(self, request, client_address) -> bool:
        """socketserver asks before anything is read."""
        return not TABLE.exists() or owner(client_address) in (0, os.geteuid())


def here(environ: dict) -> bool:
    name = urlsplit(f"//{environ.get('HTTP_HOST', '')}").hostname or ""
    try:
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def owner(caller: tuple[str, int]) -> int | None:
    """The user whose open socket has this address."""
    address = f"{int.from_bytes(socket.inet_aton(caller[0]), sys.byteorder):08X}:{caller[1]:04X}"
    for line in TABLE.read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if fields[1] == address and fields[9] != "0":  # a socket that is closed counts as root's
            return int(fields[7])
    return None


if __name__ == "__main__":
    main_lib.global_init()
    board = program.TensorBoard(plugins=default.get_plugins(), server_class=Server)
    app.run(board.main, flags_parser=board.configure)
