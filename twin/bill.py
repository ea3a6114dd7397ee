"""The meter's ledger as text."""

from datetime import UTC, datetime

KINDS = {"instance": "instances", "volume": "disks", "snapshot": "snapshots", "objects": "S3"}


def text(costs: dict) -> str:
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
