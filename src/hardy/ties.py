"""Channel couplings that are fixed in a block's code and declared by the block, so that pruning can cut it.

Pruning traces channels through a forward pass. It cannot see numbers in the code, such as the number of attention heads
or the widths of the parts that a map is split into. A block declares them with two methods,

    def channel_couplings(self) -> tuple[Coupling, ...]     # which channels belong together
    def follow_cut(self, side: str, count: int) -> None     # set the numbers after a cut, in place

For a class that you cannot change, give `register` two functions instead. A declaration is tested like all other
couplings: if the smaller network does not compute the same as the masked one, none of these channels is removed.

Source: Hardy's own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeGuard, runtime_checkable

from hardy.errors import InputError

__all__ = ["Coupling", "Follow", "Tie", "Tied", "couplings_of", "follow_cut", "head_rows", "register"]

Tie = tuple[str, str, tuple[tuple[int, ...], ...]]
"""(layer, side, the layer's channels for each coupled channel). The layer's name is relative to the block, ``""`` is
the block itself. Sides are ``"out"`` and ``"in"`` of a layer, and ``"name:axis"`` of a parameter or buffer of another
module."""

Side = Literal["heads", "embedding", "parts", "hidden"]


@dataclass(frozen=True)
class Coupling:
    """Coupled channels of a block whose number is fixed in its code.

    Attributes:
        side: what one of them is. ``"heads"``: an attention head. ``"embedding"``: a channel of the residual stream.
            ``"parts"``: a channel of one of the equal parts that the block splits a map into; with a count of 0 the
            block splits by widths that it reads from other maps. ``"hidden"``, without a count: the block widens,
            applies an activation and narrows, and the width between the two layers is a hidden width.
        count: the number of coupled channels.
        ties: the channels of layers that belong to each of them.
        gate: for heads, the layer that reads their outputs; a head's gate is at the input of this layer.
    """

    side: Side
    count: int = 0
    ties: tuple[Tie, ...] = ()
    gate: str = ""


@runtime_checkable
class Tied(Protocol):
    """A block that declares its couplings."""

    def channel_couplings(self) -> tuple[Coupling, ...]:
        """The current couplings of the block."""

    def follow_cut(self, side: str, count: int) -> None:
        """Set, in place, the attributes that depend on ``side``, which has ``count`` channels left."""


Couplings = Callable[[Any], Sequence[Coupling]]
"""Returns the current couplings of a module of the registered class."""

Follow = Callable[[Any, str, int], None]
"""``follow(module, side, count)``: see `Tied.follow_cut`."""

_REGISTERED: dict[type, tuple[Couplings, Follow]] = {}


def register(kind: type, couplings: Couplings, follow: Follow) -> None:
    """Declare the couplings of the modules of class ``kind`` and of its subclasses.

    The declaration is valid in this process. It has priority over Hardy's built-in declaration for the class and over
    the methods of the class. A later call for the same class replaces it. A network that was pruned with it can be
    loaded only after the same call.

    >>> from torch import nn
    >>> class Attention(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.heads, self.qkv, self.proj = 4, nn.Linear(32, 96), nn.Linear(32, 32)
    >>> def couplings(module):
    ...     rows, thrice = head_rows(module.heads, 8), head_rows(module.heads, 8, 3)
    ...     ties = ("qkv", "out", thrice), ("proj", "in", rows)
    ...     return [Coupling("heads", module.heads, ties, "proj")]
    >>> def follow(module, side, count):
    ...     if side == "heads":
    ...         module.heads = count
    >>> register(Attention, couplings, follow)
    >>> [coupling.count for coupling in couplings_of(Attention())]
    [4]

    Args:
        kind: a class of modules.
        couplings: returns the couplings of such a module.
        follow: sets the attributes of such a module after a cut, in place.

    Raises:
        InputError: when ``kind`` is not a class, or one of the others is not callable.
    """
    if not isinstance(kind, type):
        raise InputError(f"ties.register: {kind!r} is not a class; give the class of the modules, not a module")
    for name, value in (("couplings", couplings), ("follow", follow)):
        if not callable(value):
            raise InputError(f"ties.register: {name} of {kind.__name__} is {value!r}; it must be a function")
    _REGISTERED[kind] = couplings, follow


def couplings_of(module: object) -> tuple[Coupling, ...] | None:
    """The couplings registered for the class of ``module``, or else declared by the class; None without any.

    The class itself has priority over its base classes.
    """
    functions = _registered(module)
    if functions is not None:
        return tuple(functions[0](module))
    return module.channel_couplings() if _declares(module) else None


def follow_cut(module: object, side: str, count: int) -> None:
    """Set the attributes of a module that `couplings_of` knows after a cut, in place."""
    functions = _registered(module)
    if functions is not None:
        functions[1](module, side, count)
    elif _declares(module):
        module.follow_cut(side, count)


def _registered(module: object) -> tuple[Couplings, Follow] | None:
    """The functions of the nearest registered class of ``module``; None when a nearer class has the methods."""
    for kind in type(module).__mro__:
        if kind in _REGISTERED:
            return _REGISTERED[kind]
        if "channel_couplings" in vars(kind):
            return None
    return None


def _declares(module: object) -> TypeGuard[Tied]:
    return issubclass(type(module), Tied)


def head_rows(heads: int, wide: int, parts: int = 1) -> tuple[tuple[int, ...], ...]:
    """The rows of each head in a layer that computes ``parts`` vectors of ``wide`` rows for every head, part by part.

    >>> head_rows(2, 2, 2)
    ((0, 1, 4, 5), (2, 3, 6, 7))
    """
    span = heads * wide
    return tuple(
        tuple(part * span + head * wide + row for part in range(parts) for row in range(wide)) for head in range(heads)
    )
