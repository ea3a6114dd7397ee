"""Whose, which run's and which day's the costs are: each is cut at midnights and where a run begins or ends, and shared by those at work.

Every part of a cost is somebody's or nobody's, so that the sums of each way of looking are the ledger's own.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from conf.problem import Problem
from remote.aws import s3
from remote.aws.s3 import Store
from remote.runs import runs
from remote.runs.progress import ENDED, complete_events

WAYS = ("person", "run", "day")
MOST = 1 << 26  # bytes of a run's events
NO_RUN, DISK, NOBODY = "no run: set up, or waiting", "disks", "nobody we know"


@dataclass(frozen=True)
class Use:
    """Something that costs, from one moment to another."""

    began: datetime
    seconds: float
    dollars: float | None  # None: nobody says
    instance: str = ""  # that runs did work on; empty: it is a disk
    owner: str | None = None  # None: what costs is of several
    run: str = ""  # that it was last about, if anything

    @property
    def ended(self) -> datetime:
        return self.began + timedelta(seconds=self.seconds)


@dataclass(frozen=True)
class Work:
    """When and where a run was at work, and whose it is."""

    run_id: str
    owner: str | None
    spans: tuple[tuple[datetime, datetime], ...]
    instances: frozenset[str]

    def did(self, use: Use) -> bool:
        return bool(use.instance) and (use.instance in self.instances or use.run == self.run_id)


@dataclass(frozen=True)
class Share:
    dollars: float | None
    day: str
    run: str
    person: str


@dataclass
class Sum:
    known: float = 0.0
    unknown: bool = field(default=False)

    @property
    def dollars(self) -> float | None:
        return None if self.unknown else self.known


def check(way: str) -> str:
    if way not in WAYS:
        raise Problem(f"costs are not told by `{way}`", f"say one of {', '.join(WAYS)}: `inv costs --by person`", reason="refused")
    return way


def sums(uses: Iterable[Use], works: list[Work], way: str) -> dict[str, Sum]:
    """USD by person, run or day: days in their order, else the dearest first."""
    key: Callable[[Share], str] = {"person": lambda one: one.person, "run": lambda one: one.run, "day": lambda one: one.day}[way]
    totals: dict[str, Sum] = {}
    for one in (share for use in uses for share in shares(use, works)):
        total = totals.setdefault(key(one), Sum())
        total.known += one.dollars or 0.0
        total.unknown |= one.dollars is None
    return dict(sorted(totals.items(), key=(lambda item: item[0]) if way == "day" else (lambda item: (-item[1].known, item[0]))))


def shares(use: Use, works: list[Work]) -> Iterator[Share]:
    """What it cost, cut where a day, or a run on it, begins or ends."""
    mine = [(work, *span) for work in works if work.did(use) for span in work.spans]
    owners = {work.owner for work, *_ in mine}
    owner = use.owner or (owners.pop() if len(owners) == 1 else None)
    inner = {moment for _, *span in mine for moment in span if use.began < moment < use.ended}
    moments = sorted({use.began, *_midnights(use), *inner, use.ended})
    for begin, end in pairwise(moments) if use.seconds > 0 else [(use.began, use.ended)]:
        at_work = {work.run_id: work for work, start, stop in mine if start <= begin and end <= stop and start < stop}
        part = (end - begin).total_seconds() / use.seconds if use.seconds > 0 else 1.0
        dollars = None if use.dollars is None else use.dollars * part / max(len(at_work), 1)
        day = begin.astimezone(UTC).date().isoformat()
        for run_id, work in at_work.items():
            yield Share(dollars, day, run_id, name(use.owner or work.owner))
        if not at_work:
            yield Share(dollars, day, NO_RUN if use.instance else DISK, name(owner))


def _midnights(use: Use) -> Iterator[datetime]:
    moment = use.began.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    while moment < use.ended:
        yield moment
        moment += timedelta(days=1)


def name(owner: str | None) -> str:
    """Who it is, as the end of an ARN says it."""
    return owner.rpartition(":")[2] if owner else NOBODY


def works(store: Store) -> list[Work]:
    """Every run that has been at work, as its own events tell it; what cannot be read is left out, and said."""
    listed = [run_id for run_id, files in runs.listing(store).items() if {"config.yaml", "events.jsonl"} <= files]
    with ThreadPoolExecutor(8) as pool:
        return [work for work in pool.map(lambda run_id: _work(store, run_id), listed) if work and work.spans]


def _work(store: Store, run_id: str) -> Work | None:
    with runs.skip_unreadable(f"run `{run_id}`"):
        details = runs.about(store, run_id)
        if details is None:
            return None
        holder, current = store.json(f"runs/{run_id}/box.json") or {}, runs.state(store, run_id)
        spans = attempts(complete_events(store.get(f"runs/{run_id}/events.jsonl", MOST) or b""))
        if spans and current.phase in ENDED and current.since:
            spans[-1] = (spans[-1][0], max(spans[-1][1], s3.parse_time(current.since)))
        instances = frozenset(s3.check_text(holder[key]) for key in ("instance", "host") if holder.get(key))
        return Work(run_id, details.owner, tuple(spans), instances)
    return None


def attempts(events: list[dict]) -> list[tuple[datetime, datetime]]:
    """From when to when each attempt of a run was at work, by its events."""
    spans: list[tuple[datetime, datetime]] = []
    for event in events:
        try:
            moment = s3.parse_time(event["time"])
        except (Problem, *runs.BROKEN):  # it may be anybody's
            continue
        if not spans or (event["event"], event.get("phase")) == ("phase", "running"):
            spans.append((moment, moment))
        spans[-1] = (spans[-1][0], max(spans[-1][1], moment))
    return spans
