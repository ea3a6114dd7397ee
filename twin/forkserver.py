"""A Python program that is loaded once and then only forked: the same program, without the second that its imports take.

    python twin/forkserver.py SOCKET WORD...          # the caller's end: looks, obeys signals and ends like the program itself
    serve(Path("socket"), main)                 # the other end, in a process that has imported all that `main` needs

Each call is a process of its own, with the caller's arguments, environment, directory, niceness, files and signals. It dies with
its caller. Standard library only, and few modules of it: the caller's end must start in a moment.
"""

import json
import os
import signal
import socket
import sys

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def call(place: str, words: list[str]) -> int:
    """The program's exit code; where nobody serves, OSError before anything has happened."""
    about = {"words": words, "environment": dict(os.environ), "directory": os.getcwd(), "nice": os.nice(0)}
    connection = connect(place)
    os.chdir(about["directory"])
    body = json.dumps(about).encode("utf-8", "surrogateescape")
    socket.send_fds(connection, [len(body).to_bytes(8, "big")], [0, 1, 2])
    connection.sendall(body)
    for number in FORWARDED:
        signal.signal(number, lambda number, _: connection.sendall(bytes([number])))
    code = connection.recv(1)
    if not code:
        os.kill(os.getpid(), signal.SIGKILL)  # as the program was
    return code[0]


def connect(place: str) -> socket.socket:
    """By the socket's own folder: an address has at most 107 bytes."""
    folder, name = os.path.split(place)
    os.chdir(folder or ".")
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(name)
    return connection


def serve(place, main) -> None:
    """Forks for every caller; `main` gets what stands behind the program's name, and returns its exit code."""
    import gc

    here = os.getcwd()
    os.chdir(place.parent)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{place.name}.new")
    listener.listen(128)
    os.rename(f"{place.name}.new", place.name)  # from now on somebody answers
    os.chdir(here)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them: each tells its end itself
    gc.freeze()
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            run_call(connection, main)
        connection.close()


def run_call(connection: socket.socket, main) -> None:
    """The whole life of one call."""
    import atexit
    import threading
    import traceback

    code = 1
    try:
        words = adopt_caller(connection)
        threading.Thread(target=relay_signals, args=(connection,), daemon=True).start()
        code = main(words) or 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 1
    connection.sendall(bytes([code & 255]))
    os._exit(code & 255)


def adopt_caller(connection: socket.socket) -> list[str]:
    """The caller's arguments, once this process has all else of it."""
    head, files, _, _ = socket.recv_fds(connection, 8, 3)
    size, body = int.from_bytes(head, "big"), b""
    while len(body) < size:
        body += connection.recv(size - len(body))
    about = json.loads(body.decode("utf-8", "surrogateescape"))
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.environ.clear()
    os.environ.update(about["environment"])
    os.chdir(about["directory"])
    os.nice(about["nice"] - os.nice(0))
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False, buffering=-1)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, buffering=1, errors="backslashreplace")
    return about["words"]


def relay_signals(connection: socket.socket) -> None:
    """The caller's signals arrive here, and its end."""
    while word := connection.recv(1):
        os.kill(os.getpid(), word[0])
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(call(sys.argv[1], sys.argv[2:]))
