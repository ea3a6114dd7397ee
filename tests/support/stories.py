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
ALLOWED = IDLE * 60 + 900  # seconds that are paid for after the last useful one; two minutes where nothing else runs


@dataclass(frozen=True)
class Story:
    fault: str  # as twin/FAULTS.md names it
    at: str  # the verb of the chain that meets it, or RUNNING or WATCHED
    reads: str = ""  # what stands in the last words of the command that meets it; empty: it gets through
    retained: str = "all"
    then: tuple[str, ...] = ()  # what is typed next; the rest of the chain follows
    options: dict = field(default_factory=dict)
    hint: str = ""  # what the hint holds; empty: the first word of what is typed next
    settings: tuple[str, ...] = ()
    ends: bool = False  # it ends the trainer
    first: Callable[["StoryRun"], None] = lambda story_run: None  # what happens before the command that meets it is typed
    meanwhile: Callable[["StoryRun"], None] = lambda story_run: None  # while that command waits
    repair: Callable[["StoryRun"], None] = lambda story_run: None  # what somebody else mends before the next one

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
        return f"| `{self.fault}` | {when} | {sees} | {self.retained} | {typed} | `{test}[{self.name}]` |"


class StoryRun:
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
        action = getattr(HostFaults, f"do_{fault.replace('-', '_')}", None)
        befalls_a_box = action is not None and "instance" in action.__annotations__
        world.fault(self.laptop.state, fault, **options | ({"instance": self.instance} if befalls_a_box else {}))

    @property
    def instances(self) -> list[dict]:
        filters = [{"Name": "tag:fine-tune-slm:box", "Values": [self.box]}]
        groups = self.laptop.client("ec2").describe_instances(Filters=filters)["Reservations"]
        return sorted((instance for group in groups for instance in group["Instances"]), key=lambda instance: instance["LaunchTime"])

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

    def meet_fault(self) -> subprocess.CompletedProcess:
        """The command that meets the fault, when it has ended."""
        training = self.story.at in (RUNNING, WATCHED)
        # A command that is struck in the middle waits there: a busy machine must not decide what is shown.
        stand_in_trainer.register(self.laptop.state, step_seconds=0.1, **({"hold_at": 5} if training else {}))
        if self.story.at == WATCHED:
            self.inv("up deploy")
            return self.run_command("train", self.strike_in_the_middle)
        if self.story.at == RUNNING:
            self.inv("up deploy train --detach")
            self.strike_in_the_middle()
            self.story.first(self)
            return self.run_command("train", lambda: self.story.meanwhile(self))
        at = CHAIN.index(self.story.at)
        if at:
            self.inv(" ".join(CHAIN[:at]))
        self.strike()
        return self.run_command(" ".join(CHAIN[at:]), lambda: self.story.meanwhile(self))

    def folders(self) -> list:
        """The story's runs on the volumes, wherever these are attached."""
        new = set(run_ids(self.laptop)) - self.before
        return [path for path in self.laptop.state.glob("volumes/*/data/runs/*") if path.name in new]

    def strike_in_the_middle(self) -> None:
        (folder,) = wait_until(lambda: [path for path in self.folders() if (path / "checkpoints/step-000004/COMPLETE").exists()])
        self.strike()
        if self.story.ends:
            wait_until(lambda: not self.trains())
        else:
            (folder / "go").touch()

    def run_command(self, words: str, meanwhile: Callable[[], None]) -> subprocess.CompletedProcess:
        going = self.going = self.laptop.popen(*words.split(), overrides=self.overrides)
        try:
            meanwhile()
            printed, _ = going.communicate(timeout=900)
        finally:
            going.kill()
        self.useful = self.clock.lived(world.forward(self.laptop.state, 0))
        return subprocess.CompletedProcess(words, going.returncode, printed, "")


def run_story(laptop, before: list[StoryRun], story: Story, seed: int) -> None:
    """The story from its beginning to its end, which is checked; it is then one of those told before."""
    story_run = StoryRun(laptop, laptop.clock, story, seed)
    done = story_run.meet_fault()
    world.clear_faults(story_run.laptop.state)
    check_last_words(done, story)
    check_published(story_run)
    story.repair(story_run)
    for command in story.then:
        story_run.inv(command)
    for verb in ("train", "publish"):
        if not story_run.has({"train": "manifest.json", "publish": "published.json"}[verb]):
            story_run.inv(verb)
    check_end(story_run)
    before.append(story_run)


def check_last_words(done: subprocess.CompletedProcess, story: Story) -> None:
    """One sentence and the next command; or that it is done."""
    assert "Traceback" not in done.stdout, done.stdout
    if not story.then:
        assert done.returncode == 0, done.stdout
        assert story.reads in done.stdout, done.stdout
        return
    if done.returncode == -signal.SIGKILL:
        return  # nobody was left to say anything
    assert done.returncode != 0, f"nobody was told: {done.stdout}"
    interrupted = done.returncode == 130
    last = done.stdout if interrupted else "".join(done.stdout.rpartition("\nerror: ")[1:]).strip()
    sentence, _, hint = (last, "", last) if interrupted else last.partition("\n\nhint: ")
    assert story.reads in sentence.replace("is stopping", "is stopped"), done.stdout  # a busy machine sees a box on its way
    again = "run the same command again" in hint and story.then[0] == f"inv {done.args}"
    wanted = story.hint or "`" + " ".join(story.then[0].split()[:2])
    assert wanted in hint or again, done.stdout


def files(story_run: StoryRun, run_id: str) -> set[str]:
    start = f"fine-tune-slm/runs/{run_id}/"
    return {key.removeprefix(start) for key in story_run.laptop.objects() if key.startswith(start)}


def check_end(story_run: StoryRun) -> None:
    """One run, sealed, as it says itself; its log whole; on the Hub what it made; nothing trains."""
    run_id = story_run.run_id
    assert state(story_run.laptop, run_id)["phase"] == "done"
    assert not story_run.trains()
    check_log(story_run, run_id)
    check_published(story_run)
    assert "published.json" in files(story_run, run_id)


def check_log(story_run: StoryRun, run_id: str) -> None:
    """No line lost, none doubled: the chunks meet, and every attempt counts on from where it says that it begins."""
    chunks = sorted(name for name in files(story_run, run_id) if name.startswith("log/"))
    joined = b""
    for name in chunks:
        assert int(name.removeprefix("log/")) == len(joined), chunks
        joined += story_run.laptop.object(f"fine-tune-slm/runs/{run_id}/{name}")
    assert joined == story_run.laptop.object(f"fine-tune-slm/runs/{run_id}/log.txt")
    here = story_run.root / "mnt/training/runs" / run_id / "log.txt"
    assert not here.exists() or here.read_bytes() == joined
    expected, went_on = 1, 0
    for line in joined.decode().splitlines():
        if match := re.fullmatch(r"going on after step (\d+)", line):
            went_on = int(match[1])
            assert went_on < expected
            expected = went_on + 1
        elif match := re.fullmatch(r"step (\d+) of \d+", line):
            assert int(match[1]) == expected, "a line is lost or doubled, or two trainers wrote it"
            expected += 1
    assert expected == STEPS + 1
    if story_run.story.ends and "checkpoint on the volume" in story_run.story.retained:
        assert went_on >= 4, "the checkpoint that was there when the fault struck was not gone on from"


def check_published(story_run: StoryRun) -> None:
    """Whatever the Hub has of this run is what its manifest says; it has nothing of runs that are not sealed."""
    place = world.environment(story_run.laptop.state)
    ask = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    ask.addheaders = [("Authorization", f"Bearer {place['HF_TOKEN']}")]
    for run_id in set(run_ids(story_run.laptop)) - story_run.before:
        if "published.json" not in files(story_run, run_id):
            continue
        manifest = json.loads(story_run.laptop.object(f"fine-tune-slm/runs/{run_id}/manifest.json"))
        for name, stated in manifest["files"].items():
            assert hashlib.sha256(story_run.laptop.object(f"fine-tune-slm/runs/{run_id}/{name}")).hexdigest() == stated["sha256"], name
        record = json.loads(story_run.laptop.object(f"fine-tune-slm/runs/{run_id}/published.json"))
        for name, wanted in record["files"].items():
            with ask.open(f"{place['HF_ENDPOINT']}/{record['repository']}/resolve/{record['revision']}/{name}") as answer:
                assert hashlib.sha256(answer.read()).hexdigest() == wanted, name
            stated = manifest["files"].get(f"adapter/{name}")
            assert stated is None or stated["sha256"] == wanted, name


def boxes_have_stopped(laptop, clock: "Clock", story_runs: list[StoryRun]) -> None:
    """Every box has stopped by itself, and soon enough after the last moment at which somebody wanted it."""
    names = {
        instance["InstanceId"]: story_run for story_run in story_runs for instance in story_run.instances
    }  # the last of those that shared one

    def rows() -> list[dict]:
        return [row for row in world.costs(laptop.state)["rows"] if row["kind"] == "instance" and row["id"] in names]

    wait_until(lambda: all(row["until"] for row in rows()), ALLOWED)
    for row in rows():
        story_run = names[row["id"]]
        paid = clock.lived(row["until"]) - story_run.useful
        assert paid <= ALLOWED, f"{story_run.story.name}: {paid:.0f} s were paid for and of no use"
    assert len(rows()) >= len({story_run.box for story_run in story_runs})


class Clock:
    """A world's clock, which somebody moves now and then: nobody has lived through what was left out."""

    def __init__(self, state):
        self.state, self.jumps = state, []

    def forward(self, seconds: float) -> None:
        now = world.forward(self.state, seconds)
        self.jumps.append((now - seconds, seconds))

    def lived(self, moment: float) -> float:
        return moment - sum(seconds for at, seconds in self.jumps if at < moment)
