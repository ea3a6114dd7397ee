"""The adapter merged into its base: one model that needs no PEFT. Every way to merge is scored; the best one is exported.

    nf4  the base's weights as training saw them, quantised to NF4 and back, plus the adapter
    w16  the base's own weights plus the adapter

An adapter trained on an NF4 base compensates the errors of quantisation. `nf4` keeps those errors, `w16` has better weights that the
adapter was not trained on. Which one answers better is measured: both are loaded from the disk and answer the held-out rows. Nothing is
merged into 4-bit weights: that would round the adapter away.

The loaded model must have the logits of base and adapter in one row; else the run stops, with its own scores already written.
"""

import gc
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from bitsandbytes import functional
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM, PreTrainedModel

from conf import schema
from conf.problem import Problem
from conf.schema import Quantisation, Recipe
from trainer.evaluate import evaluate
from trainer.model import model, proof
from trainer.model.model import BaseModel
from trainer.record import figures
from trainer.record.record import Record
from trainer.rows.prompt import Example, Prompt

SHARD = "4GB"  # of one file of weights
SEEN = 64  # tokens of the row that the merged model is tried on


def merge_best(
    tuned: PeftModel, base: BaseModel, prompt: Prompt, examples: list[Example], settings: Recipe, folder: Path, record: Record
) -> tuple:
    """Leave the best merged model in `folder/merged`; every form's scores, and the answers of the best."""
    for stale in folder.glob("merged*"):  # of an earlier attempt
        shutil.rmtree(stale)
    tuned.to("cpu")  # the GPU is for the merged model now
    forms, answers = {}, {}
    for form in forms_of(settings.quant.kind):
        model_folder = folder / f"merged-{form}"
        whole = load_with_adapter(form, base.revision, settings, folder / "adapter")
        expected = _logits(whole, examples[0])
        merged(whole).save_pretrained(model_folder, max_shard_size=SHARD)
        prompt.tokenizer.save_pretrained(model_folder)
        del whole
        free_memory()
        saved = AutoModelForCausalLM.from_pretrained(model_folder, dtype="auto", **model.NO_REMOTE_CODE).to(model.device())
        _check_logits(form, _logits(saved, examples[0]), expected, saved.dtype)
        answers[form] = answer_rows(saved, model_folder.name, base, prompt, examples, settings, record)
        del saved
        free_memory()
        forms[form] = evaluate.score_answers(answers[form], [example.row for example in examples], settings)
    chosen = best(forms)
    (folder / f"merged-{chosen}").rename(folder / "merged")
    for form in forms.keys() - {chosen}:
        shutil.rmtree(folder / f"merged-{form}")
    print(f"merged: {chosen} is kept of {', '.join(forms)}", flush=True)
    return {"chosen": chosen, "forms": forms}, [text for text, _ in answers[chosen]]


def forms_of(kind: Quantisation) -> tuple[str, ...]:
    """The ways to merge an adapter that was trained on such a base; in a tie the first one is chosen."""
    return ("nf4", "w16") if kind is Quantisation.nf4 else ("w16",)


def best(forms: dict[str, dict]) -> str:
    """The form whose answers score highest."""
    kind = next(iter(forms.values()))["kind"]
    return max(forms, key=lambda form: forms[form][figures.SLICED[kind][0]])


def build(form: str, revision: str | None, settings: Recipe, adapter: Path) -> PreTrainedModel:
    """The merged model in memory, in the precision that was scored."""
    return merged(load_with_adapter(form, revision, settings, adapter))


def load_with_adapter(form: str, revision: str | None, settings: Recipe, adapter: Path) -> PeftModel:
    """The base of this form with the adapter on it."""
    pinned = replace(settings.model, revision=revision or settings.model.revision)
    base = model.load(pinned, schema.Quant(Quantisation.none, False)).model
    if form == "nf4":
        quantize_dequantize(base, settings.quant.double_quant)
    return PeftModel.from_pretrained(base, adapter).eval()


def merged(whole: PeftModel) -> PreTrainedModel:
    _untie(whole.get_base_model())
    return whole.merge_and_unload(safe_merge=True)


def _untie(base: PreTrainedModel) -> None:
    """Untie head and embedding where either has an adapter: else merging one would change the other."""
    parts = (base.get_input_embeddings(), base.get_output_embeddings())
    embedding, head = (part.get_base_layer() if isinstance(part, LoraLayer) else part for part in parts)
    if any(isinstance(part, LoraLayer) for part in parts) and head.weight is embedding.weight:
        head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
        for config in (base.config, base.config.get_text_config()):
            config.tie_word_embeddings = False
        print("merged: the head gets weights of its own, as the adapter changes only one of the two that share them", flush=True)


@torch.inference_mode()
def _logits(whole: torch.nn.Module, example: Example) -> torch.Tensor:
    tokens = torch.tensor([(example.prompt + example.completion)[-SEEN:]], device=next(whole.parameters()).device)
    return whole.eval()(input_ids=tokens).logits.float().cpu()


def _check_logits(form: str, actual: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    difference = ((actual - expected).norm() / expected.norm()).item()
    if not difference <= proof.ROUNDING.get(dtype, 0.15):
        what = f"the merged model ({form}) expects other tokens than base and adapter: its logits are {difference:.2g} off, relatively"
        raise Problem(what, "publish the adapter alone: `publish.merged=false`", "crashed")


@torch.no_grad()
def quantize_dequantize(base: PreTrainedModel, double_quant: bool) -> None:
    """Quantise every weight that NF4 would store, and dequantise it."""
    for module in base.modules():
        if isinstance(module, torch.nn.Linear) and module is not base.get_output_embeddings():
            stored, state = functional.quantize_4bit(module.weight.data, blocksize=64, compress_statistics=double_quant, quant_type="nf4")
            module.weight.copy_(functional.dequantize_4bit(stored, state))


def answer_rows(
    saved: PreTrainedModel, name: str, base: BaseModel, prompt: Prompt, examples: list[Example], settings: Recipe, record: Record
) -> list[evaluate.Answer]:
    """The answers of the model that was loaded from the disk."""
    read = BaseModel(saved, prompt.tokenizer, base.revision, prompt.stops, base.precision, base.attention)
    model.use_greedy_decoding(read, prompt.stops)
    return evaluate.generate(saved, prompt, examples, settings, record, f"scoring {name}")


def free_memory() -> None:
    gc.collect()
    if model.has_gpu():
        torch.cuda.empty_cache()
