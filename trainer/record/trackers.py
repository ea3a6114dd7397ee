"""Curves of a run in trackers: TensorBoard, and others where they are installed and configured.

A tracker gets figures by name and step, and the end of the run. The run's own record stays the source; a tracker only
draws. `mlflow`, `wandb` and `trackio` find their servers and logins by their own environment variables.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from conf import load
from conf.problem import Problem
from conf.schema import Recipe
from conf.text import secret


class Tracker(Protocol):
    def log(self, figures: dict[str, float], step: int) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Curves as event files in `<run>/tensorboard`; what an earlier attempt drew after `step` is hidden."""

    def __init__(self, folder: Path, settings: Recipe, step: int):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def log(self, figures: dict[str, float], step: int) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class Mlflow:
    def __init__(self, folder: Path, settings: Recipe, step: int):
        import mlflow

        self.library = mlflow
        mlflow.set_experiment(settings.name)
        # By its name a later attempt finds the run and continues its curves.
        runs = mlflow.search_runs(filter_string=f"attributes.run_name = '{folder.name}'", output_format="list")
        mlflow.start_run(run_id=runs[0].info.run_id if runs else None, run_name=folder.name)
        mlflow.log_text(secret.hide(load.dump(settings)), "config.yaml")

    def log(self, figures: dict[str, float], step: int) -> None:
        self.library.log_metrics(figures, step=step)

    def close(self) -> None:
        self.library.end_run()


class Wandb:
    """Weights & Biases, or Trackio, which has the same interface."""

    library = "wandb"

    def __init__(self, folder: Path, settings: Recipe, step: int):
        from importlib import import_module

        self.module = import_module(self.library)
        config = {"config": secret.hide(load.dump(settings))}
        self.module.init(project=settings.name, name=folder.name, config=config, **self.init_options(folder))

    def init_options(self, folder: Path) -> dict:
        # By this id a later attempt continues the curves. Printed text is left out: it may quote rows.
        return {"id": folder.name, "resume": "allow", "settings": self.module.Settings(console="off")}

    def log(self, figures: dict[str, float], step: int) -> None:
        self.module.log(figures, step=step)

    def close(self) -> None:
        self.module.finish()


class Trackio(Wandb):
    library = "trackio"

    def init_options(self, folder: Path) -> dict:
        return {"resume": "allow"}


KINDS: dict[str, Callable[[Path, Recipe, int], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": Mlflow,
    "wandb": Wandb,
    "trackio": Trackio,
}


def check_trackers(names: list[str]) -> None:
    """Raise a Problem for a tracker that is unknown or not installed."""
    for name in names:
        if name not in KINDS:
            raise Problem(f"there is no tracker `{name}`", f"train.report_to takes any of {', '.join(KINDS)}")
        if find_spec(name) is None:
            raise Problem(f"the tracker {name} is not installed where the trainer runs", f"`pip install {name}`, or leave it out")


class SafeTracker:
    """A tracker whose failure does not stop the run: it is reported once, and the tracker is switched off."""

    def __init__(self, name: str, tracker: Tracker):
        self.name = name
        self.tracker: Tracker | None = tracker

    def log(self, figures: dict[str, float], step: int) -> None:
        self._try(lambda tracker: tracker.log(figures, step))

    def close(self) -> None:
        self._try(lambda tracker: tracker.close())

    def _try(self, call: Callable[[Tracker], None]) -> None:
        if self.tracker is None:
            return
        try:
            call(self.tracker)
        except Exception as error:  # of any library, for any reason: hours of training must not hang on a curve
            print(f"the tracker {self.name} is switched off: {_first_line(error)}", flush=True)
            self.tracker = None


def start_trackers(folder: Path, settings: Recipe, step: int) -> list[Tracker]:
    """The trackers that the settings ask for, continuing after `step`."""
    check_trackers(settings.train.report_to)
    return [SafeTracker(name, _started(name, folder, settings, step)) for name in settings.train.report_to]


def _started(name: str, folder: Path, settings: Recipe, step: int) -> Tracker:
    try:
        return KINDS[name](folder, settings, step)
    except Exception as error:
        hint = f"its own environment variables say where it writes, such as MLFLOW_TRACKING_URI or WANDB_MODE; or leave {name} out"
        raise Problem(f"the tracker {name} does not start: {_first_line(error)}", hint) from error


def _first_line(error: Exception) -> str:
    return secret.hide((str(error).splitlines() or [type(error).__name__])[0])
