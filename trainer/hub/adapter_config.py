"""An earlier adapter's adapter_config.json: what it says of its shape and its base must be what a run asks for. No torch."""

import json
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download

from conf import override_words
from conf.problem import Problem
from conf.schema import Lora, Recipe
from conf.text.quoting import setting, shell_word
from trainer.hub_errors import explained

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LARGEST = {CONFIG: 1 << 20, WEIGHTS: 1 << 34}  # bytes
NEW = "start a new adapter: `lora.adapter=null`"


def of_hub(name: str, endpoint: str | None, token: str | bool | None = None) -> str:
    """The commit of the repository, which has an adapter's two files of bounded size."""
    with explained(name, endpoint):
        info = HfApi(endpoint=endpoint, token=token).model_info(name, files_metadata=True)
    sizes = {file.rfilename: file.size for file in info.siblings or []}
    for file, most in LARGEST.items():
        if (size := sizes.get(file)) is None or size > most:
            what = f"{name} has no {file}" if size is None else f"{file} of {name} has {size:,} bytes, more than {most:,}"
            raise Problem(f"lora.adapter: {what}", f"{NEW}; or name a repository with an adapter of PEFT", "refused")
    return str(info.sha)


def check_on_hub(settings: Recipe, endpoint: str | None, token: str | bool | None, commit: str | None) -> None:
    """Nothing, or a Problem where this run, on this commit of its base, cannot go on from the adapter on the Hub that it names."""
    name = settings.lora.adapter
    if not name or "/" not in name:
        return
    revision = of_hub(name, endpoint, token)
    with explained(name, endpoint):
        file = hf_hub_download(name, CONFIG, revision=revision, endpoint=endpoint, token=token)
    check(read(Path(file).read_bytes(), name), name, settings, commit)


def read(body: bytes, name: str) -> dict:
    """What the file says."""
    try:
        config = json.loads(body[: LARGEST[CONFIG]])
        if config.get("peft_type") == "LORA":
            return config
        what = f"is of the kind {config.get('peft_type')}, not LORA"
    except (ValueError, AttributeError, RecursionError):
        what = f"has a {CONFIG} that is no JSON object"
    raise Problem(f"the adapter of {name} {what}", NEW, "refused")


def check(config: dict, name: str, settings: Recipe, commit: str | None) -> None:
    """Nothing, or a Problem where the adapter has another base, another commit of it, or another scale; layers show when it is loaded."""
    base, revision, model = config.get("base_model_name_or_path"), config.get("revision"), settings.model
    if base != model.id:
        raise Problem(
            f"the adapter of {name} was trained on {base}, and this run trains {model.id}",
            f"`{setting('model.id', base)}`, or {NEW}",
            "refused",
        )
    if commit and isinstance(revision, str) and revision not in (commit, ""):
        what = f"the adapter of {name} was trained on {base} at {revision[:12]}, and this run has {commit[:12]}"
        raise Problem(what, f"`{setting('model.revision', revision)}`, or {NEW}", "refused")
    for key, option, asked in _scaling(settings.lora):
        if (trained := config.get(key, asked)) != asked:
            what = f"the adapter of {name} has {key}={trained}, and this run has {asked}"
            raise Problem(what, f"`{shell_word(override_words.word(f'lora.{option}', trained))}`, or {NEW}", "refused")


def _scaling(lora: Lora) -> list[tuple]:
    """What says how much the weights count: PEFT's name, ours, and what this run asks for."""
    options = [(name, f"options.{name}", bool(lora.options.get(name))) for name in ("use_rslora", "use_dora")]
    patterns = [(name, f"options.{name}", lora.options.get(name) or {}) for name in ("rank_pattern", "alpha_pattern")]
    return [("r", "r", lora.r), ("lora_alpha", "alpha", lora.alpha), *options, *patterns]


def targets(config: dict) -> str:
    """The layers that it says it has."""
    target_modules = config.get("target_modules")
    return f"[{','.join(sorted(map(str, target_modules)))}]" if isinstance(target_modules, list) else str(target_modules)
