"""`data.train_rows`: which rows are trained on follows from the seed, and a larger number only adds some."""

import pytest

from conf.problem import Problem
from trainer.rows.sampler import drawn


def test_a_smaller_number_s_rows_are_among_a_larger_one_s_in_their_order():
    few, more = drawn(range(100), 10, 17), drawn(range(100), 50, 17)
    assert len(few) == 10 and len(more) == 50 and set(few) < set(more) and more == sorted(more)
    assert few != drawn(range(100), 10, 18), "another seed draws others"
    assert few != list(range(10)), "not the first: a file may be sorted"


def test_all_of_them_are_as_they_were():
    rows = list(range(5))
    assert drawn(rows, None, 17) is rows and drawn(rows, 5, 17) == rows


def test_more_than_there_are_is_refused():
    with pytest.raises(Problem, match="data.train_rows is 1,000, and data.train has 5 rows"):
        drawn(range(5), 1000, 17)
