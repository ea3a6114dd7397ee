"""A stranger's chat template writes here: in a process of its own, where its time and memory end.

A template is a program. Jinja's sandbox keeps it from files, networks and our own objects, and lets it compute for as long, and take
as much memory, as it likes (also while it is only read: Jinja computes what is constant). So a child that may have only so much of both,
and knows no token, reads and renders it.
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

from jinja2 import TemplateError

from conf.paths import ROOT
from conf.problem import Problem

MEMORY = 1 << 30  # bytes of the child, beside what it has when it begins
SECONDS = 10  # of a core, for one conversation: the longest take a tenth of one
LONGEST = 1 << 26  # characters of a conversation: a row has no more
SEEN = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "VIRTUAL_ENV")  # of the environment, by the child
READY = b"ready\n"
STATM = Path("/proc/self/statm")
OTHER = "choose another model: `model.id=owner/name`; or give a template of your own: `data.chat_template=FILE.jinja`"


def render(template: str, values: dict) -> str:
    """What the template makes of the values; TemplateError where it refuses them, a Problem where it takes too much for it."""
    return _asked({"template": template, "values": values})


def reads(template: str) -> set[str]:
    """The names that the template reads; TemplateError where it is none."""
    return set(_asked({"template": template}))


def _asked(about: dict) -> str | list[str]:
    answer = _child(os.getpid()).ask(about)
    if answer is None:
        _child.cache_clear()
        what = f"the model's chat template takes more than {SECONDS} s of a core, or than {MEMORY >> 30} GB of memory, for a conversation"
        raise Problem(what, OTHER, "model_unavailable")
    if "refused" in answer:
        raise TemplateError(answer["refused"])
    return answer["found"]


@dataclass(frozen=True)
class Child:
    """A process that renders, one conversation after the other."""

    process: subprocess.Popen
    owner: int

    def ask(self, about: dict) -> dict | None:
        """Its answer; None where it has ended over it."""
        try:
            self.process.stdin.write(json.dumps(about).encode() + b"\n")
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
    """This process's own: a fork must not take the answers of whom it was forked from."""
    environment = {name: os.environ[name] for name in SEEN if name in os.environ}
    words = [sys.executable, "-m", "trainer.rows.template_sandbox"]
    # In a session of its own: Ctrl-C is for whom it works for.
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    child = Child(process, owner)
    atexit.register(child.end)
    if process.stdout.readline() != READY:
        raise RuntimeError(f"{shlex.join(words)} did not start: its own words are above")
    return child


def serve() -> None:
    """Answer what stdin asks for, a line each, until that ends or a limit is met."""
    from trainer.rows import tokens

    if held := _held():  # where there is no such table, on a Mac, the limit is refused: https://github.com/python/cpython/issues/84698
        _limit(resource.RLIMIT_AS, held + MEMORY)
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    for line in sys.stdin.buffer:
        used = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + SECONDS)
        try:
            asked = json.loads(line)
            found = tokens.rendered(asked["template"], asked["values"]) if "values" in asked else tokens.read(asked["template"])
            if len(found) > LONGEST:
                raise TemplateError(f"it writes {len(found):,} characters")
            answer = json.dumps({"found": found})
        except MemoryError:
            os._exit(1)  # what is left of this process can do nothing
        except Exception as error:  # of the template, which may do anything
            told = str(error) if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
            answer = json.dumps({"refused": told[:1000]})
        print(answer, flush=True)


def _limit(what: int, soft: int) -> None:
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _held() -> int:
    """Bytes of addresses that this process has; none where the system does not tell."""
    return int(STATM.read_text(encoding="utf-8").split()[0]) * resource.getpagesize() if STATM.exists() else 0


if __name__ == "__main__":
    serve()
