"""The verbs: `inv up deploy train publish down`. Settings are overridden behind `--`: inv train -- lora.r=32

`--dry` rehearses: it prints every call and every script of the chain, and touches nothing.
"""

import contextlib
import functools
import os
import shlex
import sys
import time
from pathlib import Path

from invoke import Collection, Exit, task

ROOT = Path(__file__).resolve().parent
MACHINE_CACHE = ROOT / ".cache/machine"
CHAIN = ["up", "deploy", "train", "publish", "down"]
# What `make run` keeps on this machine.
MODELS = {"HuggingFaceTB/SmolLM2-135M-Instruct": ".cache/models/smollm2-135m", "fine-tune-slm/tiny-random-llama": ".cache/models/tiny"}
SPLIT = "train, validation, a file's name beside the latter such as test_both, or a path"


def friendly(body):
    """A task that ends in a sentence and a hint where the user, AWS or the Hub is at fault, never in a traceback."""

    @functools.wraps(body)
    def wrapped(*args, **kwargs):
        from conf.problem import Problem, explain
        from conf.process import streams
        from conf.text import secret
        from conf.text.visible import visible

        streams.settle()
        try:
            return body(*args, **kwargs)
        except Problem as problem:
            raise Exit(f"error: {visible(secret.hide(str(problem)))}", 1) from None
        except BrokenPipeError:
            # `inv logs | head`: the reader has what it wanted. Without this Python complains again when it closes stdout.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except KeyboardInterrupt as stop:
            raise Exit(f"\n{str(stop) or 'stopped; what runs on the box goes on. `inv status` shows it'}", 130) from None
        except Exception as error:
            from remote.aws import session

            meaning = session.explain(error) or (explain(error) if isinstance(error, OSError) else None)
            if meaning is None:
                secret.hide_in_tracebacks()
                raise
            raise Exit(f"error: {visible(secret.hide(str(meaning)))}", 1) from None

    return wrapped


@task(
    help={
        "token": "file with your Hub token; `-` reads standard input",
        "yes": "do not ask",
        "name": "of a stack of your own beside others in the account",
    }
)
@friendly
def init(c, token=None, yes=False, name=None):
    """Make an AWS account ready: show what would change, ask, change it, read it back. `inv --dry init` stops after showing."""
    from data.readers.text import decode

    words = [*overrides(), *([f"cloud.stack={name}"] if name else [])]
    run = settings(c, words, fetch=parameters_of_a_new_account)
    folder, local = (state_folder(run), state_folder(run) / "local.yaml") if run.cloud.loopback else (ROOT, ROOT / "conf/local.yaml")
    if rehearsed(c, "# init"):
        planned().account.rehearse(account(run), run, folder)
        return
    parts = planned().init(run, folder, local, Path(token) if token else None, yes, decode)
    perform(c, run, "init", parts, "{done}; {summary} has every name. Next: `inv up`")


@task(help={"data": "remove the bucket and the volumes, too", "yes": "do not ask"})
@friendly
def destroy(c, data=False, yes=False):
    """List what `inv init` and `inv up` have made, and remove it; runs stay unless you say --data."""
    run = settings(c, fetch=parameters_of_a_new_account)
    perform(c, run, "destroy", planned().unmake(run, data, yes), "nothing is left{kept}", audited=False)


@task
@friendly
def up(c):
    """Start the box, or make it, with its volume attached and its agent answering."""
    run = settings(c)
    perform(c, run, "up", planned().up(run, foretell), "{instance_id} is up ({instance_type}, {gpu}). Next: `inv deploy`")


@task
@friendly
def deploy(c):
    """Mount the volume and make the trainer's image ready on the box; where ECR has none of this tree, the box builds it."""
    run = settings(c)
    image_from_elsewhere(c, run)
    perform(c, run, "deploy", planned().deploy(run, ROOT), "{image} is ready (changed: {changed}). Next: `inv train`")


@task(help={"detach": "return as soon as the run has started", "run": "id of an unfinished run with these settings, whosever it is"})
@friendly
def train(c, detach=False, run=None):
    """Start a run, or attach to yours with these settings, and follow it to its end."""
    named, run = run, settings(c)
    done = "{run_id} has started. Next: `inv logs`" if detach else "{run_id} is done. Next: `inv publish`, `inv report`"
    perform(c, run, "train", planned().train(run, ROOT, check_inputs, detach, named), done)


@task(
    help={
        "name": "of the sweep; when left out the newest that has one of these runs, else a new one",
        "trials": "how many runs, their values drawn by the scores of those before (Optuna), in the place of each combination",
    }
)
@friendly
def sweep(c, name=None, trials=None):
    """Train a run for each combination of values, one after the other, and rank them: inv sweep -- lora.r=8,16 train.lr=1e-4,2e-4"""
    from remote.sweep import sweep as several
    from trainer.record import leaderboard

    if trials is not None:
        search(c, name, whole("--trials", trials))
        return
    jobs = several.jobs(overrides(), functools.partial(settings, c))
    run = jobs[0].run
    if rehearsed(c, several.rehearsal(jobs)):
        print(planned().rehearse(planned().train(run, ROOT, check_inputs, False)))
        return
    several.go(account(run), jobs, name, ROOT, foresight(), leaderboard.best)


@task(help={"run": "id of a finished run; the newest when left out"})
@friendly
def publish(c, run=None):
    """Publish a finished run on the Hugging Face Hub, and verify what arrived."""
    config = settings(c)
    from trainer.hub.publish import publish as upload  # after settings: huggingface_hub reads the environment once

    parts = planned().publish(config, run, upload, ROOT, os.environ.get("HF_ENDPOINT"))
    perform(c, config, "publish", parts, "{url} is published and verified. Next: `inv down`")


@task(
    help={
        "force": "end a run that is still going on",
        "snapshot": "keep a copy of the volume as it is then",
        "purge": "remove the box and its volume for good; asks first",
        "yes": "agree to that beforehand",
    }
)
@friendly
def down(c, force=False, snapshot=False, purge=False, yes=False):
    """Stop the box, once everything is delivered."""
    run = settings(c)
    parts = planned().purge(run, force, yes, snapshot) if purge else planned().down(run, force, snapshot)
    copy = "; {copied}" if snapshot else ""
    done = f"box and volume `{run.box.name}` are gone{copy}" if purge else f"{{instance_id}} is {{state}}{copy}"
    perform(c, run, "down", parts, f"{done}. Next: `inv report`")


@task(name="stop-run")
@friendly
def stop_run(c):
    """End the run that goes on, for good: its log and newest checkpoint in S3, its phase `cancelled`."""
    run = settings(c)
    perform(
        c, run, "stop-run", planned().stop_run(run), "{run_id} is {phase}. Next: `inv train` starts a new run, `inv down` stops the box"
    )


@task(help={"older_than": "days; takes finished runs that are older, too", "yes": "do not ask"})
@friendly
def clean(c, older_than=None, yes=False):
    """List the runs that came to nothing, and remove them; never a running one."""
    days = whole("--older-than", older_than)
    run = settings(c)
    perform(c, run, "clean", planned().clean(run, days, yes), "{count} runs are removed. Next: `inv status`")


@task
@friendly
def costs(c):
    """Show what runs, box, disks and S3 have cost, as far as AWS says so."""
    from remote.cost import ledger as ledger

    run = settings(c)
    rehearsed(c, "call   Read runs and reports from S3, disks from EC2, prices from the Price List") or ledger.show(account(run), run)


@task
@friendly
def status(c):
    """Show the box and the runs, as AWS and S3 know them."""
    from conf.text.visible import visible
    from remote.view import status_cache

    if rehearsed(c, "call   Look up the box by its tag, and the runs in S3"):
        return
    status_cache.show(ROOT)  # before anything that takes a while to import
    run = settings(c)
    from remote.view import status as now

    text, about = now.text(account(run), run, status_cache.subjects(ROOT))
    print(text := visible(text))
    status_cache.keep(ROOT, text, about)


@task(
    help={"run": "id of a run; the newest when left out", "follow": "go on until the run ends", "tail": "begin with the last so many lines"}
)
@friendly
def logs(c, run=None, follow=False, tail=None):
    """Print a run's log, with the box on or off."""
    from remote.view import show

    lines = whole("--tail", tail)
    config = settings(c)
    rehearsed(c, f"call   Read the log of {run or 'the newest run'} from S3") or show.logs(account(config), config, run, follow, lines)


@task(help={"run": "id of a finished run; the newest when left out", "csv": "print every figure as CSV instead"})
@friendly
def report(c, run=None, csv=False):
    """Show what a finished run came to: scores, Hub URL, report page, time and price."""
    from remote.view import show
    from trainer.record.report import summary, table

    config = settings(c)
    if rehearsed(c, f"call   Fetch the files of {run or 'the newest finished run'} from S3"):
        return
    if csv:
        show.spreadsheet(account(config), config, run, ROOT, table)
    else:
        show.report(account(config), config, run, ROOT, summary)


@task(positional=["first", "second"])
@friendly
def compare(c, first, second):
    """Show in which settings two finished runs differ, and which scored better."""
    from remote.view import show
    from trainer.record.compare import told

    config = settings(c)
    rehearsed(c, f"call   Fetch {first} and {second} from S3") or show.compare(account(config), config, first, second, ROOT, told)


@task(help={"run": "id of a run; the newest ten when left out", "port": "on 127.0.0.1"})
@friendly
def tensorboard(c, run=None, port="6006"):
    """Show the curves of runs in TensorBoard on 127.0.0.1, with the box on or off."""
    from remote.view import tensorboard

    port = whole("--port", port)
    config = settings(c)
    rehearsed(c, f"call   Serve the events of {run or 'the newest runs'} from S3 on 127.0.0.1:{port}") or tensorboard.show(
        account(config), config, run, port
    )


@task(
    help={
        "text": "a text, a file (of rows, such as .jsonl: each is answered), or `-` for standard input",
        "run": "id of a finished run; the newest when left out",
    }
)
@friendly
def predict(c, text, run=None):
    """Answer texts with a finished run's adapter: on the box if it is up, else on this machine's CPU."""
    from trainer.rows.predict_inputs import asked

    config = settings(c)
    perform(c, config, "predict", planned().predict(config, run, text, ROOT, asked), None, audited=False)


@task(
    help={
        "split": SPLIT,
        "run": "id of a finished run; the newest when left out",
        "scaffold": "once more with the keys of the answer filled in, reported apart",
    }
)
@friendly
def evaluate(c, split, run=None, scaffold=False):
    """Score a finished run on any rows: on the box if it is up and free, else on this machine; the result is kept beside it in S3."""
    from trainer.record.report import summary
    from trainer.rows import splits

    config = settings(c)
    perform(c, config, "evaluate", planned().evaluate(config, run, split, ROOT, splits.usable, summary, scaffold), None, audited=False)


@task(help={"json": "for programs"})
@friendly
def doctor(c, json=False):
    """Look for every reason why the chain would fail, each with the command that mends it."""
    from conf.problem import Problem
    from conf.text.visible import visible
    from remote.doctor import diagnose as ward

    if rehearsed(c, "call   Check credentials, rights, quota, network, image, model and price; nothing is changed"):
        settings(c)
        return
    seen = []
    try:
        run = settings(c, fetch=functools.partial(parameters, True, fetch=functools.partial(ward.fetch, seen)))
        found = ward.examine(patient(run), [hub_check()])
    except Problem as problem:
        if not seen:  # AWS was not asked yet: it is the words behind `--`
            raise
        found = ward.unread(seen, problem)
    print(ward.as_json(found) if json else visible(ward.text(found)))
    if not ward.fine(found):
        raise Exit(code=1)


@task(help={"who": "laptop and files (who trains needs both), setup (for init and destroy, besides), box, scheduler or workflow"})
@friendly
def policy(c, who="laptop"):
    """Print the least that IAM must allow, as a policy."""
    import json

    from remote.account import permissions

    run = settings(c, fetch=parameters_for_anyone)
    if rehearsed(c, f"call   Print the policy of {who}"):
        return
    document = permissions.policy(account(run), who)
    print(json.dumps(document, indent=2))
    print(permissions.where_to(who, document, run.cloud.own), file=sys.stderr)


@task
@friendly
def smoke(c):
    """Run the whole chain on a tiny model in under a minute."""
    words = [word for word in overrides() if not word.startswith("experiment=")] + ["experiment=smoke"]
    verbs = ["twin.start", *CHAIN] if settings(c, words, world_needed=False).cloud.loopback else CHAIN
    command = [sys.executable, "-m", "invoke", *(["--dry"] if c.config.run.dry else []), *verbs, "--", *words]
    os.execv(sys.executable, command)


@task
@friendly
def plan(c):
    """Show what the chain would do, and what training needs: memory, time, price. Nothing is started."""
    run = settings(c)
    if rehearsed(c, "call   Ask for the box's card and price; count tokens, memory and time"):
        return
    aws = account(run)
    for verb, parts in chain(run).items():
        print(f"{verb}\n{planned().outline(parts)}")
    show_plan(aws, run)


@task
@friendly
def image_build(c):
    """Build the trainer's image of this tree with the docker of this machine; `inv deploy` needs none."""
    run = settings(c)
    perform(c, run, "image.build", planned().push(run, ROOT)[:1], "{local} is built. Next: `inv image.push`", audited=False)


@task
@friendly
def image_push(c):
    """Build the image with the docker of this machine, push it to ECR, write its digest down."""
    run = settings(c)
    perform(c, run, "image.push", planned().push(run, ROOT), "{image} is in ECR. Next: `inv image.verify`, `inv deploy`")


@task
@friendly
def image_verify(c):
    """Check the image of this tree in ECR: digest, start, labels, size, age. It runs it with the docker of this machine."""
    from remote.build import docker

    run = settings(c)
    rehearsed(c, "call   Check the image in ECR, and start it here") or docker.verify(account(run), run, ROOT)


@task(help={"empty": "an account with nothing in it, for `inv init`"})
@friendly
def twin_start(c, empty=False):
    """Start the emulated AWS and Hub on 127.0.0.1."""
    from remote.account import stack
    from twin import world

    run = settings(c, world_needed=False)
    models = {name: ROOT / folder for name, folder in MODELS.items()}
    if rehearsed(c, f"call   Start the twin in {run.cloud.state}, serving {', '.join(models)}"):
        return
    account = {"region": run.cloud.region} if empty else stack.account(run)
    served = {name: folder for name, folder in models.items() if folder.exists()}
    told(world.start, state_folder(run), served, account, run.cloud.grade.value, MACHINE_CACHE)
    found = world.status(state_folder(run))
    print(f"the twin runs: AWS at {found['aws']}, the Hub at {found['hub']}. Next: `inv {'init' if empty else 'up'}`")


@task
@friendly
def twin_stop(c):
    """Stop the emulated AWS and Hub, and every box in it."""
    from twin import world

    run = settings(c, world_needed=False)
    if not rehearsed(c, f"call   Stop the twin in {run.cloud.state}"):
        world.stop(state_folder(run))
        print("the twin is stopped")


@task
@friendly
def twin_status(c):
    """Show whether the emulated AWS runs, and where."""
    from twin import world

    run = settings(c, world_needed=False)
    found = world.status(state_folder(run))
    print(
        "\n".join(f"{key}: {value}" for key, value in found.items()) if found else "the twin does not run; start it with `inv twin.start`"
    )


@task(
    iterable=["set"],
    help={
        "name": "which fault: `inv twin.faults` lists them",
        "count": "how many calls it strikes; 0 for all",
        "after": "calls that pass before, or seconds of the twin's clock for what befalls the box",
        "seed": "strike by chance, the same calls for the same seed",
        "only": "which operations, such as ssm.SendCommand or s3.*",
        "set": "an option of its own, NAME=VALUE",
    },
)
@friendly
def twin_fault(c, name, count=None, after=None, seed=None, only=None, set=None):
    """Let something go wrong on the twin."""
    from twin import show, world

    run = settings(c)
    options = show.options({"count": count, "after": after, "seed": seed, "only": only}, set or [])
    if not rehearsed(c, f"call   Arm the fault {name} on the twin"):
        print(show.fault(told(world.fault, state_folder(run), name, **options)))


@task
@friendly
def twin_faults(c):
    """List what can go wrong on the twin, and what has been armed."""
    from twin import show, world

    run = settings(c)
    rehearsed(c, "call   Read the twin's faults") or print(show.faults(world.faults(state_folder(run))))


@task
@friendly
def twin_costs(c):
    """Show what the emulated account would have to pay so far, second by second."""
    from twin import show, world

    run = settings(c)
    rehearsed(c, "call   Read the twin's meter") or print(show.bill(world.costs(state_folder(run))))


@task(help={"hours": "how far; schedules, leases and prices go with it"})
@friendly
def twin_forward(c, hours):
    """Move the twin's clock forward."""
    from twin import show, world

    run = settings(c)
    if not rehearsed(c, f"call   Move the twin's clock forward by {hours} h"):
        print(show.moment(told(world.forward, state_folder(run), show.hours(hours))))


@task
@friendly
def twin_env(c):
    """Print the exports that point any AWS or Hub client at the twin: eval "$(inv twin.env)"."""
    run = settings(c, world_needed=False)
    for name, value in environment(state_folder(run)).items():
        print(f"unset {name}" if value is None else f"export {name}={shlex.quote(value)}")


@task
def data_build(c):
    """Write the shipped rows again, byte for byte, and measure their gates."""
    from data import generate

    generate.main()


@task
@friendly
def data_check(c):
    """Check rows of any origin before they are trained on: broken ones, lengths, copies, leaks, labels."""
    from conf.schema import TooLong
    from data import check
    from trainer.rows import splits

    run = recipe()
    limits = check.Limits(run.data.max_length, run.data.max_new_tokens, run.data.too_long is TooLong.drop)
    names = [splits.source(run.data, name) for name in splits.OWN]
    files = [splits.path(run.data, name) for name in splits.OWN]
    findings = check.check(*files, run.data.fields, ruler(run), limits, names, splits.also(run.data))
    print(check.text(findings))
    if any(finding.verdict == "wrong" for finding in findings):
        raise Exit(code=1)


@task(help={"rows": "how many", "seed": "the same rows for the same number", "id": "the row with this id", "split": SPLIT})
@friendly
def data_show(c, rows=5, seed=None, id=None, split="validation"):
    """Show random rows with their evidence in colours, and what is no label crossed out."""
    from data import show
    from trainer.rows import splits

    run = recipe()
    show.show(splits.rows(run.data, split, id), run.data.fields, rows, seed)


@task(iterable=["split"], help={"split": f"one more column (may be repeated): {SPLIT}"})
@friendly
def data_stats(c, split):
    """Show what the training and the held-out rows are made of."""
    from data import stats
    from trainer.rows import splits

    run = recipe()
    sets = {name: splits.rows(run.data, name) for name in [*splits.OWN, *split]}
    print(stats.text(stats.table(sets, run.data.fields)))


@task(help={"split": SPLIT})
@friendly
def data_baselines(c, split="validation"):
    """Score a split without a model: what guessing, copying and a dictionary reach."""
    from conf.problem import Problem
    from data.scoring import baselines
    from trainer.rows import splits

    data = recipe().data
    if data.fields is None:
        raise Problem("data.fields is null, and free text has no baselines", "name the keys of the answers: `data.fields=[...]`")
    print(baselines.text(baselines.measure(splits.rows(data, "train"), splits.rows(data, split), data.fields), data.fields))


@task
def bench_cli(c):
    """Time `inv --list` beside a trivial tasks.py."""
    c.run(shlex.join([sys.executable, "tests/bench/cli.py"]))


@task
def bench_status(c):
    """Time how soon `inv status` shows what it remembers, and what AWS says."""
    c.run(shlex.join([sys.executable, "tests/bench/status.py"]))


@task(help={"steps": "timed steps of each turn", "rounds": "turns of each", "shape": "random NF4 weights of these sizes: llama31-8b"})
def bench_trainer(c, steps=4, rounds=2, shape=None):
    """Time training beside TRL: tokens a second, peak memory, losses."""
    words = [sys.executable, "tests/bench/trainer.py", "--steps", str(steps), "--rounds", str(rounds)]
    c.run(shlex.join(words + (["--shape", shape] if shape else [])))


@task(help={"steps": "timed steps of each turn", "rounds": "turns of each"})
def bench_levers(c, steps=2, rounds=2):
    """Time a step without one lever of training at a time: tokens a second, peak memory, losses."""
    c.run(shlex.join([sys.executable, "tests/bench/levers.py", "--steps", str(steps), "--rounds", str(rounds)]))


def whole(option: str, text: str | None) -> int | None:
    """The whole number that an option says; None where nothing is said. Invoke reads those whose default is one, in a traceback."""
    from conf.problem import Problem

    if text is not None and not (text.isdecimal() and int(text) > 0):
        raise Problem(f"{option} is {text}", f"it takes a whole number, 1 or more: `{option} 10`", reason="bad_config")
    return None if text is None else int(text)


def overrides() -> list[str]:
    from conf.process import argv

    return argv.overrides()


def settings(c, words=None, world_needed=True, fetch=None):
    """The checked settings of this command; for the twin, with this process pointed at it and at nothing else."""
    from conf import load
    from conf.process import proxy

    ask = None if c.config.run.dry else functools.partial(parameters, world_needed)
    run = load.load(overrides() if words is None else words, fetch=fetch or ask)
    if run.cloud.loopback and world_needed and not c.config.run.dry:
        point_at(run.cloud.state)  # also where nothing had to be fetched
    if not run.cloud.loopback:
        proxy.check()
    if not sys.stderr.isatty():  # after the twin's environment, which forgets every setting of the Hub's client
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    return run


def parameters(world_needed, names, cloud, fetch=None) -> dict:
    """Values of Parameter Store, from the account that this command is about."""
    from conf.process import proxy
    from remote.aws import session

    if cloud["loopback"] and not world_needed:
        return {}
    if cloud["loopback"]:
        point_at(cloud["state"])
    else:
        proxy.check()
    return (fetch or session.fetch)(names, cloud)


def parameters_of_a_new_account(names, cloud) -> dict:
    import json

    from remote.account import stack
    from remote.account.init import KEPT

    found = parameters(True, [*names, KEPT], cloud)
    kept = json.loads(found.pop(KEPT, "{}"))  # by an `init` that was killed
    return stack.names_of_a_new_account(cloud) | kept | found


def parameters_for_anyone(names, cloud) -> dict:
    """The same, with the default names where the login may not read Parameter Store: whoever asks for his policy has none yet."""
    from remote.account import stack
    from remote.aws import session

    try:
        return parameters_of_a_new_account(names, cloud)
    except Exception as error:
        if not session.may_not(error):
            raise
    print("your login may not read Parameter Store (ssm:GetParameters): these are the default names", file=sys.stderr)
    return stack.names_of_a_new_account(cloud)


def point_at(state: str) -> None:
    """From now on this process talks to the twin and to nothing else."""
    for name, value in environment(state).items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    if boto3 := sys.modules.get("boto3"):  # which keeps the keys of a world before
        boto3.DEFAULT_SESSION = None


def recipe():
    """The checked settings of a command that needs no cloud."""
    from conf import load

    return load.load(overrides())


def ruler(run):
    """Measures rows by the model's own tokenizer. On the twin only files of this machine are looked at."""
    from trainer.rows import token_lengths

    folder = MODELS.get(run.model.id)
    here = folder is not None and (ROOT / folder).is_dir()
    return token_lengths.ruler(run.model, str(ROOT / folder) if here else run.model.id, offline=run.cloud.loopback, data=run.data)


def state_folder(run) -> Path:
    from conf.problem import Problem

    if not run.cloud.loopback:
        raise Problem(f"cloud={run.cloud.name} is no twin", "say `cloud=twin`: inv twin.start -- cloud=twin")
    return ROOT / run.cloud.state


def told(ask, *arguments, **options):
    """What the twin answers; what it refuses is the user's mistake."""
    from conf.problem import Problem
    from twin.world import WorldError

    try:
        return ask(*arguments, **options)
    except WorldError as error:
        hint = "`inv twin.status` shows whether it runs, `inv twin.faults` what it can do"
        if "path holds" in str(error):
            hint = "keep it in another folder: `cloud.state=/tmp/twin` behind `--`, with each verb"
        raise Problem(str(error), hint, reason="bad_config") from error


def environment(state: str) -> dict:
    from conf.problem import Problem
    from twin import world

    if world.status(ROOT / state) is None:
        raise Problem("the twin does not run", "start it with `inv twin.start`", reason="unreachable")
    return world.environment(ROOT / state)


def account(run):
    from remote.aws.session import Aws

    return Aws(run.cloud)


def chain(run) -> dict:
    """The parts of every verb, as far as they are known before the first one runs."""
    from trainer.hub.publish import publish as upload

    verbs = planned()
    return {
        "up": verbs.up(run, foretell),
        "deploy": verbs.deploy(run, ROOT),
        "train": verbs.train(run, ROOT, check_inputs, False),
        "publish": verbs.publish(run, None, upload, ROOT, None),
        "down": verbs.down(run, False),
    }


def planned():
    from remote.plan import verbs

    return verbs


def rehearsed(c, intent: str) -> bool:
    """Whether this is a rehearsal; the intent is printed then, and nothing else may happen."""
    if c.config.run.dry:
        print(intent)
    return c.config.run.dry


def perform(c, run, verb, parts, done, audited=True) -> None:
    """Carry out or rehearse a plan, say what it came to, and leave a line in the audit where the bucket is to stay."""
    from remote.aws.s3 import Store
    from remote.runs import audit

    if rehearsed(c, f"# {verb}"):
        print(planned().rehearse(parts))
        return
    started, aws = time.monotonic(), account(run)
    try:
        facts = planned().perform(parts, aws, planned().transport(run))
    except BaseException:
        # What went wrong is what the user must read, whether or not the audit can be written.
        with contextlib.suppress(Exception):
            if audited:
                audit.write(Store(aws), verb, run.box.name, time.monotonic() - started, "failed")
        raise
    if audited:
        audit.write(Store(aws), verb, run.box.name, time.monotonic() - started, "ok")
    if done:
        print(done.format(**facts), flush=True)


def check_inputs(aws, settings) -> dict:
    """Check rows, token and base model before anything is paid for, and tell what the run will need."""
    facts, lines = proof(aws, settings, sys.stderr.isatty())
    print("\n".join(lines), file=sys.stderr)
    return facts


def proof(aws, run, colour: bool, seen=None) -> tuple[dict, list[str]]:
    from remote.runs import hub
    from trainer.preflight import preflight

    return preflight.prove(run, os.environ.get("HF_ENDPOINT"), hub.token(aws), *box_of(aws, run), colour, seen)


def search(c, name, trials) -> None:
    """A sweep that draws its values, or its rehearsal."""
    from conf import search_space as values
    from remote.sweep.search import Search
    from trainer.record import leaderboard

    ways = {"check": foresight(), "rank": leaderboard.best, "score": leaderboard.score}
    found = Search(values.read(overrides(), trials), trials, functools.partial(settings, c), ROOT, **ways)
    if rehearsed(c, found.rehearsal()):
        print(planned().rehearse(planned().train(found.first, ROOT, check_inputs, False)))
        return
    found.go(account(found.first), name)


def foresight():
    """`proof` for the jobs of a sweep, without its lines: rows and model are looked at once for all jobs that have the same."""
    from remote.runs import hub
    from trainer.preflight import preflight

    seen = {}

    def check(aws, run) -> dict:
        access = os.environ.get("HF_ENDPOINT"), hub.token(aws)
        facts, rows = preflight.check(run, *access), repr((run.model, run.data))
        if rows not in seen:
            seen[rows] = preflight.look(run, *access)
        return facts | {"planned": preflight.told(seen[rows], run, *box_of(aws, run), False)[1]}

    return check


def box_of(aws, run) -> tuple:
    """The box's card, and its price to plan with."""
    from remote.aws import gpu, pricing

    return gpu.card(aws, run.box.instance_type), pricing.planned(aws, run.box.instance_type, run.cost.per_hour)


def foretell(aws, settings) -> dict:
    """Tell what the run will cost."""
    from conf.problem import Problem
    from remote.runs import hub
    from trainer.preflight import preflight

    try:
        seen = preflight.look(settings, os.environ.get("HF_ENDPOINT"), hub.token(aws))
        lines, seconds = preflight.told(seen, settings, *box_of(aws, settings), False)
    except Problem as problem:  # `train` needs these rows and this model, a box does not
        lines, seconds = [f"price    of the run unknown: {problem.what}"], None
    print(f"  {lines[-1]}", file=sys.stderr, flush=True)
    return {"planned": seconds}


def show_plan(aws, run) -> None:
    """What would be created, what training needs, which boxes would be cheaper or faster; the price last."""
    from rich.console import Console

    from remote.build import ecr
    from remote.cost import offers
    from remote.runs import hub
    from trainer.preflight import preflight

    print(offers.standing(aws, run, ecr.tag(ROOT, run.cloud.build_args)))
    token = hub.token(aws)
    seen = preflight.look(run, os.environ.get("HF_ENDPOINT"), token)
    need = functools.partial(preflight.needs, seen, run)
    found, small = offers.offers(aws, run, need) if seen.shape else ([], [])
    lines = proof(aws, run, sys.stdout.isatty(), seen)[1]
    print("\n".join(lines[:-1]))
    if found:
        Console(width=120, highlight=False).print(offers.table(run, found))
        print(f"too small for this run: {', '.join(small)}\n" if small else "", end="")
    print(lines[-1])


def patient(run):
    """What the doctor examines."""
    from remote.build import ecr
    from remote.doctor.check import Look
    from trainer.estimate import driver

    return Look(
        account(run), run, ecr.tag(ROOT, run.cloud.build_args), os.environ.get("HF_ENDPOINT", "https://huggingface.co"), driver.least()
    )


def hub_check():
    """A check of the Hub's token and of the base model, for the doctor."""
    from remote.doctor.check import Check
    from remote.runs import hub
    from trainer.preflight import access

    def look(at):
        return access.check(at.run, os.environ.get("HF_ENDPOINT"), hub.token(at.aws))

    return Check("token", "the base model and the published adapter need it", look)


def image_from_elsewhere(c, run) -> None:
    """On the twin's machine grade CI has built and pushed the image, as it were; with arguments of one's own the box must build it."""
    if not run.cloud.loopback or run.cloud.grade.value != "machine" or run.cloud.build_args:
        return
    from remote.build import ecr
    from twin import world

    if rehearsed(c, "call   Build this tree's image, as CI would"):
        return
    packages = (ROOT / "trainer/requirements.txt", ROOT / "trainer/locked.txt")
    world.build_image(state_folder(run), MACHINE_CACHE, run.cloud.repository, ecr.tag(ROOT), ROOT, packages)


namespace = Collection(
    *(init, plan, up, deploy, train, sweep, publish, down, status, logs, report, predict, stop_run, clean, costs),
    *(evaluate, compare, tensorboard, doctor, policy, smoke, destroy),
)
twin = Collection("twin")
for body, name in (
    (twin_start, "start"),
    (twin_stop, "stop"),
    (twin_status, "status"),
    (twin_env, "env"),
    (twin_costs, "costs"),
    (twin_fault, "fault"),
    (twin_faults, "faults"),
    (twin_forward, "forward"),
):
    twin.add_task(body, name)
images = Collection("image")
for body, name in ((image_build, "build"), (image_push, "push"), (image_verify, "verify")):
    images.add_task(body, name)
data = Collection("data")
for body, name in (
    (data_build, "build"),
    (data_check, "check"),
    (data_show, "show"),
    (data_stats, "stats"),
    (data_baselines, "baselines"),
):
    data.add_task(body, name)
bench = Collection("bench")
bench.add_task(bench_cli, "cli")
bench.add_task(bench_status, "status")
bench.add_task(bench_trainer, "trainer")
bench.add_task(bench_levers, "levers")
namespace.add_collection(twin)
namespace.add_collection(data)
namespace.add_collection(images)
namespace.add_collection(bench)
