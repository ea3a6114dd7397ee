"""Checkpoints: each is complete or ignored, and only the run that wrote it resumes from it.

A checkpoint is a folder `step-000008`: the adapter, the optimizer, the progress, and last `COMPLETE`, which
holds the sha256 of the others. It is written under another name and renamed; a folder without a matching `COMPLETE` is ignored.
"""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import torch as tensors

from conf.problem import Problem


@dataclass
class Progress:
    """How far the run is. The order of rows, the learning rate and all randomness follow from the step."""

    step: int = 0
    tokens: int = 0  # trained on so far
    base_loss: float = float("nan")  # on held-out rows, before the first step
    best_step: int = 0
    best_loss: float = float("inf")
    best_score: float = float("-inf")  # what `train.metric_for_best_model` names; more is better
    waited: int = 0  # evaluations since the best one
    over: bool = False  # nothing is left to train
    due: bool = False  # the step is taken, and not yet evaluated and saved
    seconds: float = field(default=0.0, compare=False)  # of training, in this and all earlier attempts
    formats: list[list] = field(default_factory=list)  # of numbers: first step and name; more than one where attempts differ

    @property
    def changed(self) -> str | None:
        """Which steps were computed in which number format, in a sentence; None where all were in one."""
        if len(self.formats) < 2:
            return None
        parts = "; ".join(f"from step {step + 1} in {format}" for step, format in self.formats)
        return f"the number format changed on the way ({parts}): these are not the weights of an unbroken run"


class CheckpointStore:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, identity: str, keep: int, format: str | None = None):
        self.folder = folder
        self.identity = hashlib.sha256(identity.encode()).hexdigest()
        self.keep = keep
        self.format = format  # of numbers as this attempt computes them
        self.newest = 0  # the step that was saved or loaded last
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, progress: Progress, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Write the state after `progress.step`, then remove checkpoints beyond `save_total_limit`."""
        files = {
            "adapter.safetensors": tensors.save(_weights(model)),
            "optimizer.safetensors": tensors.save(_moments(optimizer)),
            "progress.json": json.dumps({"identity": self.identity} | asdict(progress)).encode(),
        }
        part = self.folder / "part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        for name, content in files.items():
            _write(part / name, content)
        _write(part / "COMPLETE", json.dumps({name: hashlib.sha256(content).hexdigest() for name, content in files.items()}).encode())
        folder = self._place(progress.step)
        shutil.rmtree(folder, ignore_errors=True)  # left incomplete by an earlier attempt
        part.rename(folder)
        _sync(self.folder)
        self.newest = progress.step
        self._prune(progress.best_step)

    def resume(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
        """Load the newest complete checkpoint; a run without one starts at step 0."""
        for step in sorted(self._steps(), reverse=True):
            folder = self._place(step)
            saved = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
            if saved.pop("identity") != self.identity:
                what = f"the checkpoint {folder.name} was made with other settings, other rows or another base model"
                raise Problem(what, f"start a new run, or remove {self.folder}", "refused")
            _load_weights(model, tensors.load_file(folder / "adapter.safetensors"))
            _load_moments(optimizer, tensors.load_file(folder / "optimizer.safetensors"))
            self.newest = step
            return self._in_format(Progress(**saved))
        return self._in_format(Progress())

    def _in_format(self, progress: Progress) -> Progress:
        """The progress that goes on in this attempt's number format."""
        if self.format and (not progress.formats or progress.formats[-1][1] != self.format):
            progress.formats.append([progress.step, self.format])
        return progress

    def restore(self, step: int, model: torch.nn.Module) -> None:
        """Give `model` the adapter of a saved step."""
        _load_weights(model, tensors.load_file(self._place(step) / "adapter.safetensors"))

    def _place(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"

    def _steps(self) -> list[int]:
        return [int(folder.name.removeprefix("step-")) for folder in self.folder.glob("step-*") if _whole(folder)]

    def _prune(self, best: int) -> None:
        for step in sorted(self._steps())[: -self.keep]:
            if step != best:
                shutil.rmtree(self._place(step))


def _whole(folder: Path) -> bool:
    if not (folder / "COMPLETE").is_file():
        return False
    stated = json.loads((folder / "COMPLETE").read_text(encoding="utf-8"))
    return all(
        (folder / name).is_file() and hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha for name, sha in stated.items()
    )


def _weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().contiguous() for name, weight in model.named_parameters() if weight.requires_grad}


@torch.no_grad()
def _load_weights(model: torch.nn.Module, saved: dict[str, torch.Tensor]) -> None:
    for name, weight in _weights(model).items():
        weight.copy_(saved[name])


def _learning(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state of each weight, under INDEX.KIND.NAME; KIND says what `_load_moments` makes of the value."""
    state = {}
    for index, weight in enumerate(_learning(optimizer)):
        for name, value in optimizer.state[weight].items():
            # bitsandbytes counts steps in an int; torch has some tensors on the CPU beside weights on a GPU.
            kind = "number" if not torch.is_tensor(value) else "device" if value.device == weight.device else "cpu"
            state[f"{index}.{kind}.{name}"] = torch.as_tensor(value).detach().clone()  # bitsandbytes' maps are shared by all weights
    return state


def _load_moments(optimizer: torch.optim.Optimizer, saved: dict[str, torch.Tensor]) -> None:
    weights = _learning(optimizer)
    for key, value in saved.items():
        index, kind, name = key.split(".", 2)
        weight = weights[int(index)]
        optimizer.state[weight][name] = value.item() if kind == "number" else value.to(weight.device if kind == "device" else "cpu")


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
