"""The scores of a finished run's model on the first 200 rows of several files, the base not asked again (docs/reference):

python -m tests.bench.reference RUN_FOLDER OUT.json data/test_id.jsonl data/test_both.jsonl
"""

import sys
from dataclasses import replace
from pathlib import Path

from data.rows import read
from data.scoring import baselines
from trainer import files
from trainer.evaluate import evaluate, evaluate_run, finished_run
from trainer.model import model

ROWS = 200


def main() -> None:
    folder, out, *sources = map(Path, sys.argv[1:])
    run = finished_run.load(folder)
    train = read(Path(run.settings.data.train))
    model.use_greedy_decoding(run.base, run.prompt.stops)
    scores = {}
    for source in sources:
        rows = read(source)[:ROWS]
        settings = replace(run.settings, data=replace(run.settings.data, validation=str(source), eval_rows=ROWS))
        examples = run.prompt.held_out(rows, settings.data)
        timing = evaluate_run.TimingRecord()
        answers = evaluate.generate(run.tuned, run.prompt, examples, settings, timing, f"scoring {source.stem}")
        tuned = evaluate.score_answers(answers, [example.row for example in examples], settings)
        beside = baselines.beside_a_model(train, rows, settings.data.fields)
        scores[source.stem] = {"tuned": tuned, "baselines": beside, "seconds": timing.seconds}
        files.write(out, files.json_page(scores))
        print(source.stem, tuned["macro_f1"], {name: one["macro_f1"] for name, one in beside.items()}, flush=True)


if __name__ == "__main__":
    main()
