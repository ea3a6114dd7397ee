"""The meter's ledger and the faults as text, and a fault's options from text."""

import json
from datetime import UTC, datetime

KINDS = {"instance": "instances", "volume": "disks", "snapshot": "snapshots", "objects": "S3"}


def bill(costs: dict) -> str:
    """One line a stretch of time, then the sums."""
    lines = [f"{'since':20} {'what':30} {'size':>9} {'time':>11} {'USD':>10}"]
    for row in costs["rows"]:
        lines.append(line(row))
    lines.append("")
    for kind, name in KINDS.items():
        lines.append(f"{name:62} {costs['sums'][kind]:>19.4f}")
    lines.append(f"{'  of disks: while no instance ran':62} {costs['sums']['disk_while_stopped']:>19.4f}")
    lines.append(f"{'total':62} {costs['total']:>19.4f}")
    lines += [f"the price of {what} is unknown: it is not in the total" for what in costs["unknown"]]
    return "\n".join(lines)


def line(row: dict) -> str:
    what = f"{row['id']} {row['what']}"
    size = "" if row["kind"] == "instance" else f"{row['gigabytes']:.3g} GB"
    amount = "unknown" if row["usd"] is None else f"{row['usd']:.4f}"
    return f"{moment(row['since']):20} {what:30} {size:>9} {duration(row['seconds']):>11} {amount:>10}"


def duration(seconds: float) -> str:
    return f"{seconds // 3600:.0f}:{seconds % 3600 // 60:02.0f}:{seconds % 60:02.0f}"


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def notices(mails: list[dict], posts: list[dict]) -> str:
    """Each mail, then each post, as it came."""
    blocks = [f"{one['time']}  mail to {one['to']}: {one['subject']}\n{one['text']}" for one in mails]
    blocks += [f"{one['time']}  POST {one['path']}\n{json.dumps(one['body'], indent=1, ensure_ascii=False)}" for one in posts]
    return "\n\n".join(blocks) or "nothing was mailed or posted yet"


def fault(armed: dict) -> str:
    return f"{armed['name']}: {armed['about']}"


def faults(listing: dict) -> str:
    """Every fault in a line; those that were armed with how often they have struck."""
    lines = [f"{name:24} {about}" for name, about in listing["known"].items()]
    lines += [f"armed: {one['name']}, struck {one['struck']} of {one['seen']} calls" for one in listing["armed"]]
    return "\n".join(lines)


def hours(text: str) -> float:
    """As seconds; what is no number is none, and the world refuses it."""
    value = number(text)
    return value * 3600 if not isinstance(value, str) else -1


def options(named: dict, words: list[str]) -> dict:
    """The options of a fault that were given, numbers as numbers."""
    values = {name: value for name, value in named.items() if value is not None} | dict(word.partition("=")[::2] for word in words)
    return {name: number(value) for name, value in values.items()}


def number(value: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
