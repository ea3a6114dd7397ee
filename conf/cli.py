"""What every verb has around its own work: its settings, `--dry`, and a sentence instead of a traceback.

It knows no room. What it needs of them, `tasks.py` puts into Invoke's configuration: `c.fetch_parameters` and `c.twin_environment`.
"""

import copy
import functools
import os
import sys
from typing import Any

from invoke import Collection, Exit


def user_errors(verbs: Collection, explain) -> Collection:
    """The same verbs, which end in a sentence and a hint where the user, AWS or the Hub is at fault, never in a traceback.

    `explain` makes a Problem of what the rooms know, or None.
    """
    for name, verb in list(verbs.tasks.items()):
        verbs.tasks[name] = copy.copy(verb)  # a room's own verb stays as it is
        verbs.tasks[name].body = in_sentences(verb.body, explain)
    for part in verbs.collections.values():
        user_errors(part, explain)
    return verbs


def read_before_invoke(verbs: Collection) -> None:
    """`inv VERB --help` shows the verb's help and does nothing else: Invoke takes it for the text of a verb that wants one. A verb that
    lacks a text is told in a sentence. Nothing happens where this process is no `inv`."""
    from conf.process import argv

    if not argv.of_inv():
        return
    words = argv.before_overrides()
    names = [position for position, word in enumerate(words) if word in verbs.task_names]
    asked = next((position for position, word in enumerate(words) if word in ("-h", "--help")), None)
    if asked is not None and (named := [words[position] for position in names if position < asked]):
        os.execv(sys.executable, [sys.executable, "-m", "invoke", "--help", named[-1]])
    if names and asked is None and (problem := _lacking(verbs, words)):
        sys.exit(f"error: {problem}")


def _lacking(verbs: Collection, words: list[str]):
    """The Problem of a verb that lacks a text; None where all have theirs, and where Invoke itself has to speak."""
    from invoke.exceptions import ParseError
    from invoke.main import program
    from invoke.parser import Parser

    from conf.problem import Problem

    try:
        Parser(initial=program.initial_context, contexts=verbs.to_contexts()).parse_argv(list(words))
    except ParseError as error:
        lacking = error.context.missing_positional_args if error.context else []
        if lacking and error.context:
            name, first = error.context.name, lacking[0]
            return Problem(
                f"`inv {name}` lacks {str(first.name).upper()}: {first.help or 'see its help'}", f"`inv --help {name}` shows it all"
            )
    return None


def in_sentences(body, explain):
    @functools.wraps(body)
    def wrapped(*args, **kwargs):
        from conf import problem
        from conf.process import streams
        from conf.process.screen import screen, shown
        from conf.text import secret

        streams.make_safe()
        screen.begin()
        try:
            return body(*args, **kwargs)
        except problem.Problem as error:
            raise Exit(f"error: {shown(str(error))}", 1) from None
        except KeyboardInterrupt as stop:
            words = str(stop) or "stopped; what runs on the box goes on. `inv status` shows it"
            raise Exit(f"\n{shown(words)}", 130) from None
        except Exception as error:
            if isinstance(error, BrokenPipeError) and streams.let_go_of_pipes():
                raise Exit(code=streams.UNREAD) from None
            meaning = explain(error) or problem.explain(error)
            if meaning is None:
                secret.hide_in_tracebacks()
                raise
            raise Exit(f"error: {shown(str(meaning))}", 1) from None

    return wrapped


def rehearsed(c, intent: str) -> bool:
    """Whether this is a rehearsal (`--dry`); the intent is printed then, and nothing else may happen."""
    if c.config.run.dry:
        print(intent)
    return c.config.run.dry


UNITS = {"h": 3600, "m": 60, "s": 1}


def positive_integer(option: str, text: str | None) -> int | None:
    """What an option says; None where it is left out. Invoke's own numbers end in a traceback for anything else."""
    from conf.problem import Problem

    if text is not None and not (text.isdecimal() and int(text) > 0):
        raise Problem(f"{option} is {text}", f"it takes a whole number, 1 or more: `{option} 10`", reason="bad_config")
    return None if text is None else int(text)


def seconds(option: str, text: str) -> float:
    """What an option says: a number of hours, minutes or seconds, such as 2h, 90m or 30s."""
    from conf.problem import Problem

    number, unit = text[:-1], text[-1:]
    if not (number.replace(".", "", 1).isdecimal() and number.isascii() and unit in UNITS):
        raise Problem(f"{option} is {text!r}", f"it takes hours, minutes or seconds: `{option} 2h`, `{option} 90m`", reason="bad_config")
    return float(number) * UNITS[unit]


def overrides() -> list[str]:
    """The words behind `--`."""
    from conf.process import argv

    return argv.overrides()


def local_settings():
    """The checked settings of a command that needs no cloud."""
    from conf import load

    return load.load(overrides())


def settings(c, words=None, connected=True, fetch=None):
    """The checked settings of this command; for the twin, with this process pointed at it and at nothing else.

    `connected=False` is for verbs that work while the twin does not run; `fetch` reads Parameter Store in another way.
    """
    from conf import load

    def parameters(names, cloud):
        if cloud["loopback"] and not connected:
            return {}
        connect(c, cloud["loopback"], cloud["state"])
        return (fetch or c.fetch_parameters)(names, cloud)

    rehearsal = c.config.run.dry
    run = load.load(overrides() if words is None else words, fetch=None if rehearsal and not fetch else parameters)
    if not run.cloud.loopback or (connected and not rehearsal):
        connect(c, run.cloud.loopback, run.cloud.state or "")  # also where nothing had to be fetched
    if not sys.stderr.isatty():  # after the twin's environment, which forgets every setting of the Hub's client
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    return run


def connect(c, loopback: bool, state: str) -> None:
    """From now on this process talks to the twin and to nothing else; or to AWS, by a proxy that works."""
    from conf.process import proxy

    if not loopback:
        proxy.check_proxies()
        return
    for name, value in c.twin_environment(state).items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    boto3: Any = sys.modules.get("boto3")
    if boto3:  # which keeps the keys of a world before
        boto3.DEFAULT_SESSION = None
