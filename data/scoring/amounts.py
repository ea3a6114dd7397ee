"""What a text that is an amount comes to: 1.234,50 €, 1,234.50 EUR, CHF 1'234.50 and 1 234,50 are one number, the first two one amount.

A comma or a point before groups of three digits sets them apart, and so does a space or an apostrophe; any other is a decimal point.
What is neither, such as 1.23.4, is no amount; and a unit that is no currency makes another thing of a number.
"""

import re
import unicodedata
from dataclasses import dataclass

SIGNS = {"€": "eur", "$": "usd", "us$": "usd", "£": "gbp", "¥": "jpy", "₹": "inr", "₽": "rub", "₺": "try", "₩": "krw", "zł": "pln"}
SIGNS |= {"kč": "czk", "₴": "uah", "฿": "thb", "₪": "ils", "₫": "vnd", "₦": "ngn", "₱": "php"}
CODES = re.compile(  # of ISO 4217
    "aed|ars|aud|bgn|brl|cad|chf|clp|cny|cop|czk|dkk|egp|eur|gbp|hkd|huf|idr|ils|inr|isk|jpy|kes|krw|mad|mxn|myr|ngn|nok|nzd|php|pkr|pln"
    "|ron|rub|sar|sek|sgd|thb|try|twd|uah|usd|vnd|zar"
)
NAMES = {"kr", "kr.", "fr.", "sfr.", "ft", "lei", "rs", "rs.", "rp", "r$"}  # of several countries, or under another sign: as they stand
NUMBER = re.compile(r"[-+]?\d[\d.,' ]*")
GROUPS = r"[1-9]\d{0,2}(?P<apart>[.,' ])\d{3}(?:(?P=apart)\d{3})*"  # set apart by one sign
FORM = re.compile(rf"(?P<sign>[-+]?)(?P<whole>{GROUPS}|0|[1-9]\d*)(?:(?P<point>[.,])(?P<decimals>\d+))?")


@dataclass(frozen=True)
class Amount:
    number: str  # as JSON writes it
    currency: str  # "" where none is said


def amount(text: str) -> Amount | None:
    """The amount that the whole text says, or None."""
    plain = " ".join(unicodedata.normalize("NFKC", text).replace("\u2212", "-").replace("\u2019", "'").casefold().split())
    match = NUMBER.search(plain)
    if not match:
        return None
    around = [plain[: match.start()].strip(), plain[match.end() :].strip()]
    currencies = [word for word in around if word]
    if len(currencies) > 1 or any(not _is_currency(word) for word in currencies):
        return None
    number = _number(match[0].strip())
    return Amount(number, SIGNS.get(currencies[0], currencies[0]) if currencies else "") if number else None


def _is_currency(word: str) -> bool:
    return word in SIGNS or CODES.fullmatch(word) is not None or word in NAMES or (len(word) == 1 and unicodedata.category(word) == "Sc")


def _number(text: str) -> str | None:
    match = FORM.fullmatch(text)
    if not match or (match["point"] and match["point"] == match["apart"]):  # 1.234.5
        return None
    decimals = f".{match['decimals']}" if match["decimals"] else ""
    return ("-" if match["sign"] == "-" else "") + re.sub(r"\D", "", match["whole"]) + decimals
