"""`inv bench.*`: each times something beside what it is measured against."""

import shlex
import sys

from invoke import task


@task
def cli(c):
    """Time `inv --list` beside a trivial tasks.py."""
    c.run(shlex.join([sys.executable, "tests/bench/cli.py"]))


@task
def status(c):
    """Time how soon `inv status` shows what it remembers, and what AWS says."""
    c.run(shlex.join([sys.executable, "tests/bench/status.py"]))


@task(help={"at_once": "trials in flight"})
def search(c, at_once=3):
    """Time a search of six trials on the twin's fleet, several at once beside one at a time."""
    c.run(shlex.join([sys.executable, "tests/bench/search.py", "--at-once", str(at_once)]))


@task(help={"steps": "timed steps of each turn", "rounds": "turns of each", "shape": "what a card shows, in ten minutes: llama31-8b"})
def trainer(c, steps=4, rounds=2, shape=None):
    """Time training beside TRL: tokens a second, peak memory, losses; with --shape also proof, resume and scoring."""
    words = [sys.executable, "tests/bench/trainer.py", "--steps", str(steps), "--rounds", str(rounds)]
    c.run(shlex.join(words + (["--shape", shape] if shape else [])))


@task(help={"steps": "timed steps of each turn", "rounds": "turns of each"})
def levers(c, steps=2, rounds=2):
    """Time a step without one lever of training at a time: tokens a second, peak memory, losses."""
    c.run(shlex.join([sys.executable, "tests/bench/levers.py", "--steps", str(steps), "--rounds", str(rounds)]))


@task(help={"steps": "of each run", "seconds": "of a step"})
def fleet(c, steps=40, seconds=0.5):
    """Time four short runs on four instances of a fleet beside the same four on one box, both on the twin; and where the time goes."""
    c.run(shlex.join([sys.executable, "tests/bench/fleet.py", "--steps", str(steps), "--seconds", str(seconds)]))
