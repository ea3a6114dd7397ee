"""What the stories of faults share."""

import pytest
from stories import Clock


@pytest.fixture(scope="module")
def story_runs(laptop):
    """The stories told so far; each leaves its box behind."""
    laptop.clock = Clock(laptop.state)
    return []
