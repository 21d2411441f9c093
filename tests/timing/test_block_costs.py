"""The table of blocks: every form once, the formula beside the count, and what convolutions move."""

import pytest
import torch

from hardy.blocks.base import costed
from hardy.errors import InputError
from hardy.timing.block_costs import block_costs


@pytest.mark.costly
@pytest.mark.slow
def test_every_form_is_there_and_its_formula_is_what_is_counted():
    rows = block_costs(32, (6, 8), runs=1, device=torch.device("cpu"))
    assert [row.name for row in rows] == [name for block in costed() for name in block.shown]
    assert all(row.formula == row.counted for row in rows)
    assert all(row.milliseconds > 0 for row in rows)


@pytest.mark.costly
def test_a_convolution_moves_its_input_its_result_and_its_weights():
    rows = {row.name: row for row in block_costs(32, (6, 8), runs=1, device=torch.device("cpu"))}
    assert rows["3x3 convolution"].moved == 2 * 32 * 48 + 9 * 32 * 32
    assert rows["down, largest"].moved == 0


def test_a_width_that_a_block_cannot_have_is_refused():
    with pytest.raises(InputError, match=r"channels 100.*multiple of 32"):
        block_costs(100, (6, 8), runs=1, device=torch.device("cpu"))
