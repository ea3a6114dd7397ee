"""Templates that others wrote: in each an answer is learned where serving has it, or the run is refused. See docs/TEMPLATES.md."""

import pytest

from tests.unit.trainer import templates


@pytest.mark.slow
def test_every_template_of_trl_is_trained_as_it_is_served(tiny):
    verdicts = templates.table(tiny)
    assert not [name for name, cells in verdicts.items() if "WRONG" in cells]
    assert all(cell == "right" or cell.startswith("refused: ") for cells in verdicts.values() for cell in cells[:3])
    assert all(cells[1] == cells[0] == "right" or cells[0].startswith("refused") for cells in verdicts.values()), "no history is refused"
    assert templates.PAGE.read_text(encoding="utf-8") == templates.page(verdicts)
