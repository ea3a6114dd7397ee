"""python -m trainer.evaluate.predict RUN_FOLDER: answers of a finished run's model, one JSON line each.

    echo '{"input": "Stage II breast cancer ..."}' | python -m trainer.evaluate.predict runs/20261122-011157-quickstart-385b

Each line of stdin is {"instruction"?, "input"}, {"prompt"}, {"messages"} or {"conversations"}; without an instruction, one of the
training rows' own is used, and so are the turns with which all of them begin. Each line of stdout is {"output", "stopped"}. The prompt is
rendered by the code that training used, and decoding is greedy. A first line {"schema": {...}} holds all answers to that JSON Schema.
"""

import json
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch

from conf.problem import Problem
from data.readers.text import TextError, decode
from data.rows import Row, ScanNotes
from trainer.estimate import limits
from trainer.evaluate import evaluate, finished_run
from trainer.rows import answer_schema, predict_inputs
from trainer.rows.prompt import Example


class Predictor:
    """A finished run's model, ready to answer; each answer is held to `schema` where there is one."""

    def __init__(self, folder: Path, schema: dict | None = None):
        if schema is not None:
            _json_schema().grammar(schema)  # a Problem before a model is loaded for nothing
        self.run = finished_run.load(folder)
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        self.instruction, self.opening, self.tools = metrics["instruction"], metrics.get("opening", []), metrics.get("tools", [])
        self.generate = evaluate.generate_batch if schema is None else self.held_to(schema)

    def held_to(self, schema: dict) -> Callable:
        """The way to generate answers that are valid by this JSON Schema."""
        return _json_schema().JsonSchema(_json_schema().grammar(schema), self.run.prompt).answers

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
    def predict(self, row: Row, base: bool = False, limit: int | None = None, generate: Callable | None = None) -> dict:
        """The answer of the tuned model, or of its base; of at most `limit` tokens where that is given, else of as many as in the run.
        `generate` is another way than that of all answers."""
        prompt, limit = self.run.prompt.tokens(row.messages, row.tools), limit or self.run.settings.data.answer_limit
        limits.check_prompts(self.run.config, [Example(row, prompt, [])], limit)
        with self.run.tuned.disable_adapter() if base else nullcontext():
            ((output, stopped),) = (generate or self.generate)(self.run.tuned, self.run.prompt, [prompt], limit)
        return {"output": output, "stopped": stopped}


def _json_schema() -> ModuleType:
    """Imported for those who ask for it: its library is newer than some installations."""
    from trainer.evaluate import json_schema

    return json_schema


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
        schema, rows = answer_schema.of_input(_decoded(sys.stdin.buffer.read()))
        lines = [(number, line) for number, line in enumerate(rows.split("\n"), start=1) if line.strip()]
        with redirect_stdout(sys.stderr):  # what loading prints is no answer
            predictor = Predictor(Path(sys.argv[1]), schema)
        notes = ScanNotes()
        for number, line in lines:
            print(json.dumps(predictor.predict(predictor.row(line, f"line {number}", notes)), ensure_ascii=False), flush=True)
        for note in notes.lines():
            print(f"note: {note}", file=sys.stderr)
    except (Problem, OSError, RuntimeError, MemoryError) as error:
        print(f"error: {finished_run.explain(error)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
