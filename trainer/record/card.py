"""The model card: what the Hub shows of a published run, every figure read from the run's own record.

A figure that the record lacks says "not measured". No folder, account or machine of the user is named: the card may become public.
"""

import json
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import ChainableUndefined, Environment, FileSystemLoader, Undefined

from conf import load
from trainer import files
from trainer.record import figures

TEMPLATES = Path(__file__).parent / "templates"
# The Hub's names of metrics that it knows.
HUB_METRICS = {"macro_f1": "f1", "row_exact": "exact_match", "exact": "exact_match", "token_f1": "f1"}


def render(folder: Path, repository: str, manifest: dict | None = None) -> str:
    """The card of the run in `folder`, as `repository` will show it. `manifest` is given while the file is not written yet."""
    context = _context(folder, manifest)
    front = _front(context["run"], context["metrics"], context["config"], repository).to_yaml()
    return _template("card.md.j2").render(**context, front=front, repository=repository)


def render_merged(folder: Path, repository: str, adapter: str) -> str:
    """The card of the run's merged model; `adapter` is the repository that has the adapter and the full card."""
    context = _context(folder, None)
    chosen = context["metrics"]["merged"]["forms"][context["metrics"]["merged"]["chosen"]]
    merged_metrics = context["metrics"] | {"tuned": chosen, "completion_loss": None}
    front = _front(context["run"], merged_metrics, context["config"], repository)
    front.library_name = "transformers"
    vars(front)["base_model_relation"] = "finetune"  # it takes any name
    front.tags = [tag for tag in front.tags or () if tag not in ("peft", "lora") and not tag.startswith("base_model:")]
    return _template("merged.md.j2").render(**context, front=front.to_yaml(), repository=repository, adapter=adapter)


def _context(folder: Path, manifest: dict | None) -> dict:
    """What the record holds of a run, as both cards need it."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    done = [event for event in files.read_json_lines(folder / "events.jsonl") if event["event"] == "step"]
    return {
        "run": manifest or json.loads((folder / "manifest.json").read_text(encoding="utf-8")),
        "config": load.values((folder / "config.yaml").read_bytes()),
        "metrics": metrics,
        "lines": figures.summary(metrics),
        "fields": figures.fields(metrics),
        "forms": figures.forms(metrics),
        "baselines": figures.baselines(metrics),
        "gguf": metrics.get("gguf"),
        "example": _example(folder),
        "steps": max((event["step"] for event in done), default=None),
        "planned": done[-1]["steps"] if done else None,
        "lowest": _lowest_held_out(folder),
    }


def _front(manifest: dict, metrics: dict, config: dict, repository: str) -> ModelCardData:
    model = manifest["model"]
    tags = ["lora", "peft", "transformers", f"base_model:adapter:{model['id']}", "fine-tune-slm"]
    hub_data = [source.split(":")[1] for source in (config["data"]["train"],) if source.startswith("hub:")]
    return ModelCardData(
        base_model=model["id"],
        base_model_relation="adapter",
        library_name="peft",
        pipeline_tag="text-generation",
        datasets=hub_data or None,
        tags=tags + ["qlora"] * (config["quant"]["kind"] == "nf4") + ["smoke-test"] * (manifest["kind"] == "smoke"),
        model_name=repository.rsplit("/", 1)[-1],
        eval_results=_results(manifest, metrics, config) or None,
    )


def _results(manifest: dict, metrics: dict, config: dict) -> list[EvalResult]:
    """The tuned model's figures in the form from which the Hub draws its own table."""
    held_out = config["data"]["validation"]
    return [
        EvalResult(
            task_type="text-generation",
            task_name="information extraction" if metrics["task"] == "extraction" else "text generation",
            dataset_type=held_out.split(":")[1] if held_out.startswith("hub:") else "json",
            dataset_name=figures.source(held_out),
            dataset_split=metrics["split"],
            dataset_args={"rows": metrics["rows"], "sha256": manifest["data"]["validation"]},
            metric_type=HUB_METRICS.get(line.key, line.key),
            metric_name=line.what,
            metric_value=line.tuned,
        )
        for line in figures.summary(metrics)
        if line.tuned is not None
    ]


def _example(folder: Path) -> list[dict]:
    """The turns of a prompt, with "..." in place of a row's own text.

    Only what several scored rows share is shown, in whole turns and paragraphs: a row's own text is the user's and stays out of the
    card. Where rows word their task in several ways, the most frequent one is shown.
    """
    prompts = [row["prompt"] for row in files.read_json_lines(folder / "predictions.jsonl")]
    openings = [prompt[-1]["content"].split("\n\n")[0] for prompt in prompts]
    usual = max(openings, key=openings.count, default=None)
    if openings.count(usual) < 2:
        return [{"role": "user", "content": "..."}]
    alike = [prompt for prompt, opening in zip(prompts, openings, strict=True) if opening == usual]
    turns = _shared([prompt[:-1] for prompt in alike])
    paragraphs = _shared([prompt[-1]["content"].split("\n\n") for prompt in alike])
    return [*turns, {"role": "user", "content": "\n\n".join([*paragraphs, "..."])}]


def _shared(sequences: list[list]) -> list:
    """The items with which all sequences begin."""
    alike = takewhile(lambda items: all(item == items[0] for item in items), zip(*sequences, strict=False))
    return [items[0] for items in alike]


def _lowest_held_out(folder: Path) -> dict | None:
    losses = [event for event in files.read_json_lines(folder / "events.jsonl") if event["event"] == "eval" and event["loss"] is not None]
    return min(losses, key=lambda event: event["loss"], default=None)


def _template(name: str):
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=ChainableUndefined,
        finalize=lambda value: figures.MISSING if value is None or isinstance(value, Undefined) else value,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters: dict[str, Callable] = {
        "text": figures.text,
        "duration": lambda value: figures.duration(value or None),
        "size": lambda value: figures.size(value or None),
        "money": lambda value: figures.money(value if isinstance(value, float) else None),
        "image": figures.image,
        "source": figures.source,
        "python": repr,
    }
    environment.filters |= filters
    return environment.get_template(name)
