"""The interface of a decoder: from an encoder's feature maps to logits."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from hardy.errors import InputError
from hardy.types import Terms

__all__ = ["Decoded", "Decoder", "enough"]


class Decoded(NamedTuple):
    """The result of a decoder.

    Attributes:
        embedding: (B, C, h, w), the input of the decoder's head, before any dropout; see `hardy.types.Outputs`.
        logits: (B, K, h, w), at some stride.
        extras: further tensors by name, batch first, which `Decoder.losses` reads; no name begins with ``aux_``.
    """

    embedding: Tensor
    logits: Tensor
    extras: Mapping[str, Tensor] = MappingProxyType({})


class Decoder(nn.Module, ABC):
    """From the maps of an encoder, finest first, to logits at some stride.

    The constructor takes ``channels`` and ``strides``, one of each per map, and ``class_count`` K before the ``*``, and
    its options after it. It raises `InputError` for maps that it does not support.

    Attributes:
        joins: whether its queries join the last ``count`` blocks of a plain transformer. `take_over` then makes these
            its ``blocks``, and `decode` gets the maps of the blocks before them, followed by the class and register
            tokens (B, P, C).
    """

    joins: ClassVar[bool] = False

    def __init__(self, channels: Sequence[int], strides: Sequence[int], class_count: int) -> None:
        super().__init__()
        assert len(channels) == len(strides) > 0
        self.class_count = class_count

    def take_over(self, blocks: Sequence[nn.Module], norm: nn.Module) -> None:
        """Take over the last blocks of the encoder and the norm that follows them, in place; only if `joins`."""

    @abstractmethod
    def decode(self, maps: Sequence[Tensor]) -> Decoded:
        """Maps (B, C_i, h_i, w_i) -> the embedding and the logits (B, K, h, w)."""

    def losses(self, extras: Mapping[str, Tensor], labels: Tensor) -> Terms | None:
        """The terms that replace the pixel loss of the logits; None for a decoder that uses the pixel loss.

        Args:
            extras: those of `decode`.
            labels: (B, H, W) int64 of the images, which the maps cover completely.
        """
        return None

    def read_queries(self, source: Callable[[], Tensor]) -> None:
        """At each `decode`, read queries (Q, C) from ``source`` instead of the decoder's own queries, if it has any.

        Args:
            source: a function or a bound method, not a module; its result has gradients.
        """

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The logits of `decode`."""
        return self.decode(maps).logits


def enough(name: str, maps: int, channels: Sequence[int], *, least: int) -> None:
    """Check that the option ``maps`` of the decoder ``name`` is from ``least`` to the number of the encoder's maps.

    Raises:
        InputError: if it is not; the message names both limits.
    """
    if not least <= maps <= len(channels):
        raise InputError(f"{name} maps={maps}: give {least} to {len(channels)}, the encoder's maps")
