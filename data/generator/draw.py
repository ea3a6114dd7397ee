"""Chance that is the same on every machine and every Python: SHA-256 in counter mode."""

from hashlib import sha256


class Draw:
    """A stream of choices that depends on `key` alone."""

    def __init__(self, *key: object):
        self._key = "/".join(map(str, key))
        self._count = 0

    def below(self, limit: int) -> int:
        """A whole number from 0 to `limit` - 1."""
        self._count += 1
        digest = sha256(f"{self._key}/{self._count}".encode()).digest()
        return int.from_bytes(digest[:8], "big") % limit

    def between(self, low: int, high: int, step: int = 1) -> int:
        """One of low, low + step, ... up to `high`."""
        return low + step * self.below((high - low) // step + 1)

    def chance(self, share: float) -> bool:
        """True in about `share` of the calls."""
        return self.below(1_000_000) < share * 1_000_000

    def one(self, items: list):
        """One of `items`."""
        return items[self.below(len(items))]

    def some(self, items: list, count: int) -> list:
        """`count` different items (all, if there are fewer) in random order."""
        remaining = list(items)
        return [remaining.pop(self.below(len(remaining))) for _ in range(min(count, len(remaining)))]

    def weighted(self, shares: dict):
        """A key of `shares`, by its whole-numbered weight."""
        mark = self.below(sum(shares.values()))
        for key, share in shares.items():
            mark -= share
            if mark < 0:
                return key
        raise AssertionError("the weights do not add up")
