"""What the reading verbs print: S3 and tags are all they need, so they work with the box off."""

import csv
import json
import os
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path

from rich.table import Table

from conf import commands, schema
from conf.fleet_job import HOLDER
from conf.process.screen import screen
from conf.text import visible
from remote.aws.s3 import Store
from remote.aws.session import Aws
from remote.runs import download, evaluations, fleet, follow, progress, runs


def logs(aws: Aws, run: schema.Run, run_id: str | None, to_the_end: bool, lines: int | None) -> None:
    """Print a run's log from its first byte, or its last `lines` lines; with `to_the_end`, until the run ends."""
    store = Store(aws)
    run_id = runs.find_newest(aws, run, run_id)
    log = _Log(0 if lines is None else follow.tail(store, run_id, lines))
    if to_the_end:
        on_fleet = runs.holder(store, run_id) == HOLDER
        check = fleet.Watcher(aws, run.cloud, run_id).check if on_fleet else lambda: follow.check_box(aws, run_id, run.box.name)
        follow.watch(aws, run_id, check, "the run goes on", log.follow)
    else:
        log.show(store, runs.state(store, run_id))


class _Log:
    """A run's log, of which what is new is printed."""

    def __init__(self, offset: int):
        self.reader = follow.LogReader(offset)
        self.warning = ""

    def show(self, store: Store, current: runs.State) -> None:
        """Print what is new; the state was asked for before, so that nothing of a run that has ended is left out."""
        for text in self.reader.new(store, current.run_id):
            sys.stdout.buffer.write(visible.visible(text).encode("utf-8", "surrogateescape"))
        sys.stdout.flush()

    def follow(self, store: Store, current: runs.State) -> None:
        self.show(store, current)
        warning = progress.silence_warning(current)
        if warning and warning != self.warning:
            screen.note(f"  {warning.removeprefix('; ')}")
        self.warning = warning


def report(aws: Aws, run: schema.Run, run_id: str | None, root: Path, summary: Callable, advice: Callable[[Path, dict], list[str]]) -> None:
    """Print scores, what is wrong, Hub URL, report page, time and price of a finished run, and open the page where there is a screen."""
    store = Store(aws)
    downloaded = download.download(aws, run, run_id, root / run.runs)
    run_id, folder = downloaded.run_id, downloaded.folder
    with runs.reading_record(run_id):
        manifest = _read(folder / "manifest.json")
        head, lines = _model_and_rows(manifest), _times(manifest)
        metrics = _read(folder / "metrics.json")
        table, coached = evaluations.scores_table(summary(metrics)), [visible.visible(line) for line in advice(folder, metrics)]
    screen.print("\n".join([f"run        {run_id}", *head]))
    screen.print(table)
    for line in coached:
        screen.print(line)
    page = folder / "report.html"
    for name in sorted(name for name in runs.listing(store)[run_id] if name.startswith("evaluations/") and name.endswith(".json")):
        with runs.skip_unreadable(f"runs/{run_id}/{name}"):
            screen.print(f"evaluated  {_evaluation(store.json(f'runs/{run_id}/{name}') or {}, summary)}")
    with runs.skip_unreadable(f"runs/{run_id}/published.json"):
        published = store.json(f"runs/{run_id}/published.json")
        screen.print(f"published  {published.get('url') if published else 'not yet; `inv publish`'}")
    screen.print(f"report     {page.relative_to(Path.cwd()) if page.is_relative_to(Path.cwd()) else page}")
    for line in lines:
        screen.print(line)
    screen.print(f"next       {_next(aws, store, run, run_id)}")
    if sys.stdout.isatty() and (sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        webbrowser.open(page.as_uri())


def spreadsheet(aws: Aws, run: schema.Run, run_id: str | None, root: Path, table: Callable[[dict], list[dict]]) -> None:
    """Print every figure of a finished run as CSV."""
    folder = download.download(aws, run, run_id, root / run.runs).folder
    with runs.reading_record(folder.name):
        rows = table(_read(folder / "metrics.json"))
    writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: visible.cell(value) for name, value in row.items()} for row in rows)


def compare(
    aws: Aws, run: schema.Run, first: str, second: str, root: Path, difference: Callable[[Path, Path], tuple[list, list, str]]
) -> None:
    """Print in which settings two finished runs differ, and how their tuned models scored."""
    folders = [download.download(aws, run, run_id, root / run.runs).folder for run_id in (first, second)]
    with runs.reading_record(f"{first}` or `{second}"):
        settings, figures, note = difference(*folders)
    names = [f"{letter}: {folder.name}" for letter, folder in zip("AB", folders, strict=True)]
    screen.print("\n".join(names))
    screen.print(_table(("setting", "A", "B"), settings) if settings else "the settings are the same")
    screen.print(_table(("score of the tuned model", "A", "B", "B - A", ""), figures))
    screen.print(note)


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(visible.visible, row))
    return table


def _read(path: Path) -> dict:
    return visible.values(json.loads(path.read_text(encoding="utf-8")))


def _evaluation(scores: dict, summary: Callable) -> str:
    what, base, tuned, verdict = summary(scores)[0]
    return f"{scores['split']}, {scores['rows']} rows: {what} {base} -> {tuned} {verdict}".rstrip()


def _model_and_rows(manifest: dict) -> list[str]:
    """What was trained on what."""
    rows = manifest["data"]
    seen, scored = (
        rows.get(name, "an unknown number") for name in ("train_rows_seen", "validation_rows_scored")
    )  # early runs have neither
    held_out = f"{scored} of {rows['validation_rows']} held-out rows scored"
    return [
        f"model      {manifest['model']['id']}",
        f"rows       {rows['train_rows']} to train on, {seen} seen; {held_out}",
    ]


def _times(manifest: dict) -> list[str]:
    """What the run took and what that costs, by its own record."""
    spent, price = manifest["seconds"], manifest["price"]
    parts = "  ".join(f"{part} {spent.get(part, 0):.0f} s" for part in ("load", "train", "evaluate"))
    again = f", in {price['attempts']} attempts, with what an interrupted one had not kept" if price.get("attempts", 1) > 1 else ""
    lines = [f"time       {price['seconds']:.0f} s of work: {parts}{again}"]
    kind = manifest["provenance"].get("instance_type")
    if price["total"] is None:
        return [*lines, f"price      unknown: no price is known for {kind}"]
    return [
        *lines,
        f"price      ${price['total']:.2f} for this time on a real {kind} at ${price['per_hour']:.4f} an hour ({price['source']})",
    ]


def _next(aws: Aws, store: Store, run: schema.Run, run_id: str) -> str:
    """What to type next: on AWS with the very words that the caller's run was made with; where it had none, with rows of one's own."""
    chain, saved = "inv up deploy train publish down --", runs.readable_settings(store, run_id)
    typed = saved.run.provenance.typed if saved and saved.run.provenance.owner == aws.owner else []
    words = commands.again(typed, "cloud=aws")
    own = "on your own rows: `inv train -- experiment=own data.train=my.jsonl data.validation=held_out.jsonl 'data.fields=[city,people]'`"
    if any(commands.is_about(word, "data.train") for word in typed):
        return f"on AWS: `{chain} {words}`" if run.cloud.loopback else f'`inv predict "a text" --run {run_id}`'
    on_aws = f"{words if typed else 'cloud=aws experiment=medical_ie_8b'}"
    return f"on AWS: `{chain} {on_aws}`\n           {own}" if run.cloud.loopback else own
