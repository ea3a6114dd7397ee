"""`inv sweep` and `inv curve`: several runs of one command. What it needs of the trainer, `tasks.py` puts into Invoke's configuration."""

from invoke import task

from conf.cli import positive_integer
from conf.paths import ROOT


@task(
    help={
        "name": "of the sweep; when left out the newest that has one of these runs, else a new one",
        "trials": "how many runs, their values drawn by the scores of those before (Optuna), in the place of each combination",
        "fleet": "on AWS Batch, so many at once",
        "prune": "end trials on the fleet early that fall behind those that were trained as far (successive halving)",
        "detach": "hand all of them to AWS Batch, and return",
    }
)
def sweep(c, name=None, trials=None, fleet=None, prune=False, detach=False):
    """Train a run for each combination of values, one after the other, and rank them: inv sweep -- lora.r=8,16 train.lr=1e-4,2e-4"""
    from remote.sweep import command

    trials, at_once = positive_integer("--trials", trials), positive_integer("--fleet", fleet)
    command.sweep(c, name, trials, ROOT, c.preflight(), c.records("leaderboard"), command.OnFleet(at_once, detach, prune))


@task(help={"name": "of the curve; when left out the newest that has one of these runs, else a new one"})
def curve(c, name=None):
    """How many rows do I need? Show the score against the number of training rows: inv curve -- data.train_rows=128,512,null"""
    from remote.sweep import command

    command.curve(c, name, ROOT, c.preflight(), c.records("learning_curve"))
