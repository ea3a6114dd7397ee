"""python -m trainer.predict RUN_FOLDER: answers of a finished run's model, one JSON line each.

    echo '{"input": "Stage II breast cancer ..."}' | python -m trainer.predict runs/20261122-011157-quickstart-385b

Each line of stdin is {"instruction"?, "input"}, {"prompt"} or {"messages"}; without an instruction, one of the training rows'
own is used, and so are the turns with which all of them begin. Each line of stdout is {"output", "stopped"}. The prompt is
rendered by the code that training used, and decoding is greedy.
"""

import json
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import torch

from conf.problem import Problem
from data.rows import RowError, normalise
from trainer import evaluate, finished
from trainer.failure import diagnose


class Answerer:
    """A finished run's model, ready to answer."""

    def __init__(self, folder: Path):
        self.run = finished.load(folder)
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        self.instruction, self.opening = metrics["instruction"], metrics.get("opening", [])

    def messages(self, line: str, where: str) -> list[dict[str, str]]:
        """The prompt's turns that a line of input asks for."""
        try:
            raw = json.loads(line)
            if "messages" in raw:
                return normalise({"messages": [*raw["messages"], {"role": "assistant", "content": "-"}]}, where).messages
            if "prompt" in raw:
                return self.opening + normalise({"prompt": raw["prompt"], "completion": "-"}, where).messages
            if not (self.instruction or "instruction" in raw):
                return self.opening + normalise({"prompt": raw["input"], "completion": "-"}, where).messages
            return self.opening + normalise({"instruction": self.instruction, **raw, "output": "-"}, where).messages
        except (ValueError, TypeError, KeyError) as error:
            what = f"{error.where}: {error.what}" if isinstance(error, RowError) else f"{where} is no row that can be answered ({error})"
            raise Problem(what, 'write lines such as {"input": "..."} or {"prompt": "..."}', "bad_data") from error

    @torch.inference_mode()
    def answer(self, messages: list[dict[str, str]]) -> dict:
        prompts = [self.run.prompt.tokens(messages)]
        (output, stopped), *_ = evaluate.answer(self.run.tuned, self.run.prompt, prompts, self.run.settings.data.max_new_tokens)
        return {"output": output, "stopped": stopped}


def main() -> None:
    warnings.simplefilter("ignore", FutureWarning)  # of one library to another: nothing a user can act on
    try:
        if len(sys.argv) != 2:
            raise Problem("which run?", "python -m trainer.predict RUN_FOLDER")
        lines = [(number, line) for number, line in enumerate(sys.stdin, start=1) if line.strip()]
        with redirect_stdout(sys.stderr):  # what loading tells is no answer
            answerer = Answerer(Path(sys.argv[1]))
        for number, line in lines:
            print(json.dumps(answerer.answer(answerer.messages(line, f"line {number}")), ensure_ascii=False), flush=True)
    except (Problem, OSError, RuntimeError, MemoryError) as error:
        print(f"error: {diagnose(error)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
