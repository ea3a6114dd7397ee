"""What the reading verbs print: S3 and tags are all they need, so they work with the box off."""

import json
import sys
import time
import webbrowser
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from conf import schema
from remote import audit, follow, runs
from remote.aws import Aws
from remote.store import Store


def logs(aws: Aws, run_id: str | None, to_the_end: bool, lines: int | None) -> None:
    """Print a run's log from its first byte, or its last `lines` lines; with `to_the_end`, until the run ends."""
    store = Store(aws)
    run_id = runs.newest(store, run_id)
    offset = 0 if lines is None else follow.tail(store, run_id, lines)
    while True:
        # Asked before the log is read: what was written until the end is then surely read.
        ended = runs.state(store, run_id).phase in follow.ENDED
        for chunk in follow.log(store, run_id, offset):
            sys.stdout.buffer.write(chunk)
            offset += len(chunk)
        sys.stdout.flush()
        if ended or not to_the_end:
            return
        time.sleep(follow.PAUSE)


def report(aws: Aws, run: schema.Run, run_id: str | None, root: Path, chain: list[str], summary: Callable) -> None:
    """Print scores, Hub URL, report page, time and price of a finished run."""
    store = Store(aws)
    found = runs.download(aws, run_id, run.kind.value, root / run.runs)
    run_id, folder = found["run_id"], found["folder"]
    manifest = json.loads((folder / "manifest.json").read_text())
    Console(width=120, highlight=False).print(scores(summary(json.loads((folder / "metrics.json").read_text())), run_id))
    published = store.get(f"runs/{run_id}/published.json")
    page = folder / "report.html"
    print(f"published  {json.loads(published)['url'] if published else 'not yet; `inv publish`'}")
    print(f"report     {page}")
    for line in _times(audit.latest(store, chain), manifest):
        print(line)
    print(f"next       {_next(run)}")
    if sys.stdout.isatty() and sys.platform == "darwin":
        webbrowser.open(page.as_uri())


def scores(rows: list[tuple[str, ...]], title: str) -> Table:
    table = Table("score", "base", "tuned", "", title=title, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    return table


def _times(verbs: dict[str, dict], manifest: dict) -> list[str]:
    spent = {verb: line["seconds"] for verb, line in verbs.items()}
    total = sum(spent.values())
    work = sum(manifest["seconds"].get(part, 0) for part in ("load", "train", "evaluate"))
    each = "  ".join(f"{verb} {seconds:.0f} s" for verb, seconds in spent.items())
    parts = "  ".join(f"{part} {manifest['seconds'].get(part, 0):.0f} s" for part in ("load", "train", "evaluate"))
    lines = [f"time       {total:.0f} s: {each}", f"           of which {parts}; everything else {total - work:.0f} s"]
    provenance = manifest["provenance"]
    rate = provenance.get("price_per_hour")
    if rate is None:
        return [*lines, f"price      unknown: nobody told the price of {provenance.get('instance_type')}"]
    cost = f"${total / 3600 * rate:.2f} for this time on a real {provenance['instance_type']}"
    return [*lines, f"price      {cost} at ${rate:.4f} an hour ({provenance['price_source']})"]


def _next(run: schema.Run) -> str:
    own = "on your own rows: `inv up deploy train publish down -- data.train=my.jsonl data.validation=held_out.jsonl`"
    if run.cloud.loopback:
        return f"on AWS: `inv up deploy train publish down -- cloud=aws experiment=medical_ie_8b`\n           {own}"
    return own
