"""Which rows make which step: decided by the seed and the step's number alone, so nothing has to be remembered."""

import math
import os
import random
from dataclasses import dataclass
from functools import lru_cache

from conf.schema import Train
from trainer.rows.prompt import Example


@dataclass(frozen=True)
class Portion:
    """Rows of one source, and how often an epoch visits each: 2 is twice, 0.5 is every other row, drawn anew each epoch."""

    examples: list[Example]
    weight: float = 1.0


class Order:
    """The rows in the order in which they are trained on. Steps run on across the epochs."""

    def __init__(self, portions: list[Portion], seed: int, batch_size: int):
        self.examples = [example for portion in portions for example in portion.examples]
        self.longest = max(map(len, self.examples))
        self.portions = portions
        self.seed = seed
        self.batch_size = batch_size
        self.length = len(self._visits(random.Random(0)))  # rows in one epoch
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def step(self, number: int) -> list[Example]:
        """The rows of a step; the first one is step 1."""
        places = range((number - 1) * self.batch_size, number * self.batch_size)
        return [self.examples[self._epoch(place // self.length)[place % self.length]] for place in places]

    def epoch(self, number: int) -> float:
        """How many epochs are done after this step."""
        return round(number * self.batch_size / self.length, 4)

    def steps(self, train: Train) -> int:
        """How many steps these settings ask for."""
        return train.steps or math.ceil(train.epochs * self.length / train.batch_size)

    def seen(self, steps: int) -> int:
        """How many different rows the first so many steps train on."""
        return len({place for epoch in range(-(-steps * self.batch_size // self.length)) for place in self._part(epoch, steps)})

    def _part(self, epoch: int, steps: int) -> list[int]:
        """The rows of an epoch that the first so many steps reach."""
        return self._epoch(epoch)[: steps * self.batch_size - epoch * self.length]

    def _shuffled(self, epoch: int) -> list[int]:
        draw = random.Random(f"{self.seed} {epoch}")
        visits = self._visits(draw)
        draw.shuffle(visits)
        return visits

    def _visits(self, draw: random.Random) -> list[int]:
        """Every row of one epoch, by its place; as many in each epoch."""
        visits, start = [], 0
        for portion in self.portions:
            places = range(start, start + len(portion.examples))
            whole, part = divmod(portion.weight, 1)
            visits += list(places) * int(whole)
            if part:
                visits += draw.sample(places, round(part * len(places)))
            start += len(places)
        return visits


def beginning(rows: list[Example]) -> int:
    """How many tokens all rows begin with; each keeps the token that predicts the first one with loss."""
    if len(rows) == 1:
        return 0
    alike = os.path.commonprefix([row.prompt for row in rows])  # noqa: RUF071 (of tokens, not of paths)
    return min(len(alike), min(row.turns[0][0] for row in rows) - 1)
