"""The page on which a text is typed and the base and the tuned model answer it beside each other."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from trainer import files
from trainer.record.report import TEMPLATES

ROWS = 20  # held-out rows that the page offers


def render(folder: Path, model: str, instruction: str, names: tuple[str, ...], nonce: str) -> str:
    """The page of a finished run; `names` are the models that answer, `nonce` stands in the policy with which it is sent."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    rows = held_out(folder, instruction)
    return environment.get_template("try.html.j2").render(run_id=folder.name, model=model, names=names, rows=rows, nonce=nonce)


def held_out(folder: Path, instruction: str) -> list[dict[str, str]]:
    """Held-out rows as one would type them, and their expected answers. A run may be somebody else's: what has another form is left out."""
    rows = []
    for row in files.read_json_lines(folder / "predictions.jsonl"):
        text, expected = _last_turn(row), row.get("expected") if isinstance(row, dict) else None
        if isinstance(text, str) and isinstance(expected, str):
            rows.append({"text": _without_instruction(text, instruction), "expected": expected})
    return rows[:ROWS]


def _last_turn(row: object) -> object:
    """What the last turn of the row's prompt says; None where it has no such thing."""
    prompt = row.get("prompt") if isinstance(row, dict) else None
    last = prompt[-1] if isinstance(prompt, list) and prompt else {"content": prompt}
    return last.get("content") if isinstance(last, dict) else None


def _without_instruction(text: str, instruction: str) -> str:
    """A prompt is an instruction and a blank line before the text; rows may have several wordings of it, of which a run knows one."""
    if not instruction or text.startswith(instruction):
        return text.removeprefix(instruction).strip()
    return (text.partition("\n\n")[2] or text).strip()


def policy(nonce: str) -> str:
    """What a browser lets the page do: ask this server, and nothing else."""
    inside = "; ".join(f"{what} 'nonce-{nonce}'" for what in ("script-src", "style-src"))
    return f"default-src 'none'; connect-src 'self'; {inside}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
