"""Parts undo a concatenation, whatever the widths."""

import pytest
import torch

from hardy.blocks.parts import Parts


def test_parts_are_what_was_laid_side_by_side() -> None:
    maps = [torch.rand(2, width, 3, 4) for width in (5, 1, 7)]
    for found, expected in zip(Parts()(torch.cat(maps, dim=1), maps), maps, strict=True):
        assert torch.equal(found, expected)


def test_widths_must_add_up() -> None:
    with pytest.raises(AssertionError, match="maps of 3 channels in total for a map of 4"):
        Parts()(torch.rand(1, 4, 2, 2), [torch.rand(1, 3, 2, 2)])
