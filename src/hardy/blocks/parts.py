"""Splits a map along its channels into parts that are as wide as given maps: the inverse of a concatenation.

It is a separate module, so that it can declare to pruning that the parts follow the widths of the maps (`hardy.ties`).

Source: Hardy's own.
"""

from collections.abc import Sequence
from itertools import accumulate

from torch import Tensor, nn

from hardy.ties import Coupling

__all__ = ["Parts"]


class Parts(nn.Module):
    """``(B, C_1 + .. + C_n, h, w)`` and n maps of C_1 .. C_n channels -> n maps (B, C_i, h, w)."""

    def forward(self, x: Tensor, like: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Shapes as above; only the widths of ``like`` are read."""
        ends = tuple(accumulate(each.shape[1] for each in like))
        assert ends[-1] == x.shape[1], f"maps of {ends[-1]} channels in total for a map of {x.shape[1]}"
        return x.tensor_split(ends[:-1], dim=1)

    def channel_couplings(self) -> tuple[Coupling, ...]:
        """The parts are as wide as other maps."""
        return (Coupling("parts"),)

    def follow_cut(self, side: str, count: int) -> None:
        """Do nothing: all widths are read from maps."""
