"""python -m trainer.evaluate.evaluate_run RUN_FOLDER ROWS OUT [scaffold] [schema]

A finished run scored on other rows, into OUT.json and OUT.predictions.jsonl.

Base and tuned model answer every row as they did when the run was scored: same prompt, quantisation and scorer. With `scaffold`
they answer once more, the keys filled in, with `schema` held to the JSON Schema of the rows' answers; those scores are separate. Nothing
in the run's folder is written.
"""

import sys
import time
import warnings
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path

from conf.problem import Problem
from conf.schema import Recipe
from data.rows import Row, RowError, scan_or_raise
from trainer import files
from trainer.estimate import limits
from trainer.evaluate import eval_step, evaluate, finished_run, forced_keys
from trainer.model import attention
from trainer.record import record
from trainer.rows import answer_schema
from trainer.rows.prompt import Example
from trainer.rows.rows import check_scorable, print_notes


class TimingRecord:
    """Replaces a run's record: it writes nothing, and measures the seconds of each stage."""

    def __init__(self):
        self.seconds: dict[str, float] = {}  # of each stage; `generate` itself prints the progress
        self._begun = 0.0

    def event(self, _kind: str, what: str, done: int, of: int) -> None:
        if not done:
            self._begun = time.monotonic()
        self.seconds[what] = round(time.monotonic() - self._begun, 2)

    def heartbeat(self) -> None:
        pass


def evaluate_rows(folder: Path, source: Path, split: str, other_ways: Collection[str] = ()) -> tuple[dict, list[dict]]:
    """The scores and the answers of the run in `folder` on the rows of `source`; `other_ways` are those of WAYS to answer once more."""
    started = time.monotonic()
    run = finished_run.load(folder)
    rows = _rows(source)
    settings = replace(run.settings, data=replace(run.settings.data, validation=str(source)))
    examples, sha256 = run.prompt.held_out(rows, settings.data), files.digest(source)
    check_scorable([example.row for example in examples], settings.data.fields)
    limits.check_prompts(run.config, examples, settings.data.answer_limit)
    generators = {name: WAYS[name](run, examples) for name in other_ways}
    timing = TimingRecord()
    scores, answers = evaluate.compare(run.tuned, run.base, run.prompt, examples, settings, sha256, folder, timing)
    for name, (facts, generate) in generators.items():
        own_scores, texts = _answer_otherwise(run, examples, settings, name, generate, timing)
        scores[name] = own_scores | facts
        answers = [row | {name: texts_of_row} for row, texts_of_row in zip(answers, texts, strict=True)]
    return scores | {
        "run_id": folder.name,
        "split": split,
        "rows_sha256": sha256,
        "trained_on": sha256 in _trained_on(folder),
        "adapter_sha256": files.digest(folder / "adapter" / "adapter_model.safetensors"),
        "completion_loss": completion_losses(run, examples),
        "precision": run.base.precision,
        "seconds": round(time.monotonic() - started, 1),
        "time": record.now(),
    }, answers


def _answer_otherwise(
    run: finished_run.FinishedRun, examples: list[Example], settings: Recipe, name: str, generate: Callable, timing: TimingRecord
) -> tuple[dict, list[dict]]:
    """The scores and answers of both models in another way than the run was scored."""
    tuned = evaluate.generate(run.tuned, run.prompt, examples, settings, timing, f"scoring tuned, {name}", generate)
    with run.tuned.disable_adapter():
        base = evaluate.generate(run.tuned, run.prompt, examples, settings, timing, f"scoring base, {name}", generate)
    rows = [example.row for example in examples]
    scores = {"base": evaluate.score_answers(base, rows, settings), "tuned": evaluate.score_answers(tuned, rows, settings)}
    texts = [{"base": old, "tuned": new} for (old, _), (new, _) in zip(base, tuned, strict=True)]
    return scores | {"seconds": timing.seconds}, texts


def _with_scaffold(run: finished_run.FinishedRun, examples: list[Example]) -> tuple[dict, Callable]:
    parts = forced_keys.shared_scaffold(examples)
    return {"parts": parts}, partial(forced_keys.answers, scaffold=parts)


def _with_schema(run: finished_run.FinishedRun, examples: list[Example]) -> tuple[dict, Callable]:
    from trainer.evaluate import json_schema

    expected = [example.row.output for example in examples if example.row.output is not None]
    schema = answer_schema.of_fields(run.settings.data.fields, expected)
    return {"schema": schema}, json_schema.JsonSchema(json_schema.grammar(schema), run.prompt).answers


WAYS = {"scaffold": _with_scaffold, "schema": _with_schema}  # to answer once more, reported apart


def _rows(source: Path) -> list[Row]:
    try:
        return print_notes(scan_or_raise(source), str(source))
    except RowError as error:
        raise Problem(f"{error.where}: {error.what}", error.hint, "bad_data") from error


def _trained_on(folder: Path) -> set[str]:
    """The sha256 of every file of rows that the run was trained on."""
    recorded = record.manifest(folder)["data"]
    return {recorded["train"], *recorded.get("also", {}).values()}


def completion_losses(run: finished_run.FinishedRun, examples: list[Example]) -> dict[str, float]:
    """The mean loss of an answer token, of base and tuned."""
    limit = run.pack_tokens if max(map(len, examples)) <= run.longest else None
    fields, beat = run.settings.data.fields, TimingRecord().heartbeat
    with attention.for_pack_tokens(run.tuned.get_base_model(), limit):
        tuned = eval_step.measure(run.tuned, examples, limit, fields, beat)
        with run.tuned.disable_adapter():
            base = eval_step.measure(run.tuned, examples, limit, fields, beat)
    return {"base": base["loss"], "tuned": tuned["loss"]}


def main() -> None:
    warnings.simplefilter("ignore", FutureWarning)  # between libraries: nothing that a user can act on
    try:
        paths, options = sys.argv[1:4], sys.argv[4:]
        if len(paths) != 3 or not set(options) <= WAYS.keys():
            usage = "python -m trainer.evaluate.evaluate_run RUN_FOLDER ROWS OUT [scaffold] [schema]"
            raise Problem("which run, which rows, and where to?", usage)
        folder, source, out = map(Path, paths)
        scores, answers = evaluate_rows(folder, source, out.name, options)
        out.parent.mkdir(parents=True, exist_ok=True)
        files.write(out.with_name(f"{out.name}.predictions.jsonl"), "".join(files.json_line(row) for row in answers))
        files.write(out.with_name(f"{out.name}.json"), files.json_page(scores))
    except (Problem, OSError, RuntimeError, MemoryError) as error:
        print(f"error: {finished_run.explain(error)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
