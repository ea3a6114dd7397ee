"""How good the tuned model is, beside its base: both answer the held-out rows greedily, and one scorer judges them."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
from transformers import LogitsProcessorList, PreTrainedConfig

from conf.problem import Problem
from conf.schema import Recipe
from data.score import difference, score
from trainer import files
from trainer.estimate import limits
from trainer.model import model as models
from trainer.model.distributed import ALONE, ProcessGroup
from trainer.model.model import BaseModel
from trainer.record.record import Record
from trainer.rows.prompt import Example, Prompt

Answer = tuple[str, bool]  # the text, and whether it ended by itself


def compare(
    tuned: PeftModel,
    base: BaseModel,
    prompt: Prompt,
    examples: list[Example],
    settings: Recipe,
    sha256: str,
    folder: Path,
    record: Record,
    processes: ProcessGroup = ALONE,
) -> tuple[dict, list[dict]]:
    """The scores of both models, and every answer. The base model's answers are cached beside the runs."""
    models.use_greedy_decoding(base, prompt.stops)
    after = generate(tuned, prompt, examples, settings, record, "scoring tuned", processes=processes)
    cache = folder.resolve().parent.parent / "base-scores" / f"{_cache_key(base, prompt, examples, settings, sha256)}.json"
    before = processes.broadcast(_cached_answers(cache) if processes.is_main_process else None)
    if before is None:
        with tuned.disable_adapter():
            before = generate(tuned, prompt, examples, settings, record, "scoring base", processes=processes)
        if base.revision and processes.is_main_process:  # a local folder may hold other weights tomorrow
            cache.parent.mkdir(parents=True, exist_ok=True)
            files.write(cache, files.json_page({"answers": before}))
    rows = [example.row for example in examples]
    kind = "text" if settings.data.fields is None else "extraction"
    gain = difference([text for text, _ in before], [text for text, _ in after], rows, settings.data.fields, settings.seed)
    scores = {
        "task": kind,
        "rows": len(rows),
        "base": score_answers(before, rows, settings),
        "tuned": score_answers(after, rows, settings),
        "difference": gain,
    }
    return scores, [
        {"id": row.id, "prompt": row.messages, "expected": row.completion, "base": old, "tuned": new}
        for row, (old, _), (new, _) in zip(rows, before, after, strict=True)
    ]


def reload_adapter(tuned: PeftModel, adapter: Path) -> None:
    """Load the exported files into the model: what is scored is what others will load."""
    exported = load_peft_weights(str(adapter), device=str(tuned.device))
    learned = sum(weight.requires_grad for _, weight in tuned.named_parameters(remove_duplicate=False))  # files hold tied ones twice
    result: Any = set_peft_model_state_dict(tuned, exported)  # torch's named tuple of missing and unexpected keys
    unknown = result.unexpected_keys
    if unknown or len(exported) != learned:
        what = f"the exported adapter holds {len(exported)} weights, {len(unknown)} of them unknown; {learned} were learned"
        raise Problem(what, "start a new run with `inv train`", "damaged_run")


@torch.no_grad()  # what inference mode gathers of a model that is cut up could not be trained with later
def generate(
    model,
    prompt: Prompt,
    examples: list[Example],
    settings: Recipe,
    record: Record,
    what: str,
    way: Callable | None = None,
    processes: ProcessGroup = ALONE,
) -> list[Answer]:
    """The model's answer to every row, in the rows' order, by `generate_batch` or in another way. Rows of similar length share a batch,
    the longest first: a batch that does not fit shows at once, and is halved. Each process answers some of one process's batches."""
    model.eval()
    order = sorted(range(len(examples)), key=lambda index: -len(examples[index].prompt))
    answers: dict[int, Answer] = {}
    batches = _batches(order, settings.train.eval_batch_size, examples, model.config)
    todo, limit = processes.share(batches), settings.data.answer_limit
    way = way or partial(generate_batch, synced=processes.lockstep)
    count, own = sum(map(len, todo)), " of this process" if processes.world_size > 1 else ""
    record.event("progress", what=what, done=0, of=count)
    while todo:
        batch = todo[0]
        with _heartbeat_at_each_token(model, record):
            outputs = _generate_or_none(way, model, prompt, [examples[index].prompt for index in batch], limit, processes.lockstep)
        if outputs is None:
            size = len(batch) // 2
            print(f"{what}: {len(batch)} rows at once do not fit into memory; {size} are tried", flush=True)
            todo = _batches([index for batch in todo for index in batch], size, examples, model.config)
            continue
        answers |= dict(zip(batch, outputs, strict=True))
        del todo[0]
        record.event("progress", what=what, done=len(answers), of=count)
        print(f"{what}: {len(answers)} of {count} rows{own}", flush=True)
    for _ in range(processes.idle(len(batches))):
        way(model, prompt, [examples[order[-1]].prompt], limit)
    for others in processes.gather(answers):
        answers |= others
    return [answers[index] for index in range(len(examples))]


@contextmanager
def _heartbeat_at_each_token(model, record: Record) -> Iterator[None]:
    """A batch of long answers takes minutes, in which nothing else shows that the run is alive."""
    written = model.get_base_model() if isinstance(model, PeftModel) else model
    hook = written.register_forward_hook(lambda *_: record.heartbeat())
    try:
        yield
    finally:
        hook.remove()


def _batches(order: list[int], size: int, examples: list[Example], config: PreTrainedConfig) -> list[list[int]]:
    """The rows, longest first, in batches of at most `size`."""
    batches, done = [], 0
    while done < len(order):
        batches.append(_same_rope_form(order[done : done + size], examples, config))
        done += len(batches[-1])
    return batches


def _same_rope_form(batch: list[int], examples: list[Example], config: PreTrainedConfig) -> list[int]:
    """The rows, longest first, up to one whose positions have another form: LongRoPE gives all rows of a batch that of the longest."""
    _, switch = limits.length_dependent_rope(config.get_text_config().to_dict()) or ("", 0)
    long = [index for index in batch if len(examples[index].prompt) > switch]
    return long or batch


def _generate_or_none(way: Callable, model, prompt: Prompt, prompts: list[list[int]], limit: int, lockstep: bool) -> list[Answer] | None:
    """The answers; None where this many rows do not fit into memory at once. In lockstep the other processes are left behind: it fails."""
    try:
        return way(model, prompt, prompts, limit)
    except RuntimeError as error:
        if lockstep or len(prompts) == 1 or not should_reduce_batch_size(error):
            raise
    clear_device_cache(garbage_collection=True)  # here, where the error no longer holds the tensors
    return None


def generate_batch(
    model,
    prompt: Prompt,
    prompts: list[list[int]],
    max_new_tokens: int,
    processors: LogitsProcessorList | None = None,
    synced: bool = False,
) -> list[Answer]:
    """Greedy answers to prompts in tokens, padded on the left; `processors` may forbid tokens. `synced`: until all processes are done."""
    longest = max(map(len, prompts))
    pad = prompt.tokenizer.pad_token_id
    tokens = torch.tensor([[pad] * (longest - len(prompt_tokens)) + prompt_tokens for prompt_tokens in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(prompt_tokens)) + [1] * len(prompt_tokens) for prompt_tokens in prompts], device=model.device)
    low = (model.get_base_model() if isinstance(model, PeftModel) else model).dtype is torch.bfloat16
    with torch.autocast(model.device.type, torch.bfloat16) if low else nullcontext():
        outputs = model.generate(
            input_ids=tokens,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            logits_processor=processors,
            synced_gpus=synced,
        )
    return [prompt.answer(output) for output in outputs[:, longest:].tolist()]


def score_answers(answers: list[Answer], rows: list, settings: Recipe) -> dict:
    """The scores of one model's answers."""
    texts, stopped = [text for text, _ in answers], [ended for _, ended in answers]
    return score(texts, rows, stopped, settings.data.fields, settings.seed)


def _cache_key(base: BaseModel, prompt: Prompt, examples: list[Example], settings: Recipe, sha256: str) -> str:
    """Equal for two runs whose base models must give the same answers."""
    decisive = {
        "model": [settings.model.id, base.revision, base.precision],
        "quant": [settings.quant.kind.value, settings.quant.double_quant],
        "rows": sha256,
        "prompts": [example.prompt for example in examples],
        "generation": [
            settings.data.answer_limit,
            settings.train.eval_batch_size,
            prompt.stops,
            prompt.tokenizer.pad_token_id,
            "longest first",
            *(limits.length_dependent_rope(base.model.config.get_text_config().to_dict()) or ()),
        ],
    }
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


def _cached_answers(cache: Path) -> list[Answer] | None:
    if not cache.exists():
        return None
    print("the base model's answers are known from an earlier run", flush=True)
    return [(text, stopped) for text, stopped in json.loads(cache.read_text(encoding="utf-8"))["answers"]]
