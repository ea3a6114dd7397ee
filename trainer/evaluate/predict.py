"""python -m trainer.evaluate.predict RUN_FOLDER: answers of a finished run's model, one JSON line each.

    echo '{"input": "Stage II breast cancer ..."}' | python -m trainer.evaluate.predict runs/20261122-011157-quickstart-385b

Each line of stdin is {"instruction"?, "input"}, {"prompt"}, {"messages"} or {"conversations"}; without an instruction, one of the
training rows' own is used, and so are the turns with which all of them begin. Each line of stdout is {"output", "stopped"}. The prompt is
rendered by the code that training used, and decoding is greedy.
"""

import json
import sys
import warnings
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import torch

from conf.problem import Problem
from data.readers.text import TextError, decode
from data.rows import Row, ScanNotes
from trainer.estimate import limits
from trainer.evaluate import evaluate, finished_run
from trainer.rows import predict_inputs
from trainer.rows.prompt import Example


class Predictor:
    """A finished run's model, ready to answer."""

    def __init__(self, folder: Path):
        self.run = finished_run.load(folder)
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        self.instruction, self.opening, self.tools = metrics["instruction"], metrics.get("opening", []), metrics.get("tools", [])

    def row(self, line: str | bytes, where: str, notes: ScanNotes | None = None) -> Row:
        """The row of a line of input."""
        try:
            raw = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Problem(f"{where} is no row that can be answered ({error})", predict_inputs.HINT, "bad_data") from error
        row = predict_inputs.prompt_row(raw, where, self.instruction, notes)
        own_context = {"messages", "conversations"} & raw.keys() or row.messages[0]["role"] == "system"
        return replace(
            row,
            messages=row.messages if own_context else self.opening + row.messages,
            tools=row.tools or ([] if own_context else self.tools),
        )

    @torch.inference_mode()
    def predict(self, row: Row) -> dict:
        prompt, limit = self.run.prompt.tokens(row.messages, row.tools), self.run.settings.data.max_new_tokens
        limits.check_prompts(self.run.config, [Example(row, prompt, [])], limit)
        (output, stopped), *_ = evaluate.generate_batch(self.run.tuned, self.run.prompt, [prompt], limit)
        return {"output": output, "stopped": stopped}


def _decoded(data: bytes) -> str:
    try:
        return decode(data)
    except TextError as error:
        raise Problem(str(error), error.hint, "bad_data") from error


def main() -> None:
    warnings.simplefilter("ignore", FutureWarning)  # between libraries: nothing that a user can act on
    try:
        if len(sys.argv) != 2:
            raise Problem("which run?", "python -m trainer.evaluate.predict RUN_FOLDER")
        lines = [(number, line) for number, line in enumerate(_decoded(sys.stdin.buffer.read()).split("\n"), start=1) if line.strip()]
        with redirect_stdout(sys.stderr):  # what loading prints is no answer
            answerer = Predictor(Path(sys.argv[1]))
        notes = ScanNotes()
        for number, line in lines:
            print(json.dumps(answerer.predict(answerer.row(line, f"line {number}", notes)), ensure_ascii=False), flush=True)
        for note in notes.lines():
            print(f"note: {note}", file=sys.stderr)
    except (Problem, OSError, RuntimeError, MemoryError) as error:
        print(f"error: {finished_run.explain(error)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
