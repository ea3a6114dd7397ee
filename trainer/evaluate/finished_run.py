"""A finished run's model, loaded as it was scored: same base commit, same quantisation, same prompt, greedy."""

import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import HfApi
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoTokenizer

from conf.problem import Problem
from conf.schema import Quantisation, Recipe
from trainer.hub_errors import explained
from trainer.model import model
from trainer.model.model import BaseModel
from trainer.record import record
from trainer.record.failure import diagnose
from trainer.rows.prompt import Prompt

SETTING = re.compile(r"\b(data|train|lora|quant|model|box)\.[a-z_]+=|`quant=")  # in a hint: a finished run's settings cannot change
# Hints in place of it, by reason.
HINTS = {
    "bad_data": "correct such rows or leave them out: a finished run answers as it was trained, and takes no settings",
    "disk_full": "make room there: `df -h` shows where, and `inv clean` removes old runs",
    "out_of_memory": "take shorter rows, or a machine with more memory",
    "crashed": "try the rows one by one: if one of them always fails, report it with this line",
}
ANOTHER = "a finished run takes no settings: train another one with `inv train`"


def explain(error: BaseException) -> Problem:
    """The error of `predict` or `evaluate` as a Problem whose hint works for a finished run."""
    problem = diagnose(error)
    if problem.reason != "crashed" and not SETTING.search(problem.hint):
        return problem
    return Problem(problem.what, HINTS.get(problem.reason, ANOTHER), problem.reason)


@dataclass(frozen=True)
class FinishedRun:
    settings: Recipe
    base: BaseModel
    tuned: PeftModel
    prompt: Prompt
    config: dict  # the base model's config.json
    pack_tokens: int | None  # of the run's packs; None where its rows were trained one at a time
    longest: int  # tokens of the longest row for which packs were proved; 0 in runs that do not state it


def load(folder: Path) -> FinishedRun:
    """The model of the run in `folder`, ready to answer; a Problem if this machine cannot hold it."""
    if not record.sealed(folder):
        raise Problem(f"{folder} holds no finished run", "give the folder of a run that has a manifest.json", "refused")
    adapter = folder / "adapter"
    with record.readable(folder):
        manifest = record.verify(folder, only=record.MODEL_FILES)
        settings = record.settings(folder)
        for path in adapter.iterdir():  # libraries load a file because it is there
            if path.relative_to(folder).as_posix() not in manifest["files"]:
                raise record.damaged_run(folder, f"adapter/{path.name}", "is not in its record")
        proof = manifest.get("proof", {})
        packs, longest = proof.get("packs", True), int(proof.get("longest", 0))
        revision = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["revision"]
        pinned = replace(settings.model, revision=revision or settings.model.revision)
    check_memory(pinned.id, pinned.revision, settings.quant.kind)
    base = model.load(pinned, settings.quant)
    try:
        with record.readable(folder):
            prompt = Prompt(AutoTokenizer.from_pretrained(adapter, **model.NO_REMOTE_CODE), base.stops, settings.data)
            base = replace(base, tokenizer=prompt.tokenizer)
            tuned = PeftModel.from_pretrained(base.model, adapter).eval()
    except SafetensorError as error:
        raise record.damaged_run(folder, "adapter", f"holds no weights ({error})") from error
    model.use_greedy_decoding(base, prompt.stops)
    limit = settings.train.pack_tokens if packs else None
    return FinishedRun(settings, base, tuned, prompt, model.config(model.fetch(pinned)[0]), limit, longest)


def check_memory(name: str, revision: str, kind: Quantisation) -> None:
    """A Problem when the model's weights do not fit into this machine's free memory."""
    if model.has_gpu():
        return
    # Checkpoints hold 2 bytes a weight, a CPU computes with 4; in NF4 a weight takes about half a byte, after loading them shard by shard.
    needed = _weight_bytes(name, revision) * (2 if kind is Quantisation.none else 1)
    free = model.free_memory()
    if free is not None and needed > free:
        what = f"{name} needs about {needed / 1e9:.1f} GB of memory here, and {free / 1e9:.1f} GB are free"
        raise Problem(what, "use a machine with more memory or a GPU; what was measured on the box is in `inv report`", "out_of_memory")


def _weight_bytes(name: str, revision: str) -> int:
    """Bytes of the model's weights as files."""
    if Path(name).is_dir():
        return sum(path.stat().st_size for path in Path(name).glob("*.safetensors"))
    with explained(name, os.environ.get("HF_ENDPOINT")):
        files = HfApi(endpoint=os.environ.get("HF_ENDPOINT")).model_info(name, revision=revision, files_metadata=True).siblings or ()
    return sum((file.size or 0) for file in files if file.rfilename.endswith(".safetensors") and "/" not in file.rfilename)
