"""A fault that meets the chain, as a story: when it strikes, what is read, what is kept, what is typed next; and how it must end.

Every story has a box of its own, and all that its user types is real: `inv`, the scripts, the AWS CLI, the twin's protocols. Only the
trainer is the stand-in. The end is the same for all: one run, sealed, published, its log whole; and the box, left alone, has stopped.
"""

import hashlib
import json
import re
import signal
import subprocess
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field

import stand_in_trainer
from test_recovery import run_ids, state, trainers, wait_until

from twin import world
from twin.aws.faults import KINDS
from twin.box import processes
from twin.box.faults import HostFaults

CHAIN = ["up", "deploy", "train", "publish"]
RUNNING = "running"  # the trainer makes its steps, and nobody watches
WATCHED = "watched"  # the same, and `inv train` shows it
STEPS = 12
IDLE = 2  # minutes: what is typed next must come sooner, on a busy machine, too
ALLOWED = IDLE * 60 + 120  # seconds that are paid for after the last useful one


@dataclass(frozen=True)
class Story:
    fault: str  # as twin/FAULTS.md names it
    at: str  # the verb of the chain that meets it, or RUNNING or WATCHED
    reads: str = ""  # what stands in the last words of the command that meets it; empty: it gets through
    kept: str = "all"
    then: tuple[str, ...] = ()  # what is typed next; the rest of the chain follows
    options: dict = field(default_factory=dict)
    hint: str = ""  # what the hint holds; empty: the first word of what is typed next
    settings: tuple[str, ...] = ()
    ends: bool = False  # it ends the trainer
    first: Callable[["Tale"], None] = lambda tale: None  # what happens before the command that meets it is typed
    meanwhile: Callable[["Tale"], None] = lambda tale: None  # while that command waits
    mended: Callable[["Tale"], None] = lambda tale: None  # what somebody else mends before the next one

    @property
    def name(self) -> str:
        return f"{self.fault}-{self.at}"

    @property
    def shared(self) -> bool:
        return self.fault in KINDS and self.at in ("train", "publish", WATCHED)

    def row(self, test: str) -> str:
        """Its line in the table of RELIABILITY.md."""
        when = {RUNNING: "while it trains", WATCHED: "while it trains, watched"}.get(self.at, f"`inv {self.at}`")
        sees = f"`{self.reads}`" if self.reads else "nothing any more" if self.then else "it gets through"
        typed = ", then ".join(f"`{command}`" for command in self.then) or "–"
        return f"| `{self.fault}` | {when} | {sees} | {self.kept} | {typed} | `{test}[{self.name}]` |"


class Tale:
    """One user with one box, from the first command to the last."""

    def __init__(self, laptop, clock: "Clock", story: Story, number: int):
        self.laptop, self.clock, self.story = laptop, clock, story
        self.before = set(run_ids(laptop))
        # What strikes AWS or the Hub only, and late, leaves the box as it was: those stories share one.
        self.box = "shared" if story.shared else story.name
        words = (f"box.name={self.box}", f"box.idle_minutes={IDLE}", f"seed={number}", f"train.steps={STEPS}", "train.save_steps=2")
        self.overrides = (*words, *story.settings)
        self.useful = 0.0  # the last moment, on the world's clock, at which somebody wanted the box

    def inv(self, words: str) -> None:
        """A command as it is typed, which succeeds."""
        if words.startswith("aws "):
            self.laptop.aws(*words.split()[1:])
            return
        verbs, _, overrides = words.removeprefix("inv ").partition(" -- ")
        self.laptop.inv(*verbs.split(), overrides=(*self.overrides, *overrides.split()))
        self.useful = self.clock.lived(world.forward(self.laptop.state, 0))

    def strike(self) -> None:
        fault, options = self.story.fault, self.story.options
        deed = getattr(HostFaults, f"do_{fault.replace('-', '_')}", None)
        befalls_a_box = deed is not None and "instance" in deed.__annotations__
        world.fault(self.laptop.state, fault, **options | ({"instance": self.instance} if befalls_a_box else {}))

    @property
    def instances(self) -> list[dict]:
        filters = [{"Name": "tag:fine-tune-slm:box", "Values": [self.box]}]
        groups = self.laptop.client("ec2").describe_instances(Filters=filters)["Reservations"]
        return sorted((entry for group in groups for entry in group["Instances"]), key=lambda entry: entry["LaunchTime"])

    @property
    def instance(self) -> str:
        return self.instances[-1]["InstanceId"]

    @property
    def root(self):
        return self.laptop.state / "boxes" / self.instance / "root"

    @property
    def run_id(self) -> str:
        (made,) = set(run_ids(self.laptop)) - self.before
        return made

    def has(self, name: str) -> bool:
        """Whether the run has this file in S3."""
        return any(name in files(self, run_id) for run_id in set(run_ids(self.laptop)) - self.before)

    def trains(self) -> bool:
        return any(any(str(self.root) in word for word in processes.words(process)) for process in trainers(self.laptop))

    def meets(self) -> subprocess.CompletedProcess:
        """The command that meets the fault, when it has ended."""
        training = self.story.at in (RUNNING, WATCHED)
        # Whoever is to be struck in the middle waits there: a busy machine must not decide what is shown.
        stand_in_trainer.register(self.laptop.state, step_seconds=0.1, **({"hold_at": 5} if training else {}))
        if self.story.at == WATCHED:
            self.inv("up deploy")
            return self.typed("train", self.in_the_middle)
        if self.story.at == RUNNING:
            self.inv("up deploy train --detach")
            self.in_the_middle()
            self.story.first(self)
            return self.typed("train", lambda: self.story.meanwhile(self))
        at = CHAIN.index(self.story.at)
        if at:
            self.inv(" ".join(CHAIN[:at]))
        self.strike()
        return self.typed(" ".join(CHAIN[at:]), lambda: self.story.meanwhile(self))

    def folders(self) -> list:
        """The story's runs on the volumes, wherever these are attached."""
        new = set(run_ids(self.laptop)) - self.before
        return [path for path in self.laptop.state.glob("volumes/*/data/runs/*") if path.name in new]

    def in_the_middle(self) -> None:
        (folder,) = wait_until(lambda: [path for path in self.folders() if (path / "checkpoints/step-000004/COMPLETE").exists()])
        self.strike()
        if self.story.ends:
            wait_until(lambda: not self.trains())
        else:
            (folder / "go").touch()

    def typed(self, words: str, meanwhile: Callable[[], None]) -> subprocess.CompletedProcess:
        going = self.going = self.laptop.popen(*words.split(), overrides=self.overrides)
        try:
            meanwhile()
            said, _ = going.communicate(timeout=900)
        finally:
            going.kill()
        self.useful = self.clock.lived(world.forward(self.laptop.state, 0))
        return subprocess.CompletedProcess(words, going.returncode, said, "")


def tell(tale: Tale) -> None:
    """The story from its beginning to its end, which is checked."""
    story = tale.story
    told = tale.meets()
    world.clear_faults(tale.laptop.state)
    words_are_true(told, story)
    published_is_sealed(tale)
    story.mended(tale)
    for command in story.then:
        tale.inv(command)
    for verb in ("train", "publish"):
        if not tale.has({"train": "manifest.json", "publish": "published.json"}[verb]):
            tale.inv(verb)
    ended_well(tale)


def words_are_true(told: subprocess.CompletedProcess, story: Story) -> None:
    """One sentence and the next command; or that it is done."""
    assert "Traceback" not in told.stdout, told.stdout
    if not story.then:
        assert told.returncode == 0, told.stdout
        assert story.reads in told.stdout, told.stdout
        return
    if told.returncode == -signal.SIGKILL:
        return  # nobody was left to say anything
    assert told.returncode != 0, f"nobody was told: {told.stdout}"
    interrupted = told.returncode == 130
    last = told.stdout if interrupted else "".join(told.stdout.rpartition("\nerror: ")[1:]).strip()
    sentence, _, hint = (last, "", last) if interrupted else last.partition("\n\nhint: ")
    assert story.reads in sentence, told.stdout
    again = "run the same command again" in hint and story.then[0] == f"inv {told.args}"
    wanted = story.hint or "`" + " ".join(story.then[0].split()[:2])
    assert wanted in hint or again, told.stdout


def files(tale: Tale, run_id: str) -> set[str]:
    start = f"fine-tune-slm/runs/{run_id}/"
    return {key.removeprefix(start) for key in tale.laptop.objects() if key.startswith(start)}


def ended_well(tale: Tale) -> None:
    """One run, sealed, as it says itself; its log whole; on the Hub what it made; nothing trains."""
    run_id = tale.run_id
    assert state(tale.laptop, run_id)["phase"] == "done"
    assert not tale.trains()
    log_is_whole(tale, run_id)
    published_is_sealed(tale)
    assert "published.json" in files(tale, run_id)


def log_is_whole(tale: Tale, run_id: str) -> None:
    """No line lost, none doubled: the chunks meet, and every attempt counts on from where it says that it begins."""
    chunks = sorted(name for name in files(tale, run_id) if name.startswith("log/"))
    joined = b""
    for name in chunks:
        assert int(name.removeprefix("log/")) == len(joined), chunks
        joined += tale.laptop.object(f"fine-tune-slm/runs/{run_id}/{name}")
    assert joined == tale.laptop.object(f"fine-tune-slm/runs/{run_id}/log.txt")
    here = tale.root / "mnt/training/runs" / run_id / "log.txt"
    assert not here.exists() or here.read_bytes() == joined
    expected = 1
    for line in joined.decode().splitlines():
        if found := re.fullmatch(r"going on after step (\d+)", line):
            assert int(found[1]) < expected
            expected = int(found[1]) + 1
        elif found := re.fullmatch(r"step (\d+) of \d+", line):
            assert int(found[1]) == expected, "a line is lost or doubled, or two trainers wrote it"
            expected += 1
    assert expected == STEPS + 1


def published_is_sealed(tale: Tale) -> None:
    """Whatever the Hub has of this run is what its manifest says; it has nothing of runs that are not sealed."""
    place = world.environment(tale.laptop.state)
    ask = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    ask.addheaders = [("Authorization", f"Bearer {place['HF_TOKEN']}")]
    for run_id in set(run_ids(tale.laptop)) - tale.before:
        if "published.json" not in files(tale, run_id):
            continue
        manifest = json.loads(tale.laptop.object(f"fine-tune-slm/runs/{run_id}/manifest.json"))
        for name, stated in manifest["files"].items():
            assert hashlib.sha256(tale.laptop.object(f"fine-tune-slm/runs/{run_id}/{name}")).hexdigest() == stated["sha256"], name
        record = json.loads(tale.laptop.object(f"fine-tune-slm/runs/{run_id}/published.json"))
        for name, wanted in record["files"].items():
            with ask.open(f"{place['HF_ENDPOINT']}/{record['repository']}/resolve/{record['revision']}/{name}") as answer:
                assert hashlib.sha256(answer.read()).hexdigest() == wanted, name
            stated = manifest["files"].get(f"adapter/{name}")
            assert stated is None or stated["sha256"] == wanted, name


def were_left_and_stopped(laptop, clock: "Clock", told: list[Tale]) -> None:
    """Every box has stopped by itself, and soon enough after the last moment at which somebody wanted it."""
    names = {entry["InstanceId"]: tale for tale in told for entry in tale.instances}  # the last of those that shared one

    def rows() -> list[dict]:
        return [row for row in world.costs(laptop.state)["rows"] if row["kind"] == "instance" and row["id"] in names]

    wait_until(lambda: all(row["until"] for row in rows()), ALLOWED)
    for row in rows():
        tale = names[row["id"]]
        paid = clock.lived(row["until"]) - tale.useful
        assert paid <= ALLOWED, f"{tale.story.name}: {paid:.0f} s were paid for and of no use"
    assert len(rows()) >= len({tale.box for tale in told})


class Clock:
    """A world's clock, which somebody moves now and then: nobody has lived through what was left out."""

    def __init__(self, state):
        self.state, self.jumps = state, []

    def forward(self, seconds: float) -> None:
        now = world.forward(self.state, seconds)
        self.jumps.append((now - seconds, seconds))

    def lived(self, moment: float) -> float:
        return moment - sum(seconds for at, seconds in self.jumps if at < moment)
