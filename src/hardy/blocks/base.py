"""What a block costs by its formula: weights and multiply-accumulates, to be held against what is counted.

A block is a module of a few layers with a purpose of its own. One that has a formula is `Costed`.
"""

import importlib
import pkgutil
from abc import ABC
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

from hardy.blocks.sizes import cells

__all__ = ["Cost", "Costed", "costed", "strided"]


class Cost(NamedTuple):
    """What one image costs in a block.

    Attributes:
        weights: of convolutions and linear layers, without biases; norms come on top and fold away.
        macs: multiply-accumulates of these layers.
    """

    weights: int
    macs: int


class Costed(ABC):
    """A block with a formula; its constructor takes ``(in_channels, out_channels, **options)``.

    Attributes:
        cost: ``cost(in_channels, out_channels, size, **options)`` of a map of ``size`` (H, W), before any module is
            made.
        shown: which forms of the block a table shows: the options of each by its name.
    """

    cost: ClassVar[Callable[..., Cost]]
    shown: ClassVar[Mapping[str, Mapping[str, Any]]]


def costed() -> list[type[Costed]]:
    """All blocks with a formula, by the names of their files."""
    package = importlib.import_module("hardy.blocks")
    for module in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
        importlib.import_module(f"hardy.blocks.{module}")
    return sorted(Costed.__subclasses__(), key=lambda block: block.__module__)


def strided(size: tuple[int, int], stride: int) -> int:
    """The cells of a map of ``size`` (H, W) after ``stride``, rounded up."""
    height, width = cells(size, stride)
    return height * width
