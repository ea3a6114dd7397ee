"""A trainer that learns nothing: the real one's entry, record and seal around steps that only pass the time.

It is the image of tests about what may happen to a run: a valid run folder in about a second, without torch. `register` puts
it into a world's ECR; `inv deploy` then keeps it, because an image with this tree's tag is there already.

    digest = stand_in_trainer.register(laptop.state, step_seconds=0.1)      # paced by its image's environment
    laptop.inv("up", "deploy", "train", overrides=("train.steps=50", "train.save_steps=5"))

It logs one numbered line a step, measures every `train.eval_steps` (the higher `lora.r`, the lower its loss), saves a checkpoint every
`train.save_steps` steps and goes on from the newest whole one; it obeys SIGTERM like the real one, and the fault `disk-full`. `crash_at`
raises at that step, `hang_at` stops making steps (and heartbeats) there, `full_at` meets a full disk, `hold_at` waits for a file `go` in
the run's folder; each on the first attempt only. At `linger_at` a run of `lora.r=1` waits to be ended.
A question to its finished run is answered with the question's text (`predict`), and with the run's own scores (`examine`).
"""

import errno
import hashlib
import importlib.util
import json
import os
import runpy
import sys
import time
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "STAND_IN_"


def register(state: Path, repository: str = "fine-tune-slm", step_seconds: float = 0.02, **at: int) -> str:
    """The digest of the image in a world's ECR, under the tag that this tree's own image would have."""
    from remote.build import ecr
    from twin import world

    environment = {f"{PREFIX}{name.upper()}": str(value) for name, value in {"step_seconds": step_seconds, **at}.items()}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return world.register_image(state, repository, ecr.tag(ROOT), [sys.executable, str(Path(__file__))], ROOT, environment)


def run(settings, folder: Path, record, begun: float, _team) -> None:
    """In the place of the trainer's recipe: steps, checkpoints, an adapter, scores and the seal."""
    from trainer.rows import rows
    from trainer.train.signals import StopRequest

    usual = finished_run()
    training, held_out = rows.read(settings.data, folder)
    steps, first = settings.train.steps or 10, newest(folder)
    if first:
        print(f"going on after step {first}", flush=True)
    with StopRequest() as stop:
        for step in range(first + 1, steps + 1):
            inject_failure(step, first, folder)
            linger(step, settings)
            with stop.deferred():
                time.sleep(option("step_seconds"))
                print(f"step {step} of {steps}", flush=True)
                record.event("step", step=step, steps=steps, epoch=step / steps, loss=2 / step, lr=1e-3, grad_norm=1.0, tok_s=100, mfu=None)
                if step % settings.train.eval_steps == 0:
                    record.event("eval", step=step, loss=2 / step + 1 / settings.lora.r, field_match=None, token_match=0.5)
                if step % settings.train.save_steps == 0 or step == steps or stop.requested:
                    save(folder, step)
    record.phase("evaluating")
    adapter(folder, settings)
    rows_trained_on = settings.data.train_rows or sum(len(table.rows) for table in training)
    record.metrics(usual.METRICS | {"step": steps, "training": {"rows": rows_trained_on, "empty": {}}})
    keys = dict.fromkeys(settings.data.fields or [])
    record.predictions([row | {"expected": json.dumps(keys | json.loads(row["expected"]))} for row in usual.PREDICTIONS])
    data = {"train": training[0].sha256, "validation": held_out.sha256, "train_rows": 1, "validation_rows": 1}
    seconds = {"load": 0.0, "train": round(time.monotonic() - begun, 2), "evaluate": 0.0}
    record.seal(settings, usual.FACTS | {"model": {"id": settings.model.id, "revision": "0" * 40}, "data": data, "seconds": seconds})


def inject_failure(step: int, first: int, folder: Path) -> None:
    """What the box's full disk, or the image's environment on a first attempt, has in store for this step."""
    no_room(folder)
    no_gpu(folder)
    if first:
        return
    while step == option("hold_at") and not (folder / "go").exists():
        no_room(folder)
        no_gpu(folder)
        time.sleep(0.02)
    (folder / "go").unlink(missing_ok=True)
    if step == option("crash_at"):
        raise RuntimeError(f"told to crash at step {step}")
    if step == option("full_at"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    while step == option("hang_at"):
        time.sleep(1)


def linger(step: int, settings) -> None:
    while step == option("linger_at") and settings.lora.r == 1:
        time.sleep(0.02)


def no_room(folder: Path) -> None:
    if any((parent.parent / "full").is_file() for parent in [folder.resolve(), *folder.resolve().parents]):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_gpu(folder: Path) -> None:
    """What CUDA says of a GPU that is taken away from its container."""
    box = os.environ.get("BOX_ROOT")  # outside of a box there is no docker
    if box and Path(box, f"var/lib/docker/containers/fine-tune-slm-{folder.name}/gpu-lost").exists():
        raise RuntimeError("CUDA error: unknown error")


def option(name: str) -> float:
    return float(os.environ.get(f"{PREFIX}{name.upper()}", 0))


def save(folder: Path, step: int) -> None:
    """A checkpoint as the trainer leaves them: beside its place, then renamed, with COMPLETE as its last file."""
    part, place = folder / "checkpoints/part", folder / f"checkpoints/step-{step:06d}"
    part.mkdir(parents=True, exist_ok=True)
    (part / "progress.json").write_text(json.dumps({"step": step}))
    (part / "COMPLETE").write_text("{}")
    part.rename(place)


def newest(folder: Path) -> int:
    steps = [int(path.parent.name.removeprefix("step-")) for path in folder.glob("checkpoints/step-*/COMPLETE")]
    return max(steps, default=0)


def adapter(folder: Path, settings) -> None:
    target = folder / "adapter"
    target.mkdir(exist_ok=True)
    (target / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": settings.model.id, "r": settings.lora.r}))
    # Each seed has its own: what the Hub has already is not uploaded, and so not cut.
    (target / "adapter_model.safetensors").write_bytes(f"weights of seed {settings.seed} ".encode() * 500)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (target / name).write_text("{}")


def answer() -> None:
    """In the place of `python -m trainer predict`: what is asked is the answer."""
    for asked in map(json.loads, sys.stdin):
        if "schema" not in asked:  # which stands before all questions
            print(json.dumps({"output": asked["input"], "stopped": True}))


def examine(_run: str, rows: str, out: str) -> None:
    """In the place of `python -m trainer examine`: a finished run's scores, whatever the rows."""
    usual = finished_run()
    scores = usual.METRICS | {"rows_sha256": hashlib.sha256(Path(rows).read_bytes()).hexdigest(), "trained_on": False}
    Path(f"{out}.json").write_text(json.dumps(scores))
    Path(f"{out}.predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in usual.PREDICTIONS))


def finished_run():
    """The scores of a finished run that the trainer's own tests use."""
    spec = importlib.util.spec_from_file_location("finished_run", ROOT / "tests/unit/trainer/finished_run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """`python -m trainer` with `run` above in the place of its recipe; of the carrier only that it starts this."""
    room = sys.argv.pop(1) if sys.argv[1:2] in (["trainer"], ["carrier"]) else "trainer"
    if room == "carrier":
        from carrier import __main__ as carrier
        from carrier import process

        process.COMMAND = [sys.executable, str(Path(__file__)), "trainer"]
        sys.exit(carrier.main(sys.argv[1:]))
    if sys.argv[1:2] == ["predict"]:
        return answer()
    if sys.argv[1:2] == ["examine"]:
        return examine(*sys.argv[2:5])
    from trainer import train
    from trainer.record import curves

    curves.draw = lambda events: []  # matplotlib takes a second
    train.recipe = sys.modules["trainer.train.recipe"] = types.ModuleType("trainer.train.recipe")
    train.recipe.run = run
    sys.argv[0] = str(ROOT / "trainer/__main__.py")
    runpy.run_module("trainer", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
