"""What a run has measured on held-out rows so far, as its events say; they may be anybody's."""

import math
from datetime import datetime

from conf import schema
from conf.sweep.pruning import Measurement
from remote.aws.s3 import Store
from remote.runs import progress, runs


def of_run(store: Store, run_id: str, settings: schema.Run) -> list[Measurement]:
    """Each step's first measurement, but for the last step's: who is there is not stopped any more."""
    by_loss = settings.train.metric_for_best_model is schema.BestMetric.loss
    kind, name, words = ("eval", "loss", "held-out loss") if by_loss else ("score", "macro_f1", "macro-F1")
    measured: dict[int, Measurement] = {}
    last = None
    for event in progress.complete_events(store.get(f"runs/{run_id}/events.jsonl") or b""):
        try:
            last = int(event["steps"]) if event["event"] == "step" else last
            if event["event"] != kind:
                continue
            step, value, time = int(event["step"]), float(event[name]), datetime.fromisoformat(event["time"])
            score = -value if by_loss else value
            usable = step >= 0 and math.isfinite(value) and time.tzinfo is not None
        except runs.BROKEN:
            continue
        if usable and (last is None or step < last):
            measured.setdefault(step, Measurement(run_id, time, step, score, f"{words} {value:.3f} after step {step}"))
    return list(measured.values())
