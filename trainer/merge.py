"""The adapter merged into its base: one model that needs no PEFT. Every way to merge is scored, and the best one is kept.

    nf4  the base's weights as training saw them, quantised to NF4 and back, plus the adapter
    w16  the base's own weights plus the adapter

An adapter trained on an NF4 base has learned to live with the errors of quantisation. `nf4` keeps them, `w16` has better weights
under an adapter that was not made for them. Which of them answers better is no matter of opinion: both are read back from the
disk and answer the held-out rows. Never is anything merged into 4-bit weights: that would round the adapter away.
"""

import gc
import shutil
from pathlib import Path

import torch
from bitsandbytes import functional
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from conf import schema
from conf.schema import Quantisation, Recipe
from trainer import evaluate, figures, model
from trainer.model import Base
from trainer.prompt import Example, Prompt
from trainer.record import Record

SHARD = "4GB"  # of one file of weights


def make(tuned: PeftModel, base: Base, prompt: Prompt, examples: list[Example], settings: Recipe, folder: Path, record: Record) -> tuple:
    """Leave the best merged model in `folder/merged`; every form's scores, and the answers of the one that is kept."""
    for left in folder.glob("merged*"):  # by an attempt before
        shutil.rmtree(left)
    tuned.to("cpu")  # the GPU is for the merged model now
    forms, answers = {}, {}
    for form in forms_of(settings.quant.kind):
        place = folder / f"merged-{form}"
        build(form, base.revision, settings, folder / "adapter").save_pretrained(place, max_shard_size=SHARD)
        prompt.tokenizer.save_pretrained(place)
        _free()
        answers[form] = _answers(place, base, prompt, examples, settings, record)
        _free()
        forms[form] = evaluate.judged(answers[form], [example.row for example in examples], settings)
    chosen = best(forms)
    (folder / f"merged-{chosen}").rename(folder / "merged")
    for form in forms.keys() - {chosen}:
        shutil.rmtree(folder / f"merged-{form}")
    print(f"merged: {chosen} is kept of {', '.join(forms)}", flush=True)
    return {"chosen": chosen, "forms": forms}, [text for text, _ in answers[chosen]]


def forms_of(kind: Quantisation) -> tuple[str, ...]:
    """The ways to merge an adapter that was trained on such a base; the first one wins a tie."""
    return ("nf4", "w16") if kind is Quantisation.nf4 else ("w16",)


def best(forms: dict[str, dict]) -> str:
    """The form whose answers score highest."""
    kind = next(iter(forms.values()))["kind"]
    return max(forms, key=lambda form: forms[form][figures.SLICED[kind][0]])


def build(form: str, revision: str | None, settings: Recipe, adapter: Path) -> PreTrainedModel:
    """The merged model in memory, in the precision that was scored."""
    pinned = schema.Model(settings.model.id, revision or settings.model.revision, settings.model.note, settings.model.gated)
    base = model.load(pinned, schema.Quant(Quantisation.none, False)).model
    if form == "nf4":
        round_trip(base, settings.quant.double)
    return PeftModel.from_pretrained(base, adapter).merge_and_unload(safe_merge=True)


@torch.no_grad()
def round_trip(base: PreTrainedModel, double: bool) -> None:
    """Give every weight that NF4 would store the value that it has after it was stored."""
    for module in base.modules():
        if isinstance(module, torch.nn.Linear) and module is not base.get_output_embeddings():
            stored, state = functional.quantize_4bit(module.weight.data, blocksize=64, compress_statistics=double, quant_type="nf4")
            module.weight.copy_(functional.dequantize_4bit(stored, state))


def _answers(place: Path, base: Base, prompt: Prompt, examples: list[Example], settings: Recipe, record: Record) -> list[evaluate.Answer]:
    """What the saved model answers, read back from the disk."""
    saved = AutoModelForCausalLM.from_pretrained(place, dtype="auto", **model.OURS).to(model.device())
    read = Base(saved, prompt.tokenizer, base.revision, prompt.stops, base.precision, base.attention)
    model.greedy(read, prompt.stops)
    return evaluate.generate(saved, prompt, examples, settings, record, f"scoring {place.name}")


def _free() -> None:
    gc.collect()
    if model.has_gpu():
        torch.cuda.empty_cache()
