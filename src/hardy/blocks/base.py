"""The cost of a block by its formula: weights and multiply-accumulates, to compare with counted values.

A block is a module of a few layers that networks share. A block with a cost formula is `Costed`.
"""

import importlib
import pkgutil
from abc import ABC
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

from hardy.blocks.sizes import cells

__all__ = ["Cost", "Costed", "costed", "strided"]


class Cost(NamedTuple):
    """The cost of a block for one image.

    Attributes:
        weights: the number of weights of convolutions and linear layers, without biases. Batch norms are not counted,
            because they can be folded into convolutions.
        macs: the number of multiply-accumulates of these layers.
    """

    weights: int
    macs: int


class Costed(ABC):
    """A block with a formula; its constructor takes ``(in_channels, out_channels, **options)``.

    Attributes:
        cost: ``cost(in_channels, out_channels, size, **options)``, the cost for an input map of ``size`` (H, W); no
            module is built.
        shown: the forms of the block that a table shows: name -> options.
    """

    cost: ClassVar[Callable[..., Cost]]
    shown: ClassVar[Mapping[str, Mapping[str, Any]]]


def costed() -> list[type[Costed]]:
    """All blocks with a formula, sorted by the names of their files."""
    package = importlib.import_module("hardy.blocks")
    for module in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
        importlib.import_module(f"hardy.blocks.{module}")
    return sorted(Costed.__subclasses__(), key=lambda block: block.__module__)


def strided(size: tuple[int, int], stride: int) -> int:
    """The number of cells of a map of ``size`` (H, W) after ``stride``; each side is rounded up."""
    height, width = cells(size, stride)
    return height * width
