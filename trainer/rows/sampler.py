"""Which rows make which step: decided by the seed and the step's number alone, so there is no state to save."""

import math
import os
import random
from dataclasses import dataclass, replace
from functools import lru_cache

from conf import made_for_rows
from conf.problem import Problem
from conf.schema import Data, Train
from trainer.rows.prompt import Example


@dataclass(frozen=True)
class WeightedRows:
    """Rows of one source, and how often an epoch visits each: 2 is twice, 0.5 is every other row, drawn again in each epoch."""

    examples: list[Example]
    weight: float = 1.0


def drawn(examples: list[Example], count: int | None, seed: int) -> list[Example]:
    """So many of the rows, in their order, all of them for None. A smaller number's rows are among a larger number's; a Problem where
    there are not so many."""
    if count is None:
        return examples
    if count > len(examples):
        what = f"data.train_rows is {count:,}, and data.train has {len(examples):,} rows that can be trained on"
        raise Problem(what, "all of them: `data.train_rows=null`", "bad_data")
    order = list(range(len(examples)))
    random.Random(f"{seed} rows").shuffle(order)
    return [examples[index] for index in sorted(order[:count])]


def with_answer_limit(data: Data, examples: list[Example]) -> Data:
    """The settings with a limit of answers, by the longest of these rows' where there is none."""
    if data.max_new_tokens:
        return data
    return replace(data, max_new_tokens=made_for_rows.max_new_tokens(max(len(example.completion) for example in examples)))


class Sampler:
    """The rows in the order in which they are trained on. Steps cross the borders of epochs."""

    def __init__(self, portions: list[WeightedRows], seed: int, batch_size: int):
        self.examples = [example for portion in portions for example in portion.examples]
        self.longest = max(map(len, self.examples))
        self.portions = portions
        self.seed = seed
        self.batch_size = batch_size
        self.length = len(self._visits(random.Random(0)))  # rows in one epoch
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def batch(self, number: int) -> list[Example]:
        """The rows of a step; the first one is step 1."""
        positions = range((number - 1) * self.batch_size, number * self.batch_size)
        return [self.examples[self._epoch(position // self.length)[position % self.length]] for position in positions]

    def epoch(self, number: int) -> float:
        """How many epochs are done after this step."""
        return round(number * self.batch_size / self.length, 4)

    def total_steps(self, train: Train) -> int:
        """How many steps these settings ask for."""
        return train.steps or math.ceil((train.epochs or made_for_rows.epochs(self.length)) * self.length / train.batch_size)

    def rows_seen(self, steps: int) -> int:
        """How many different rows the first `steps` steps train on."""
        return len({row for epoch in range(-(-steps * self.batch_size // self.length)) for row in self._part(epoch, steps)})

    def _part(self, epoch: int, steps: int) -> list[int]:
        """The rows of an epoch that the first `steps` steps reach."""
        return self._epoch(epoch)[: steps * self.batch_size - epoch * self.length]

    def _shuffled(self, epoch: int) -> list[int]:
        draw = random.Random(f"{self.seed} {epoch}")
        visits = self._visits(draw)
        draw.shuffle(visits)
        return visits

    def _visits(self, draw: random.Random) -> list[int]:
        """The indices of one epoch's rows; every epoch has as many."""
        visits, start = [], 0
        for portion in self.portions:
            indices = range(start, start + len(portion.examples))
            whole, part = divmod(portion.weight, 1)
            visits += list(indices) * int(whole)
            if part:
                visits += draw.sample(indices, round(part * len(indices)))
            start += len(indices)
        return visits


def common_prefix_length(rows: list[Example]) -> int:
    """How many tokens all rows begin with; each keeps the token that predicts the first one with loss."""
    if len(rows) == 1:
        return 0
    alike = os.path.commonprefix([row.prompt for row in rows])  # noqa: RUF071 (of tokens, not of paths)
    return min(len(alike), min(row.turns[0][0] for row in rows) - 1)
