"""python -m trainer: train one model as its settings say, into one run folder.

    python -m trainer model=tiny train.lr=1e-3                   makes a run folder of its own
    python -m trainer run RUN [SHA256]                           works in RUN, and resumes where an earlier attempt stopped
    python -m trainer train.processes=2 ...                      by two processes; `auto`, which is usual, takes one a GPU
    python -m trainer preflight model=tiny ...                   only shows what a run would see and need, on this machine
    python -m trainer predict RUN <TEXTS                         a finished run's answers, a JSON line each
    python -m trainer examine RUN ROWS OUT                       a finished run's scores on other rows
    python -m trainer -m lora.r=8,16 train.lr=1e-4,2e-4          a sweep: one run after the other, each in a process of its own
    python -m trainer -m hydra.sweeper.n_trials=12 'train.lr=interval(1e-5,1e-3)'     a search: values drawn by the scores so far

A user sees a sentence, never a traceback; an unexpected error leaves its traceback in the log. The run folder says why in either case.

Hydra composes what is typed here. A run's config.yaml may come from anywhere: `run` reads it as data, and checks its hash where the
command has one.
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
from io import TextIOWrapper
from pathlib import Path
from typing import cast

import hydra
from omegaconf import DictConfig

from conf import load, renamed, run_ids, yaml_file
from conf.problem import Problem
from conf.schema import Recipe
from conf.text import secret
from trainer import files
from trainer.model import distributed
from trainer.model.distributed import ALONE, NullRecord, ProcessGroup
from trainer.record import record
from trainer.record.record import Record, sealed
from trainer.sweep import sweeper
from trainer.train import launch

FOR_THE_LOG = ("crashed", "out_of_memory", "disk_full")  # where the traceback may say more than the sentence


@hydra.main(version_base="1.3", config_path="../conf", config_name="trainer")
def main(composed: DictConfig) -> None:
    try:
        settings = load.recipe(composed)
        count = launch.processes(settings.train)
        folder = _own_folder(settings)
        _train_by(count, settings, folder)
        Record(folder).phase("done")
    except Problem as problem:
        print(f"error: {secret.hide(str(problem))}", file=sys.stderr, flush=True)
        sys.exit(1)


def _train_by(count: int, settings: Recipe, folder: Path, sha256: str | None = None) -> None:
    """Train the run in `folder`, in this process or by several that it starts."""
    if count == 1:
        train(settings, folder)
        return
    _check_unsealed(folder)
    signal.signal(signal.SIGTERM, _ended)
    launch.run(folder, sha256, count)


def _check_unsealed(folder: Path) -> None:
    if sealed(folder):
        raise Problem(f"run {folder.name} is finished and sealed: it is never trained again", "start a new run", "refused")


def train(settings: Recipe, folder: Path, processes: ProcessGroup = ALONE) -> None:
    """Train the run in `folder`; a failure and its reason go into the run's state, by this process or by the one that started several."""
    _check_unsealed(folder)
    started, run_record = time.monotonic(), Record(folder) if processes.is_main_process else NullRecord()
    signal.signal(signal.SIGTERM, _ended)
    try:
        run_record.phase("running")
        from trainer.train import recipe  # torch and transformers take seconds to import: only for valid settings

        recipe.run(settings, folder, run_record, started, processes)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the run is sealed: the rest takes no time
    except BaseException as error:
        from trainer.record.failure import diagnose

        problem = diagnose(error)
        if problem.reason in FOR_THE_LOG and problem is not error:
            print(secret.hide(traceback.format_exc()), file=sys.stderr, flush=True)
        with suppress(OSError):  # a full disk may have no room for this either; the sentence is printed anyway
            if processes.world_size == 1:
                run_record.phase("failed", problem.reason, problem.what, problem.hint)
        raise problem from None


def run(folder: Path, sha256: str | None) -> None:
    """Train the run in `folder` as its own config.yaml says; a Problem, also in its state, where the file has another hash."""
    try:
        settings = _settings(folder, sha256)
        count = launch.processes(settings.train)
    except Problem as problem:
        if not sealed(folder):
            Record(folder).phase("failed", problem.reason, problem.what, problem.hint)
        raise
    _train_by(count, settings, folder, sha256)
    Record(folder).phase("uploading")


def _settings(folder: Path, sha256: str | None) -> Recipe:
    settings = record.settings(folder, sha256)
    if settings.train.gradient_checkpointing == "no" and record.leaves_checkpointing_open(folder):
        settings.train.gradient_checkpointing = "auto"  # `no` again where that fits: a box with a smaller card can resume the run
    return settings


def _take_part(arguments: list[str]) -> None:
    """One of several processes of a run: the one that started them says how it ended."""
    folder = Path(arguments[0])
    try:
        train(_settings(folder, arguments[1] if len(arguments) > 1 else None), folder, ProcessGroup())
    except Problem as problem:
        distributed.report(problem)
        sys.exit(1)


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


def _preflight(overrides: list[str]) -> None:
    from huggingface_hub import get_token

    from trainer.preflight import preflight

    secret.know_overrides(overrides)
    try:
        run = load.load(overrides)
        hub, colour = (os.environ.get("HF_ENDPOINT"), get_token()), sys.stdout.isatty()
        if Path(run.model.id).is_dir():  # a local folder: only the rows can be checked
            preflight.check_data(run.data, *hub)
            report = preflight.make_report(preflight.inspect(run, *hub), run, None, None, colour)
        else:
            _, report = preflight.run_checks(run, *hub, None, None, colour)
        print("\n".join(report.lines))
    except Problem as problem:
        sys.exit(f"error: {secret.hide(str(problem))}")


def _own_settings(arguments: list[str]) -> None:
    """A Problem where Hydra is to compose a run's config.yaml."""
    folders = [arguments[index + 1] for index, word in enumerate(arguments[:-1]) if word in ("--config-dir", "-cd")]
    folders += [word.partition("=")[2] for word in arguments if word.startswith("--config-dir=")]
    for folder in folders:
        if Path(folder, "config.yaml").exists():
            hint = f"the run's own settings are read by `{shlex.join(['python', '-m', 'trainer', 'run', folder])}`"
            raise Problem(f"{folder} is a run's folder: Hydra would carry out what its config.yaml says", hint, "refused")


def _train(overrides: list[str]) -> None:
    """A run, or a sweep of them, as Hydra composes it."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints a traceback of its own; its errors become sentences here
    yaml_file.register()
    sweeper.register()
    secret.know_overrides(overrides)
    try:
        _own_settings(overrides)
        overrides = renamed.words(overrides)
        sys.argv[1:] = load.hydra_words(overrides)
        with load.explained(overrides):
            main()
    except Problem as problem:
        sys.exit(f"error: {secret.hide(str(problem))}")


def _run(arguments: list[str]) -> None:
    try:
        run(Path(arguments[0]).resolve(), arguments[1] if len(arguments) > 1 else None)
    except Problem as problem:
        sys.exit(f"error: {secret.hide(str(problem))}")


def _log_in(folder: Path) -> None:
    """From here on all output, also of C libraries, is appended to the run's log: one file for all attempts."""
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)


def _quiet() -> None:
    """The main process prints what all of them do; the others print errors only."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _quiet_libraries() -> None:
    """Leave out what a user cannot act on."""
    warnings.simplefilter("ignore", FutureWarning)  # between libraries
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # it asks for a package that runs code of the Hub


if __name__ == "__main__":
    run_arguments = sys.argv[2:] if sys.argv[1:2] == ["run"] else None
    if run_arguments is not None:  # as the box starts it
        if not run_arguments or len(run_arguments) > 2 or not Path(run_arguments[0], "config.yaml").is_file():
            sys.exit("error: which run?\n\nhint: give the folder of a run, which has a config.yaml: `python -m trainer run FOLDER`")
        if not distributed.is_one_of_several():  # whose output goes where that of the one that started them goes
            _log_in(Path(run_arguments[0]))
        elif os.environ["RANK"] != "0":
            _quiet()
    # A log needs no progress bars; telemetry would tell the Hub which model this is.
    os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    # Packs differ in size: segments of the GPU's memory that grow leave fewer gaps between them.
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    _quiet_libraries()
    cast(TextIOWrapper, sys.stdout).reconfigure(line_buffering=True)
    secret.keep_out_of_core_dumps()
    if sys.argv[1:2] == ["preflight"]:
        sys.exit(_preflight(sys.argv[2:]))
    if sys.argv[1:2] == ["predict"]:
        from trainer.evaluate import predict

        sys.argv = sys.argv[1:]
        sys.exit(predict.main())
    if sys.argv[1:2] == ["serve"]:
        from trainer.evaluate import serve

        sys.argv = sys.argv[1:]
        sys.exit(serve.main())
    if sys.argv[1:2] == ["examine"]:
        from trainer.evaluate import evaluate_run

        sys.argv = sys.argv[1:]
        sys.exit(evaluate_run.main())
    if distributed.is_one_of_several():
        sys.exit(_take_part(sys.argv[2:]))
    sys.exit(_train(sys.argv[1:]) if run_arguments is None else _run(run_arguments))
