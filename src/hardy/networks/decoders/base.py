"""The interface of a decoder: an encoder's feature maps to logits."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from hardy.errors import InputError

__all__ = ["Decoder", "enough"]


class Decoder(nn.Module, ABC):
    """The maps of an encoder, finest first, to logits at some stride.

    The constructor takes ``channels`` and ``strides``, one of each per map, and ``class_count`` K before the ``*`` and
    its options after. It raises `InputError` for maps it cannot work with.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], class_count: int) -> None:
        super().__init__()
        assert len(channels) == len(strides) > 0
        self.class_count = class_count

    @abstractmethod
    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, C_i, h_i, w_i) -> logits (B, K, h, w)."""


def enough(name: str, maps: int, channels: Sequence[int], *, least: int) -> None:
    """Refuse an option ``maps`` of the decoder ``name`` that is below ``least`` or more than the encoder has.

    Raises:
        InputError: naming both bounds.
    """
    if not least <= maps <= len(channels):
        raise InputError(f"{name} maps={maps}: give {least} to {len(channels)}, the encoder's maps")
