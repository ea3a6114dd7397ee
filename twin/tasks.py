"""`inv twin.*`. The twin knows no settings: who collects these verbs puts into Invoke's configuration where this twin keeps its state
(`c.twin_state`), what points a process at it (`c.twin_environment`), what `--dry` prints (`c.rehearsed`), and what
prints a result (`c.print`)."""

import shlex

from invoke import task


@task
def stop(c):
    """Stop the emulated AWS and Hub, and every box in it."""
    from twin import world

    state = c.twin_state(c, connected=False)
    if not c.rehearsed(c, f"call   Stop the twin in {state}"):
        world.stop(state)
        print("the twin is stopped")


@task
def status(c):
    """Show whether the emulated AWS runs, and where."""
    from twin import world

    running = world.status(c.twin_state(c, connected=False))
    lines = [f"{key}: {value}" for key, value in (running or {}).items()]
    c.print("\n".join(lines) or "the twin does not run; start it with `inv twin.start`")


@task(
    iterable=["set"],
    help={
        "name": "which fault: `inv twin.faults` lists them",
        "count": "how many calls it strikes; 0 for all",
        "after": "calls that pass before, or seconds of the twin's clock for faults of the box",
        "seed": "strike by chance, the same calls for the same seed",
        "only": "which operations, such as ssm.SendCommand or s3.*",
        "set": "an option of its own, NAME=VALUE",
    },
)
def fault(c, name, count=None, after=None, seed=None, only=None, set=None):
    """Let something go wrong on the twin."""
    from twin import show, world

    state = c.twin_state(c)
    options = show.options({"count": count, "after": after, "seed": seed, "only": only}, set or [])
    if not c.rehearsed(c, f"call   Arm the fault {name} on the twin"):
        print(show.fault(world.fault(state, name, **options)))


@task
def faults(c):
    """List what can go wrong on the twin, and what has been armed."""
    from twin import show, world

    state = c.twin_state(c)
    c.rehearsed(c, "call   Read the twin's faults") or print(show.faults(world.faults(state)))


@task
def costs(c):
    """Show what the emulated account would have to pay so far, second by second."""
    from twin import show, world

    state = c.twin_state(c)
    c.rehearsed(c, "call   Read the twin's meter") or print(show.bill(world.costs(state)))


@task(help={"confirm": "confirm every subscription that waits for it, as whoever opens the links does"})
def mail(c, confirm=False):
    """Show what has been mailed by the emulated SNS and posted to the emulated receiver of webhooks."""
    from twin import show, world

    state = c.twin_state(c)
    if c.rehearsed(c, "call   Read the twin's mailbox"):
        return
    if confirm:
        print(f"{len(world.confirm_mail(state))} subscriptions are confirmed")
    else:
        print(show.notices(world.mails(state), world.posts(state)))


@task(help={"hours": "how far; schedules, leases and prices go with it"})
def forward(c, hours):
    """Move the twin's clock forward."""
    from twin import show, world

    state = c.twin_state(c)
    if not c.rehearsed(c, f"call   Move the twin's clock forward by {hours} h"):
        print(show.moment(world.forward(state, show.hours(hours))))


@task
def env(c):
    """Print the exports that point any AWS or Hub client at the twin: eval "$(inv twin.env)"."""
    for name, value in c.twin_environment(c.twin_state(c, connected=False)).items():
        print(f"unset {name}" if value is None else f"export {name}={shlex.quote(value)}")
