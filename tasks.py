"""The verbs: `inv up deploy train publish down`. Settings are overridden behind `--`: inv train -- lora.r=32

`--dry` rehearses: it prints every call and every script of the chain, and touches nothing.
"""

import importlib
import os
import sys
from pathlib import Path

from invoke import Collection, Exit, task

import remote.sweep.tasks
import remote.tasks
import trainer.rows.tasks
import twin.tasks
from conf.cli import overrides, positive_integer, read_before_invoke, rehearsed, seconds, settings, user_errors
from conf.paths import LOCAL_MODELS, ROOT
from conf.problem import Problem
from conf.process import argv, streams
from conf.process.screen import screen
from remote import image_tasks, notify_tasks
from remote.plan.command import down_plan, perform, planned, train_plan
from remote.plan.preflight import Preflight
from remote.tasks import account
from tests.bench import tasks as bench
from trainer.rows import answer_schema
from trainer.rows.tasks import HOLD, ONCE_MORE, SPLIT, TEXT

MACHINE_CACHE = ROOT / ".cache/machine"
FINISHED = "id of a finished run, or its end; `best`: of the highest score; the newest when left out"
CHAIN = ["up", "deploy", "train", "publish", "down"]
preflight = Preflight(lambda: importlib.import_module("trainer.preflight.preflight"))


@task(
    help={
        "token": "file with your Hub token; `-` reads standard input",
        "yes": "do not ask",
        "name": "of a stack of your own beside others in the account",
    }
)
def init(c, token=None, yes=False, name=None):
    """Make an AWS account ready: show what would change, ask, change it, read it back. `inv --dry init` stops after showing."""
    from data.readers.text import decode
    from remote.account import names

    if name:
        argv.add(f"cloud.stack={name}")
    run = settings(c, fetch=names.fetch)
    folder, local = (state_folder(run), state_folder(run) / "local.yaml") if run.cloud.loopback else (ROOT, ROOT / "conf/local.yaml")
    if rehearsed(c, "# init"):
        planned().account.rehearse(account(run), run, folder)
        return
    parts = planned().init(run, folder, local, Path(token) if token else None, yes, decode)
    perform(c, run, "init", parts)


@task(help={"wait": "where AWS has no room, go on trying for so long, such as 2h or 90m"})
def up(c, wait=None):
    """Start the box, or make it, with its volume attached and its agent answering."""
    run = settings(c)
    perform(c, run, "up", planned().up(run, preflight.estimate_cost, seconds("--wait", wait) if wait else 0))


@task
def deploy(c):
    """Mount the volume and make the trainer's image ready on the box; where ECR has none of this tree, the box builds it."""
    run = settings(c)
    image_from_elsewhere(c, run)
    perform(c, run, "deploy", planned().deploy(run, ROOT))


UNFINISHED = "id of an unfinished run with these settings, also somebody else's"


@task(help={"detach": "return as soon as the run has started", "run": UNFINISHED, "log": "show what the trainer prints, too"})
def train(c, detach=False, run=None, log=False):
    """Start a run, or attach to yours with these settings, and follow it to its end."""
    named, run = run, settings(c)
    perform(c, run, "train", train_plan(run)(run, ROOT, preflight.check_inputs, detach, named, log))


@task(help={"run": FINISHED})
def publish(c, run=None):
    """Publish a finished run on the Hugging Face Hub, and verify what arrived."""
    config = settings(c)
    from trainer.hub.publish import publish as upload  # after settings: huggingface_hub reads the environment once

    parts = planned().publish(config, run, upload, ROOT, os.environ.get("HF_ENDPOINT"))
    perform(c, config, "publish", parts)


@task(
    help={
        "force": "end a run that is still going on",
        "snapshot": "keep a copy of the volume as it is then",
        "purge": "remove the box and its volume for good; asks first",
        "yes": "agree to that beforehand",
        "fleet": "end every job of the stack's fleet, everybody's, and wait until no instance of it is left",
    }
)
def down(c, force=False, snapshot=False, purge=False, yes=False, fleet=False):
    """Stop the box, once everything is delivered."""
    run = settings(c)
    perform(c, run, "down", down_plan(run, force, snapshot, purge, yes, fleet))


@task(help={"run": FINISHED, "csv": "print every figure as CSV instead"})
def report(c, run=None, csv=False):
    """Show what a finished run came to: scores, Hub URL, report page, time and price."""
    from remote.view import show
    from trainer.record.report import advice, summary, table

    config = settings(c)
    if rehearsed(c, f"call   Fetch the files of {run or 'the newest finished run'} from S3"):
        return
    if csv:
        show.spreadsheet(account(config), config, run, ROOT, table)
    else:
        show.report(account(config), config, run, ROOT, summary, advice)


@task(positional=["first", "second"], help={"first": "id of a finished run", "second": "id of another finished run"})
def compare(c, first, second):
    """Show in which settings two finished runs differ, and which scored better."""
    from remote.view import show
    from trainer.record.compare import tables

    config = settings(c)
    rehearsed(c, f"call   Fetch {first} and {second} from S3") or show.compare(account(config), config, first, second, ROOT, tables)


@task(help={"text": TEXT, "run": FINISHED, "schema": HOLD})
def predict(c, text, run=None, schema=None):
    """Answer texts with a finished run's adapter: on the box if it is up, else on this machine's CPU."""
    from trainer.rows.predict_inputs import input_lines

    config = settings(c)
    parts = planned().predict(config, run, text, ROOT, input_lines, schema, answer_schema.line)
    perform(c, config, "predict", parts, audited=False)


@task(aliases=["play"], help={"run": FINISHED, "port": "of 127.0.0.1", "schema": HOLD})
def serve(c, run=None, port="8000", schema=None):
    """Try a finished run's model on a page, and answer OpenAI's chat API: on the box if it is up, else here, until Ctrl-C."""
    config, verb = settings(c), "play" if "play" in argv.before_overrides() else "serve"
    parts = planned().serve(config, run, positive_integer("--port", port), ROOT, schema, answer_schema.line, verb)
    perform(c, config, verb, parts, audited=False)


@task(help={"split": SPLIT, "run": FINISHED} | ONCE_MORE)
def evaluate(c, split, run=None, scaffold=False, schema=False):
    """Score a finished run on any rows: on the box if it is up and free, else on this machine; the result is kept beside it in S3."""
    from trainer.record.report import summary
    from trainer.rows import splits

    config = settings(c)
    parts = planned().evaluate(config, run, split, ROOT, splits.checked_path, summary, scaffold, schema)
    perform(c, config, "evaluate", parts, audited=False)


@task(help={"json": "for programs"})
def doctor(c, json=False):
    """Look for every reason why the chain would fail, each with the command that fixes it."""
    if rehearsed(c, "call   Check credentials, rights, quota, network, image, model and price; nothing is changed"):
        settings(c)
        return
    from remote.doctor import command
    from trainer.estimate import driver
    from trainer.preflight import access

    if not command.doctor(c, json, ROOT, driver.minimum_driver(), access.check_hub_access, preflight.too_small):
        raise Exit(code=1)


@task
def smoke(c):
    """Run the whole chain on a tiny model in under a minute."""
    words = [word for word in overrides() if not word.startswith("experiment=")] + ["experiment=smoke"]
    verbs = ["twin.start", *CHAIN] if settings(c, words, connected=False).cloud.loopback else CHAIN
    options = [f"--{option}" for option in ("dry", "echo") if c.config.run[option]]
    command = [sys.executable, "-m", "invoke", *options, *verbs, "--", *words]
    os.execv(sys.executable, command)


@task
def plan(c):
    """Show what the chain would do, and what training needs: memory, time, price. Nothing is started."""
    from remote.plan.perform import outline

    run = settings(c)
    if rehearsed(c, "call   Ask for the box's card and price; count tokens, memory and time"):
        return
    price = preflight.show(account(run), run, ROOT)
    for verb, parts in chain(run).items():
        print(f"{verb}\n{outline(parts)}")
    screen.print(price)


@task(help={"empty": "an account with nothing in it, for `inv init`"})
def twin_start(c, empty=False):
    """Start the emulated AWS and Hub on 127.0.0.1."""
    from remote.account import stack
    from twin import world

    run = settings(c, connected=False)
    models = {name: ROOT / folder for name, folder in LOCAL_MODELS.items()}
    if rehearsed(c, f"call   Start the twin in {run.cloud.state}, serving {', '.join(models)}"):
        return
    account = {"region": run.cloud.region} if empty else stack.account(run)
    served = {name: folder for name, folder in models.items() if folder.exists()}
    with screen.verb("twin.start", "Start an AWS account and a Hub on this machine"):
        world.start(state_folder(run), served, account, run.cloud.backend.value, MACHINE_CACHE)
        running = world.status(state_folder(run))
        screen.result(f"the twin runs: AWS at {running['aws']}, the Hub at {running['hub']}", f"`inv {'init' if empty else 'up'}`")


def state_folder(run) -> Path:
    if not run.cloud.loopback:
        raise Problem(f"cloud={run.cloud.name} is no twin", "say `cloud=twin`: `inv twin.start -- cloud=twin`")
    return ROOT / run.cloud.state


def environment(state: str) -> dict:
    from twin import world

    if world.status(ROOT / state) is None:
        raise Problem("the twin does not run", "start it with `inv twin.start`", reason="unreachable")
    return world.environment(ROOT / state)


def chain(run) -> dict:
    """The parts of every verb, as far as they are known before the first one runs."""
    from trainer.hub.publish import publish as upload

    verbs = planned()
    train_and_publish = {
        "train": train_plan(run)(run, ROOT, preflight.check_inputs, False),
        "publish": verbs.publish(run, None, upload, ROOT, None),
    }
    if run.fleet.engine.value != "none":  # no box
        return train_and_publish
    box = {"up": verbs.up(run, preflight.estimate_cost), "deploy": verbs.deploy(run, ROOT)}
    return box | train_and_publish | {"down": verbs.down(run, False)}


def image_from_elsewhere(c, run) -> None:
    """On the twin's machine grade the image is built and pushed here, as CI would; with build arguments of your own the box builds it."""
    if not run.cloud.loopback or run.cloud.backend.value != "machine" or run.cloud.build_args:
        return
    from remote.build import ecr
    from twin import world

    if rehearsed(c, "call   Build this tree's image, as CI would"):
        return
    packages = (ROOT / "trainer/requirements.txt", ROOT / "trainer/locked.txt")
    world.build_image(state_folder(run), MACHINE_CACHE, run.cloud.repository, ecr.tag(ROOT), ROOT, packages)


def fetch_parameters(names, cloud) -> dict:
    """Values of Parameter Store, from the account that this command is about."""
    from remote.aws import session

    return session.fetch(names, cloud)


def records(name: str):
    """A module of the trainer that reads records of runs, imported when it is needed."""
    return importlib.import_module(f"trainer.record.{name}")


def twin_state(c, connected=True) -> Path:
    return state_folder(settings(c, connected=connected))


def explain(error: Exception):
    """What an error of AWS means, as a Problem; None for any other."""
    from remote.aws import session

    return session.explain(error)


namespace = Collection(
    *(init, plan, up, deploy, train, publish, down),
    *(report, compare, predict, serve, evaluate, doctor, smoke),
    *Collection.from_module(remote.tasks).tasks.values(),
    *Collection.from_module(remote.sweep.tasks).tasks.values(),
)
for module, name in ((image_tasks, "image"), (trainer.rows.tasks, "data"), (twin.tasks, "twin"), (bench, "bench")):
    namespace.add_collection(Collection.from_module(module, name))
namespace.add_collection(Collection.from_module(notify_tasks, "notify"))
namespace.collections["twin"].add_task(twin_start, "start")
# What the verbs of the rooms need of each other, which do not know each other.
namespace.configure({"fetch_parameters": fetch_parameters, "twin_environment": environment, "twin_state": twin_state})
namespace.configure({"rehearsed": rehearsed, "print": screen.print, "preflight": lambda: preflight, "records": records})
user_errors(namespace, explain)
read_before_invoke(namespace)
streams.end_with_the_reader()
