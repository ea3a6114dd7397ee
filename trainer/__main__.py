"""python -m trainer: train one model as its settings say, into one run folder.

    python -m trainer model=tiny train.lr=1e-3                   makes a run folder of its own
    python -m trainer run RUN [SHA256]                           works in RUN, and goes on where an attempt before it stopped
    accelerate launch --num_processes 2 -m trainer ...           the same run on two GPUs
    python -m trainer preflight model=tiny ...                   only shows what a run would see and need, on this machine
    python -m trainer predict RUN <TEXTS                         a finished run's answers, a JSON line each
    python -m trainer examine RUN ROWS OUT                       a finished run's scores on other rows
    python -m trainer -m lora.r=8,16 train.lr=1e-4,2e-4          a sweep: one run after the other, each in a process of its own
    python -m trainer -m hydra.sweeper.n_trials=12 'train.lr=interval(1e-5,1e-3)'     a search: values drawn by the scores so far

A user meets sentences, never a traceback; what nobody foresaw leaves its traceback in the log. Either way the run folder says why.

Hydra composes what is typed here. What a run's config.yaml holds may have come from anywhere: it is read as data (`run`), and where the
command says its hash, only if it has that.
"""

import logging
import os
import shlex
import signal
import sys
import time
import traceback
import warnings
from contextlib import suppress
from pathlib import Path

import hydra
from omegaconf import DictConfig

from conf import load, renamed, run_ids, yaml_file
from conf.problem import Problem
from conf.schema import Recipe
from conf.text import secret
from trainer import files
from trainer.record import record
from trainer.record.record import Record, sealed
from trainer.sweep import sweeper
from trainer.train.distributed import Listener, Team

FOR_THE_LOG = ("crashed", "out_of_memory", "disk_full")  # where the traceback may tell more than the sentence


@hydra.main(version_base="1.3", config_path="../conf", config_name="trainer")
def main(composed: DictConfig) -> None:
    try:
        settings, team = load.recipe(composed), Team()
        folder = team.agree(_own_folder(settings) if team.first else None)
        train(settings, folder, team)
        if team.first:
            Record(folder).phase("done")
    except Problem as problem:
        print(f"error: {secret.hide(str(problem))}", file=sys.stderr, flush=True)
        sys.exit(1)


def train(settings: Recipe, folder: Path, team: Team | None = None) -> None:
    """Make the run in `folder`, or leave in its state why that was not possible."""
    if sealed(folder):
        raise Problem(f"run {folder.name} is finished and sealed: it is never trained again", "start a new run", "refused")
    team = team or Team()
    begun, kept = time.monotonic(), Record(folder) if team.first else Listener()
    signal.signal(signal.SIGTERM, _ended)
    try:
        kept.phase("running")
        from trainer.train import recipe  # torch and transformers take seconds to import: only for settings that are right

        recipe.run(settings, folder, kept, begun, team)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the run is sealed: what is left takes no time
    except BaseException as error:
        from trainer.record.failure import diagnose

        problem = diagnose(error)
        if problem.reason in FOR_THE_LOG and problem is not error:
            print(secret.hide(traceback.format_exc()), file=sys.stderr, flush=True)
        with suppress(OSError):  # a full disk may have no room for this either; the sentence is printed all the same
            kept.phase("failed", problem.reason, problem.what, problem.hint)
        raise problem from None


def run(folder: Path, sha256: str | None) -> None:
    """Make the run in `folder` as its own config.yaml says; a Problem, also left in its state, where that is not the one of the hash."""
    team = Team()
    try:
        settings = record.settings(folder, sha256)
        if settings.train.gradient_checkpointing == "no" and record.left_open(folder):
            settings.train.gradient_checkpointing = "auto"  # `no` again where that fits: a box with a smaller card goes on all the same
    except Problem as problem:
        if team.first and not sealed(folder):
            Record(folder).phase("failed", problem.reason, problem.what, problem.hint)
        raise
    train(settings, folder, team)
    if team.first:
        Record(folder).phase("uploading")


def _own_folder(settings: Recipe) -> Path:
    settings.run_id = settings.run_id or run_ids.new(settings.name)
    folder = Path(settings.runs).resolve() / settings.run_id
    folder.mkdir(parents=True, exist_ok=True)
    files.write(folder / "config.yaml", load.dump(settings))
    print(f"run folder: {folder}", flush=True)
    return folder


def _ended(number: int, _frame) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _preflight(words: list[str]) -> None:
    from huggingface_hub import get_token

    from trainer.preflight import preflight

    try:
        run = load.load(words)
        hub, colour = (os.environ.get("HF_ENDPOINT"), get_token()), sys.stdout.isatty()
        if Path(run.model.id).is_dir():  # no Hub knows it: only the rows can be checked
            preflight.tables(run.data, *hub)
            made = preflight.outlook(preflight.look(run, *hub), run, None, None, colour)
        else:
            _, made = preflight.prove(run, *hub, None, None, colour)
        print("\n".join(made.lines))
    except Problem as problem:
        sys.exit(f"error: {problem}")


def _own_settings(words: list[str]) -> None:
    """Nothing, or a Problem where Hydra is to compose what a run's folder holds."""
    places = [words[index + 1] for index, word in enumerate(words[:-1]) if word in ("--config-dir", "-cd")]
    places += [word.partition("=")[2] for word in words if word.startswith("--config-dir=")]
    for place in places:
        if Path(place, "config.yaml").exists():
            hint = f"the run's own settings are read by `{shlex.join(['python', '-m', 'trainer', 'run', place])}`"
            raise Problem(f"{place} is a run's folder: Hydra would carry out what its config.yaml says", hint, "refused")


def _train(words: list[str]) -> None:
    """A run, or a sweep of them, as Hydra composes it."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints a traceback of its own, and what it refuses has a sentence here
    yaml_file.register()
    sweeper.register()
    try:
        _own_settings(words)
        words = renamed.words(words)
        sys.argv[1:] = load.spelled(words)
        with load.explained(words):
            main()
    except Problem as problem:
        sys.exit(f"error: {problem}")


def _run(words: list[str]) -> None:
    try:
        run(Path(words[0]).resolve(), words[1] if len(words) > 1 else None)
    except Problem as problem:
        sys.exit(f"error: {secret.hide(str(problem))}")


def _log_in(folder: Path) -> None:
    """From here on all output, that of libraries in C too, goes to the run's log: one file, only ever appended to, across attempts."""
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)


def _quiet() -> None:
    """One of several processes tells what all of them do; the others speak only of what goes wrong."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    given = sys.argv[2:] if sys.argv[1:2] == ["run"] else None
    if given is not None:  # as the box starts it
        if not given or len(given) > 2 or not Path(given[0], "config.yaml").is_file():
            sys.exit("error: which run?\n\nhint: give the folder of a run, which has a config.yaml: `python -m trainer run FOLDER`")
        _log_in(Path(given[0]))
    if os.environ.get("RANK", "0") != "0":
        _quiet()
    # Nobody sees a progress bar in a log, and nobody is told which model this is.
    os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    warnings.simplefilter("ignore", FutureWarning)  # of one library to another: nothing a user can act on
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # it asks for a package that runs code of the Hub
    sys.stdout.reconfigure(line_buffering=True)
    secret.keep_out_of_core_dumps()
    if sys.argv[1:2] == ["preflight"]:
        sys.exit(_preflight(sys.argv[2:]))
    if sys.argv[1:2] == ["predict"]:
        from trainer.evaluate import predict

        sys.argv = sys.argv[1:]
        sys.exit(predict.main())
    if sys.argv[1:2] == ["examine"]:
        from trainer.evaluate import evaluate_run

        sys.argv = sys.argv[1:]
        sys.exit(evaluate_run.main())
    sys.exit(_train(sys.argv[1:]) if given is None else _run(given))
