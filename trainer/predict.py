"""python -m trainer.predict RUN_FOLDER: answers of a finished run's model, one JSON line each.

    echo '{"input": "Stage II breast cancer ..."}' | python -m trainer.predict runs/20261122-011157-quickstart-385b

Each line of stdin is {"instruction"?, "input"}, {"prompt"} or {"messages"}; without an instruction, one of the training rows'
own is used. Each line of stdout is {"output", "stopped"}. The prompt is rendered by the code that training used, and
decoding is greedy.
"""

import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoTokenizer

from conf.problem import Problem
from conf.schema import Recipe
from data.rows import RowError, normalise
from trainer import evaluate, model, record
from trainer.failure import diagnose
from trainer.prompt import Prompt


class Answerer:
    """A finished run's model, ready to answer."""

    def __init__(self, folder: Path):
        adapter = folder / "adapter"
        if not record.sealed(folder):
            raise Problem(f"{folder} holds no finished run", "give the folder of a run that has a manifest.json", "refused")
        settings = record.settings(folder)
        base = model.load(_pinned(settings, adapter), settings.quant)
        self.prompt = Prompt(AutoTokenizer.from_pretrained(adapter), base.stops)
        self.model = PeftModel.from_pretrained(base.model, adapter)
        self.instruction = json.loads((folder / "metrics.json").read_text())["instruction"]
        self.limit = settings.data.max_new_tokens
        model.greedy(replace(base, tokenizer=self.prompt.tokenizer), self.prompt.stops)

    def messages(self, line: str, where: str) -> list[dict[str, str]]:
        """The prompt's turns that a line of input asks for."""
        try:
            raw = json.loads(line)
            if "messages" in raw:
                return normalise({"messages": [*raw["messages"], {"role": "assistant", "content": "-"}]}, where).messages
            if "prompt" in raw:
                return normalise({"prompt": raw["prompt"], "completion": "-"}, where).messages
            if not (self.instruction or "instruction" in raw):
                return normalise({"prompt": raw["input"], "completion": "-"}, where).messages
            return normalise({"instruction": self.instruction, **raw, "output": "-"}, where).messages
        except (ValueError, TypeError, KeyError) as error:
            what = f"{error.where}: {error.what}" if isinstance(error, RowError) else f"{where} is no JSON object ({error})"
            raise Problem(what, 'write lines such as {"input": "..."} or {"prompt": "..."}', "bad_data") from error

    @torch.inference_mode()
    def answer(self, messages: list[dict[str, str]]) -> dict:
        self.model.eval()
        (output, stopped), *_ = evaluate.answer(self.model, self.prompt, [self.prompt.tokens(messages)], self.limit)
        return {"output": output, "stopped": stopped}


def main() -> None:
    warnings.simplefilter("ignore", FutureWarning)  # of one library to another: nothing a user can act on
    try:
        if len(sys.argv) != 2:
            raise Problem("which run?", "python -m trainer.predict RUN_FOLDER")
        lines = [(number, line) for number, line in enumerate(sys.stdin, start=1) if line.strip()]
        answerer = Answerer(Path(sys.argv[1]))
        for number, line in lines:
            print(json.dumps(answerer.answer(answerer.messages(line, f"line {number}")), ensure_ascii=False), flush=True)
    except (Problem, OSError, RuntimeError, MemoryError) as error:
        print(f"error: {diagnose(error)}", file=sys.stderr)
        sys.exit(1)


def _pinned(settings: Recipe, adapter: Path):
    """The base model at the very commit that was trained on."""
    revision = json.loads((adapter / "adapter_config.json").read_text())["revision"]
    return replace(settings.model, revision=revision or settings.model.revision)


if __name__ == "__main__":
    main()
