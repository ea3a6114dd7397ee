"""The verbs that need nothing but the account and its box: what is there, what it costs, and what ends it."""

from invoke import task

from conf.cli import positive_integer, rehearsed, settings
from conf.paths import ROOT
from conf.problem import Problem
from conf.process.screen import screen
from remote.plan.command import perform, planned


def account(run):
    from remote.aws.session import Aws

    return Aws(run.cloud)


@task(help={"data": "remove the bucket and the volumes, too", "yes": "do not ask"})
def destroy(c, data=False, yes=False):
    """List what `inv init` and `inv up` have made, and remove it; runs stay unless you say --data."""
    from remote.account import names

    run = settings(c, fetch=names.fetch)
    perform(c, run, "destroy", planned().remove_account(run, data, yes), audited=False)


@task(help={"command": "one command instead, such as nvidia-smi; its exit code is that of `inv`"})
def shell(c, command=None):
    """Open a shell on the box: through Session Manager where its plugin is installed, else over SSH. The box stays on meanwhile."""
    run = settings(c)
    from remote.plan import shell_verbs

    perform(c, run, "shell", shell_verbs.shell(run, command), audited=False)


@task(positional=["port"], help={"port": "of the box", "local": "of 127.0.0.1 here; the same number when left out"})
def forward(c, port, local=None):
    """Reach a port of the box, such as 6006, on 127.0.0.1 of this machine, until Ctrl-C."""
    number = positive_integer("inv forward", port) or 0
    run = settings(c)
    from remote.plan import shell_verbs

    perform(c, run, "forward", shell_verbs.forward(run, number, positive_integer("--local", local) or number), audited=False)


@task(name="stop-run", help={"run": "of a fleet: id of a run, or its end; your newest when left out"})
def stop_run(c, run=None):
    """End the run that goes on, for good: its log and newest checkpoint in S3, its phase `cancelled`."""
    named, run = run, settings(c)
    if run.fleet.engine.value == "none":
        if named:
            raise Problem(
                "a box has one run at a time, which needs no name", "leave `--run` out; of a fleet: `inv stop-run -- fleet=batch`"
            )
        perform(c, run, "stop-run", planned().stop_run(run))
        return
    from remote.plan import fleet_verbs

    perform(c, run, "stop-run", fleet_verbs.stop_run(run, named))


@task(help={"older_than": "days; takes finished runs that are older, too", "yes": "do not ask"})
def clean(c, older_than=None, yes=False):
    """List the runs that came to nothing, and remove them; never a running one."""
    days = positive_integer("--older-than", older_than)
    run = settings(c)
    perform(c, run, "clean", planned().clean(run, days, yes))


@task(help={"by": "sums by `person`, `run` or `day`"})
def costs(c, by=None):
    """Show what runs, box, disks and S3 have cost, as far as AWS says so."""
    from remote.cost import ledger, shares

    way = by if by is None else shares.check(by)
    run = settings(c)
    rehearsed(c, "call   Read runs and reports from S3, disks from EC2, prices from the Price List") or ledger.show(account(run), run, way)


@task
def status(c):
    """Show the box and the runs, as AWS and S3 know them."""
    from conf.process.screen import shown
    from remote.view import status_cache

    if rehearsed(c, "call   Look up the box by its tag, and the runs in S3"):
        return
    status_cache.show(ROOT)  # before anything that takes a while to import
    run = settings(c)
    from remote.view import status as now

    text, about = now.text(account(run), run, status_cache.subjects(ROOT))
    print(text := shown(text))
    status_cache.write(ROOT, text, about)


@task(
    help={
        "run": "id of a run, or its end; the newest when left out",
        "follow": "go on until the run ends",
        "tail": "begin with the last so many lines",
    }
)
def logs(c, run=None, follow=False, tail=None):
    """Print a run's log, with the box on or off."""
    from remote.view import show

    lines = positive_integer("--tail", tail)
    config = settings(c)
    rehearsed(c, f"call   Read the log of {run or 'the newest run'} from S3") or show.logs(account(config), config, run, follow, lines)


@task(help={"run": "id of a run, or its end; the newest ten when left out", "port": "on 127.0.0.1"})
def tensorboard(c, run=None, port="6006"):
    """Show the curves of runs in TensorBoard on 127.0.0.1, with the box on or off."""
    from remote.view import tensorboard

    port = positive_integer("--port", port)
    config = settings(c)
    rehearsed(c, f"call   Serve the events of {run or 'the newest runs'} from S3 on 127.0.0.1:{port}") or tensorboard.show(
        account(config), config, run, port
    )


WHO = "laptop and files (who trains needs both), fleet (runs on a fleet, besides), setup and fleet-setup (for init and destroy, besides), "
WHO += "notices (likewise, for notify.email), or what a role may do: box, scheduler, workflow, fleet-instance or job"


@task(help={"who": WHO})
def policy(c, who="laptop"):
    """Print the least that IAM must allow, as a policy."""
    import json

    from remote.account import names, permissions

    run = settings(c, fetch=names.fetch_or_defaults)
    if rehearsed(c, f"call   Print the policy of {who}"):
        return
    document = permissions.policy(account(run), who)
    print(json.dumps(document, indent=2))
    screen.note(permissions.how_to_attach(who, document, run.cloud.own))
