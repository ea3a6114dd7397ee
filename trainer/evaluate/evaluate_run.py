"""python -m trainer.evaluate.evaluate_run RUN_FOLDER ROWS OUT [scaffold]

A finished run scored on other rows, into OUT.json and OUT.predictions.jsonl.

Base and tuned model answer every row as they did when the run was scored: same prompt, quantisation and scorer. With `scaffold`
they answer once more, the keys filled in; those scores are separate. Nothing in the run's folder is written.
"""

import sys
import time
import warnings
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


def evaluate_rows(folder: Path, source: Path, split: str, with_scaffold: bool = False) -> tuple[dict, list[dict]]:
    """The scores and the answers of the run in `folder` on the rows of `source`."""
    started = time.monotonic()
    run = finished_run.load(folder)
    rows = _rows(source)
    settings = replace(run.settings, data=replace(run.settings.data, validation=str(source)))
    examples, sha256 = run.prompt.held_out(rows, settings.data), files.digest(source)
    check_scorable([example.row for example in examples], settings.data.fields)
    limits.check_prompts(run.config, examples, settings.data.max_new_tokens)
    parts = forced_keys.shared_scaffold(examples) if with_scaffold else None
    timing = TimingRecord()
    scores, answers = evaluate.compare(run.tuned, run.base, run.prompt, examples, settings, sha256, folder, timing)
    if parts:
        scores["scaffold"], texts = evaluate_forced_keys(run, examples, settings, parts, timing)
        answers = [row | {"scaffold": texts_of_row} for row, texts_of_row in zip(answers, texts, strict=True)]
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


def evaluate_forced_keys(
    run: finished_run.FinishedRun, examples: list[Example], settings: Recipe, parts: list[str], timing: TimingRecord
) -> tuple[dict, list[dict]]:
    """The scores and answers of both models with the scaffold filled in."""
    way = partial(forced_keys.answers, scaffold=parts)
    tuned = evaluate.generate(run.tuned, run.prompt, examples, settings, timing, "scoring tuned, keys filled in", way)
    with run.tuned.disable_adapter():
        base = evaluate.generate(run.tuned, run.prompt, examples, settings, timing, "scoring base, keys filled in", way)
    rows = [example.row for example in examples]
    scores = {"base": evaluate.score_answers(base, rows, settings), "tuned": evaluate.score_answers(tuned, rows, settings)}
    texts = [{"base": old, "tuned": new} for (old, _), (new, _) in zip(base, tuned, strict=True)]
    return scores | {"parts": parts, "seconds": timing.seconds}, texts


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
        if len(paths) != 3 or options not in ([], ["scaffold"]):
            raise Problem("which run, which rows, and where to?", "python -m trainer.evaluate.evaluate_run RUN_FOLDER ROWS OUT [scaffold]")
        folder, source, out = map(Path, paths)
        scores, answers = evaluate_rows(folder, source, out.name, bool(options))
        out.parent.mkdir(parents=True, exist_ok=True)
        files.write(out.with_name(f"{out.name}.predictions.jsonl"), "".join(files.json_line(row) for row in answers))
        files.write(out.with_name(f"{out.name}.json"), files.json_page(scores))
    except (Problem, OSError, RuntimeError, MemoryError) as error:
        print(f"error: {finished_run.explain(error)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
