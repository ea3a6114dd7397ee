"""Chat templates of others are rendered in a process of its own, with limits on time and memory.

A template is a program. Jinja's sandbox keeps it from files, networks and Python objects, and does not limit time and memory (not even
of parsing: Jinja evaluates constants). So a child process with limits on both, and without any token, parses and renders it.
"""

import atexit
import json
import os
import resource
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from conf.paths import ROOT
from conf.problem import Problem

MEMORY = 1 << 30  # bytes of the child, besides what it has at its start
SECONDS = 10  # of a core, for one conversation: the longest take a tenth of one
LONGEST = 1 << 26  # characters of a conversation: a row has no more
SEEN = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "VIRTUAL_ENV")  # of the environment, for the child
READY = b"ready\n"
STATM = Path("/proc/self/statm")
OTHER = "choose another model: `model.id=owner/name`; or give a template of your own: `data.chat_template=FILE.jinja`"


def render(template: str, values: dict) -> str:
    """What the template makes of the values; TemplateError where it refuses them, a Problem where it takes too much time or memory."""
    return _ask({"template": template, "values": values})


def variables(template: str) -> set[str]:
    """The names that the template reads; TemplateError where it is none."""
    return set(_ask({"template": template}))


def _ask(request: dict) -> Any:
    answer = _child(os.getpid()).ask(request)
    if answer is None:
        _child.cache_clear()
        what = f"the model's chat template takes more than {SECONDS} s of a core, or than {MEMORY >> 30} GB of memory, for a conversation"
        raise Problem(what, OTHER, "model_unavailable")
    if "refused" in answer:
        raise TemplateError(answer["refused"])
    return answer["result"]


@dataclass(frozen=True)
class Child:
    """A process that renders, one conversation after the other."""

    process: subprocess.Popen[bytes]
    owner: int

    def ask(self, request: dict) -> dict | None:
        """Its answer; None where the request ended it."""
        assert self.process.stdin and self.process.stdout  # they are pipes
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if line.endswith(b"\n"):
            return json.loads(line)
        self.end()
        return None

    def end(self) -> None:
        if self.owner == os.getpid():  # not a fork, which ends by itself
            self.process.kill()
            self.process.wait()


@cache
def _child(owner: int) -> Child:
    """The child of this process: a fork must not read the answers to its parent's questions."""
    environment = {name: os.environ[name] for name in SEEN if name in os.environ}
    command = [sys.executable, "-m", "trainer.rows.template_sandbox"]
    # In a session of its own: Ctrl-C must reach the parent alone.
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    child = Child(process, owner)
    atexit.register(child.end)
    if not process.stdout or process.stdout.readline() != READY:
        raise RuntimeError(f"{shlex.join(command)} did not start: its own words are above")
    return child


def serve() -> None:
    """Answer the requests on stdin, one a line, until it ends or a limit is reached."""
    from trainer.rows import tokens

    if (
        address_space := _address_space()
    ):  # where there is no such table, on a Mac, the limit is refused: https://github.com/python/cpython/issues/84698
        _limit(resource.RLIMIT_AS, address_space + MEMORY)
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    for line in sys.stdin.buffer:
        used = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + SECONDS)
        try:
            request = json.loads(line)
            result = tokens.render(request["template"], request["values"]) if "values" in request else tokens.variables(request["template"])
            if len(result) > LONGEST:
                raise TemplateError(f"it writes {len(result):,} characters")
            answer = json.dumps({"result": result})
        except MemoryError:
            os._exit(1)  # this process cannot go on
        except Exception as error:  # of the template, which may do anything
            message = str(error) if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
            answer = json.dumps({"refused": message[:1000]})
        print(answer, flush=True)


def _limit(resource_id: int, soft: int) -> None:
    hard = resource.getrlimit(resource_id)[1]
    resource.setrlimit(resource_id, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _address_space() -> int:
    """Bytes of this process's address space; 0 where the system does not say."""
    return int(STATM.read_text(encoding="utf-8").split()[0]) * resource.getpagesize() if STATM.exists() else 0


if __name__ == "__main__":
    serve()
