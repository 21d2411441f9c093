"""A network is built within bounds, or not at all."""

import pytest
import torch

import hardy
from hardy.errors import InputError
from hardy.ops import bounded


@pytest.mark.parametrize("width", [10**5, 10**9, 10**18])
def test_a_width_that_no_memory_holds_is_one_line(width: int) -> None:
    with pytest.raises(InputError, match=r"^tiny: it needs [\d.,]+ GiB in \d+ tensors; at most 4 GiB"):
        hardy.create("tiny", "camvid11", width=width)


def test_too_many_tensors_are_refused_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "TENSORS", 10)
    with pytest.raises(InputError, match="in 11 tensors"):
        hardy.create("tiny", "camvid11")


def test_counting_changes_no_draw() -> None:
    torch.manual_seed(0)
    plain = torch.nn.Conv2d(3, 8, 3).weight
    torch.manual_seed(0)
    with bounded.bounded("x"):
        counted = torch.nn.Conv2d(3, 8, 3).weight
    assert torch.equal(plain, counted)
