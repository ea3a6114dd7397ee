"""`inv data.build`, `data.check`, `data.show`, `data.stats`, `data.baselines`: rows before they are trained on, without a cloud."""

from invoke import Exit, task

from conf.cli import local_settings
from conf.paths import LOCAL_MODELS, ROOT

SPLIT = "train, validation, a file's name beside the latter such as test_both, or a path"
# Of verbs in tasks.py about rows.
TEXT = "a text, a file (of rows, such as .jsonl: each is answered), or `-` for standard input"
HOLD = "a file of JSON Schema that each answer is held to, or `auto`: the keys that are scored"
ONCE_MORE = {
    "scaffold": "once more with the keys of the answer filled in, reported apart",
    "schema": "once more with answers held to a JSON Schema of the keys that are scored, reported apart",
}


@task
def build(c):
    """Write the shipped rows again, byte for byte, and measure their gates."""
    from data import generate

    generate.main()


@task
def check(c):
    """Check rows of any origin before they are trained on: broken ones, lengths, copies, leaks, labels."""
    from conf.schema import TooLong
    from data import check
    from trainer.rows import splits

    run = local_settings()
    limits = check.Limits(run.data.max_length, run.data.max_new_tokens, run.data.too_long is TooLong.drop)
    names = (splits.source(run.data, "train"), splits.source(run.data, "validation"))
    training, held_out = splits.path(run.data, "train"), splits.path(run.data, "validation")
    findings = check.check_files(training, held_out, run.data.fields, length_counter(run), limits, names, splits.also(run.data))
    print(check.text(findings))
    if any(finding.verdict == "wrong" for finding in findings):
        raise Exit(code=1)


@task(help={"rows": "how many", "seed": "the same rows for the same number", "id": "the row with this id", "split": SPLIT})
def show(c, rows=5, seed=None, id=None, split="validation"):
    """Show random rows with their evidence in colours, and what is no label crossed out."""
    from data import show
    from trainer.rows import splits

    run = local_settings()
    show.show(splits.rows(run.data, split, id), run.data.fields, rows, seed)


@task(iterable=["split"], help={"split": f"one more column (may be repeated): {SPLIT}"})
def stats(c, split):
    """Show what the training and the held-out rows are made of."""
    from data import stats
    from trainer.rows import splits

    run = local_settings()
    sets = {name: splits.rows(run.data, name) for name in [*splits.OWN, *split]}
    print(stats.text(stats.table(sets, run.data.fields)))


@task(help={"split": SPLIT})
def baselines(c, split="validation"):
    """Score a split without a model: what guessing, copying and a dictionary reach."""
    from conf.problem import Problem
    from data.scoring import baselines
    from trainer.rows import splits

    data = local_settings().data
    if data.fields is None:
        raise Problem("data.fields is null, and free text has no baselines", "name the keys of the answers: `data.fields=[...]`")
    print(baselines.text(baselines.measure(splits.rows(data, "train"), splits.rows(data, split), data.fields), data.fields))


def length_counter(run):
    """Counts tokens with the model's own tokenizer. Where the cloud is this machine, only files of this machine are read."""
    from trainer.rows import token_lengths

    folder = LOCAL_MODELS.get(run.model.id)
    place = str(ROOT / folder) if folder and (ROOT / folder).is_dir() else run.model.id
    return token_lengths.length_counter(run.model, place, offline=run.cloud.loopback, data=run.data)
