"""Checkpoints that are whole or not there, and that only the run they belong to goes on from.

A checkpoint is a folder `step-000008`: the adapter, the optimizer, the progress, and last `COMPLETE`, which
holds the sha256 of the others. It is written beside its place and renamed; whatever lacks or contradicts `COMPLETE` is ignored.
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
    """How far the run is. The order of rows, the learning rate and all chance follow from the step."""

    step: int = 0
    tokens: int = 0  # trained on so far
    base_loss: float = float("nan")  # on held-out rows, before the first step
    best_step: int = 0
    best_loss: float = float("inf")
    best_score: float = float("-inf")  # what `train.metric_for_best_model` names; more is better
    waited: int = 0  # measurements since the best one
    over: bool = False  # nothing is left to train
    due: bool = False  # the step is taken, and not yet measured and kept as the settings say
    seconds: float = field(default=0.0, compare=False)  # of training, in this and all earlier attempts
    formats: list[list] = field(default_factory=list)  # of numbers: from which step on, and in words; one, unless an attempt has another

    @property
    def changed(self) -> str | None:
        """In which number formats which steps were computed, in a sentence; None where they are one."""
        if len(self.formats) < 2:
            return None
        told = "; ".join(f"from step {step + 1} in {format}" for step, format in self.formats)
        return f"the number format changed on the way ({told}): these are not the weights of an unbroken run"


class Store:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, identity: str, keep: int, format: str | None = None):
        self.folder = folder
        self.identity = hashlib.sha256(identity.encode()).hexdigest()
        self.keep = keep
        self.format = format  # of numbers as this attempt computes them
        self.newest = 0  # the step that was saved or brought back last
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, progress: Progress, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Put the state after `progress.step` on the disk, then remove what is no longer kept."""
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
        place = self._place(progress.step)
        shutil.rmtree(place, ignore_errors=True)  # left incomplete by an attempt before
        part.rename(place)
        _sync(self.folder)
        self.newest = progress.step
        self._prune(progress.best_step)

    def resume(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
        """Bring back the newest whole checkpoint; a run without one starts at step 0."""
        for step in sorted(self._steps(), reverse=True):
            place = self._place(step)
            found = json.loads((place / "progress.json").read_text(encoding="utf-8"))
            if found.pop("identity") != self.identity:
                what = f"the checkpoint {place.name} was made with other settings, other rows or another base model"
                raise Problem(what, f"start a new run, or remove {self.folder}", "refused")
            _load_weights(model, tensors.load_file(place / "adapter.safetensors"))
            _load_moments(optimizer, tensors.load_file(place / "optimizer.safetensors"))
            self.newest = step
            return self._in_format(Progress(**found))
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
        return [int(place.name.removeprefix("step-")) for place in self.folder.glob("step-*") if _whole(place)]

    def _prune(self, best: int) -> None:
        for step in sorted(self._steps())[: -self.keep]:
            if step != best:
                shutil.rmtree(self._place(step))


def _whole(place: Path) -> bool:
    if not (place / "COMPLETE").is_file():
        return False
    stated = json.loads((place / "COMPLETE").read_text(encoding="utf-8"))
    return all((place / name).is_file() and hashlib.sha256((place / name).read_bytes()).hexdigest() == sha for name, sha in stated.items())


def _weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().contiguous() for name, weight in model.named_parameters() if weight.requires_grad}


@torch.no_grad()
def _load_weights(model: torch.nn.Module, saved: dict[str, torch.Tensor]) -> None:
    for name, weight in _weights(model).items():
        weight.copy_(saved[name])


def _learning(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What the optimizer remembers of each weight, named by the weight's place, the value's name, and what it is to become again."""
    found = {}
    for place, weight in enumerate(_learning(optimizer)):
        for name, value in optimizer.state[weight].items():
            # bitsandbytes counts steps in a number; torch keeps some on the CPU beside weights on a GPU.
            kind = "number" if not torch.is_tensor(value) else "device" if value.device == weight.device else "cpu"
            found[f"{place}.{kind}.{name}"] = torch.as_tensor(value).detach().clone()  # its maps serve all weights
    return found


def _load_moments(optimizer: torch.optim.Optimizer, saved: dict[str, torch.Tensor]) -> None:
    weights = _learning(optimizer)
    for key, value in saved.items():
        place, kind, name = key.split(".", 2)
        weight = weights[int(place)]
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
