"""What others have written, made fit to be shown: a terminal obeys control sequences, a spreadsheet computes cells.

Nothing but line ends and tabs is left of what moves a cursor, sets a title, writes over a line, or turns the order of letters around.
"""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

# C0 but tab and line feed (a carriage return only before one), DEL, C1 (also as a byte that is no UTF-8), and Unicode's own turns.
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\udc80-\udc9f]|\r(?!\n)")
FORMULA = ("=", "+", "-", "@", "\t")  # https://owasp.org/www-community/attacks/CSV_Injection


def visible(text: str) -> str:
    """The text with its control characters as Python would write them: `\\x1b` for an escape."""
    return CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def values(read: Any) -> Any:
    """The same of every text in what was read from JSON."""
    if isinstance(read, str):
        return visible(read)
    if isinstance(read, dict):
        return {visible(key): values(item) for key, item in read.items()}
    return [values(item) for item in read] if isinstance(read, list) else read


def cell(value: object) -> object:
    """A value for a CSV file: text that a spreadsheet would compute gets an apostrophe before it."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def console(**options) -> "Console":
    """A rich console that takes texts as they are: to rich `[x]` is markup, and `[/x]` without an `[x]` an error."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, **options)
