"""An adapter that training goes on from: of an earlier run or of the Hub, checked to be one of the same shape on the same base commit.

What comes from elsewhere is data: a JSON file and a safetensors file of bounded size, never code. Rows and steps start anew.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import hf_hub_download
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors

from conf import schema
from conf.problem import Problem
from trainer import files
from trainer.hub import adapter_config
from trainer.hub.adapter_config import CONFIG, LARGEST, NEW, WEIGHTS
from trainer.hub_errors import explained
from trainer.model.model import BaseModel, changes_base_weights
from trainer.record import record


@dataclass(frozen=True)
class EarlierAdapter:
    """The adapter's two files, and what the record says of them."""

    name: str
    revision: str | None  # its commit on the Hub
    sha256: dict[str, str]
    paths: dict[str, Path]

    @property
    def facts(self) -> dict:
        return {"adapter": self.name, "revision": self.revision, "sha256": self.sha256}


def find(lora: schema.Lora, folder: Path) -> EarlierAdapter | None:
    """The adapter that `lora.adapter` names, for the run in `folder`; None where it names none."""
    if not lora.adapter:
        return None
    if changes_base_weights(lora):
        what = f"lora.adapter={lora.adapter} and lora.options.init_lora_weights={lora.options['init_lora_weights']} are two ways to start"
        raise Problem(what, "leave out one of them: `lora.options.init_lora_weights=true`")
    paths, revision = _of_hub(lora.adapter) if "/" in lora.adapter else (_of_run(lora, folder), None)
    sha256 = {name: files.digest(path) for name, path in paths.items()}
    if lora.adapter_sha256 and sha256 != lora.adapter_sha256:
        raise Problem(
            f"the adapter of {lora.adapter} is not the one that this run began with", "start a new run with `inv train`", "damaged_run"
        )
    return EarlierAdapter(lora.adapter, revision, sha256, paths)


def _of_run(lora: schema.Lora, folder: Path) -> dict[str, Path]:
    """The files as the laptop has put them among the run's inputs, or of a run in the same folder of runs."""
    runs = folder.resolve().parent
    if lora.adapter_sha256:
        return {name: runs.parent / "inputs" / lora.adapter_sha256[name] for name in LARGEST}
    run = runs / lora.adapter
    if not schema.RUN_ID.fullmatch(lora.adapter) or not record.sealed(run):
        raise Problem(f"lora.adapter names {lora.adapter}, and there is no finished run of this name", f"{NEW}; or name one", "refused")
    record.verify(run, only=("adapter/",))
    return {name: run / "adapter" / name for name in LARGEST}


def _of_hub(name: str) -> tuple[dict[str, Path], str]:
    endpoint = os.environ.get("HF_ENDPOINT")
    revision = adapter_config.of_hub(name, endpoint)
    with explained(name, endpoint):
        return {file: Path(hf_hub_download(name, file, revision=revision)) for file in LARGEST}, revision


def load(earlier: EarlierAdapter, tuned: PeftModel, base: BaseModel, settings: schema.Recipe) -> None:
    """Give the model, which has a new adapter, the weights of the earlier one; a Problem where the two differ in more than these."""
    config = adapter_config.read(earlier.paths[CONFIG].read_bytes(), earlier.name)
    adapter_config.check(config, earlier.name, settings, base.revision)
    content = earlier.paths[WEIGHTS].read_bytes()
    if hashlib.sha256(content).hexdigest() != earlier.sha256[WEIGHTS]:
        raise Problem(f"the adapter of {earlier.name} has changed while it was read", "`inv train` again", "damaged_run")
    try:
        weights = read_tensors(content)
    except SafetensorError as error:
        raise Problem(f"{WEIGHTS} of {earlier.name} is no safetensors file: {error}", NEW, "refused") from error
    expected = get_peft_model_state_dict(tuned, save_embedding_layers=False)
    shapes, theirs = ({name: tuple(weight.shape) for name, weight in each.items()} for each in (expected, weights))
    if differing := sorted(set(shapes.items()) ^ set(theirs.items())):
        name = differing[0][0]
        what = f"{name} is {theirs.get(name, 'not in it')}, and {shapes.get(name, 'nothing')} in this run's"
        hint = f"name the layers that it has: `lora.targets=...`; it has {adapter_config.targets(config)}; or {NEW}"
        raise Problem(f"the adapter of {earlier.name} is of another shape: {what}", hint, "refused")
    set_peft_model_state_dict(tuned, weights)
    print(f"adapter: goes on from {earlier.name}, sha256 {earlier.sha256[WEIGHTS][:12]}", flush=True)
