"""The merged model once more, as one GGUF file for llama.cpp, Ollama and whatever is built on them.

Making it is proving it: the file is opened, its weights are compared with the merged ones, its tokenizer reads rows of the run, and its
weights answer the held-out rows. A file that fails is removed, and a sentence takes its place: the run and its merged model stand.
"""

from pathlib import Path

from transformers import AutoModelForCausalLM

from conf.problem import Problem
from conf.schema import Recipe
from trainer.evaluate import evaluate
from trainer.export import gguf_file, modelfile, vocabulary
from trainer.export.vocabulary import Vocabulary
from trainer.model import model
from trainer.model.model import BaseModel
from trainer.record.record import Record
from trainer.rows.prompt import Example, Prompt
from trainer.train import merge


def export(
    merged: Path,
    base: BaseModel,
    prompt: Prompt,
    examples: list[Example],
    settings: Recipe,
    record: Record,
    merged_result: tuple[dict, list[str]],
) -> tuple[dict, list[str]]:
    """Leave the file beside the merged model; its scores, or why there is none, and its answers.

    `merged_result`: the merged model's scores and answers, which are the file's too where it changes no weight.
    """
    kind, rows = settings.publish.gguf, [example.row for example in examples]
    file, result = merged / f"model-{kind.value}.gguf", {"format": kind.value, "file": None, "why": None, "modelfile": None, "scores": None}
    try:
        file_vocabulary = _write(merged, file, settings, prompt, examples)
        answers = _answers(merged, file, base, prompt, examples, settings, record)
    except Problem as problem:
        file.unlink(missing_ok=True)
        print(f"gguf: not made: {problem.what}", flush=True)
        return result | {"why": problem.what}, []
    scores, texts = merged_result if answers is None else (evaluate.score_answers(answers, rows, settings), [text for text, _ in answers])
    obstacle = modelfile.write(file, settings, prompt, file_vocabulary, rows)
    print(f"gguf: {file.name} holds the merged model{f'; no Modelfile: {obstacle}' if obstacle else ''}", flush=True)
    return result | {"file": file.name, "modelfile": obstacle, "scores": scores}, texts


def _write(merged: Path, file: Path, settings: Recipe, prompt: Prompt, examples: list[Example]) -> Vocabulary:
    trained = vocabulary.of(prompt, gguf_file.read_config(merged)["vocab_size"])
    gguf_file.write(merged, settings.name, trained, settings.publish.gguf, file)
    in_file = gguf_file.read_vocabulary(gguf_file.compare(merged, file))
    vocabulary.check_tokens(in_file, prompt, [example.row for example in examples])
    return in_file


def _answers(
    merged: Path, file: Path, base: BaseModel, prompt: Prompt, examples: list[Example], settings: Recipe, record: Record
) -> list[evaluate.Answer] | None:
    """What the file's weights answer; None where they are the merged model's own, and so are their answers."""
    whole = AutoModelForCausalLM.from_pretrained(merged, dtype="auto", **model.NO_REMOTE_CODE).to(model.device())
    try:
        if gguf_file.load_into(whole, file):
            return merge.answer_rows(whole, file.name, base, prompt, examples, settings, record)
        print(f"gguf: {file.name} answers as the merged model does: its weights are the same numbers", flush=True)
        return None
    finally:
        del whole
        merge.free_memory()
