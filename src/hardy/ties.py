"""What a block's code fixes about its channels, said by the block itself, so that pruning can cut it.

Pruning follows channels through a network that runs. It cannot see a number that the code holds: how many heads an
attention has, or how wide the parts are that a map is split into. A block says so with two methods,

    def channel_couplings(self) -> tuple[Coupling, ...]     # what belongs together
    def follow_cut(self, side: str, count: int) -> None     # set the numbers after a cut, in place

For a class that you cannot change, `register` takes two functions in their place. What is said is tried out as
everything else is: where the smaller network computes something else than the masked one, nothing of it goes.

Source: Hardy's own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeGuard, runtime_checkable

from hardy.errors import InputError

__all__ = ["Coupling", "Follow", "Tie", "Tied", "couplings_of", "follow_cut", "head_rows", "register"]

Tie = tuple[str, str, tuple[tuple[int, ...], ...]]
"""(layer, side, the layer's channels of each coupled channel). The layer is named from the block, ``""`` for the block
itself; sides are ``"out"`` and ``"in"`` of a layer, ``"name:axis"`` of a parameter or buffer of another module."""

Side = Literal["heads", "embedding", "parts", "hidden"]


@dataclass(frozen=True)
class Coupling:
    """Channels of a block that its code counts.

    Attributes:
        side: what one of them is. ``"heads"``: an attention head. ``"embedding"``: a channel of the residual stream.
            ``"parts"``: a channel of one of the equal parts that the block splits a map into; with a count of 0 the
            block splits by widths that it reads from other maps. ``"hidden"``, without a count: the block widens, acts
            and narrows, and the width between is a hidden width.
        count: how many there are.
        ties: what goes with each of them.
        gate: for heads the layer that takes their outputs, at whose input a head's gate sits.
    """

    side: Side
    count: int = 0
    ties: tuple[Tie, ...] = ()
    gate: str = ""


@runtime_checkable
class Tied(Protocol):
    """A block that says what its code fixes."""

    def channel_couplings(self) -> tuple[Coupling, ...]:
        """The couplings of the block as it is now."""

    def follow_cut(self, side: str, count: int) -> None:
        """Set, in place, the attributes that depend on ``side``, of which ``count`` channels are left."""


Couplings = Callable[[Any], Sequence[Coupling]]
"""From a module of the registered class its couplings as it is now."""

Follow = Callable[[Any, str, int], None]
"""``follow(module, side, count)``: see `Tied.follow_cut`."""

_REGISTERED: dict[type, tuple[Couplings, Follow]] = {}


def register(kind: type, couplings: Couplings, follow: Follow) -> None:
    """Say for the modules of class ``kind``, and of its subclasses, what their code fixes.

    It holds for this process, before what Hardy knows of the class and what its methods say; a later call for the same
    class replaces it. A network that was pruned by it loads only after the same call.

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
        couplings: from such a module its couplings.
        follow: sets the attributes of such a module after a cut, in place.

    Raises:
        InputError: when ``kind`` is no class, or one of the others cannot be called.
    """
    if not isinstance(kind, type):
        raise InputError(f"ties.register: {kind!r} is no class; give the class of the modules, not a module")
    for name, value in (("couplings", couplings), ("follow", follow)):
        if not callable(value):
            raise InputError(f"ties.register: {name} of {kind.__name__} is {value!r}; it must be a function")
    _REGISTERED[kind] = couplings, follow


def couplings_of(module: object) -> tuple[Coupling, ...] | None:
    """What is registered for the class of ``module``, or else what the class says itself; None where neither is.

    Of its class and the classes above the nearest counts.
    """
    found = _registered(module)
    if found is not None:
        return tuple(found[0](module))
    return module.channel_couplings() if _says(module) else None


def follow_cut(module: object, side: str, count: int) -> None:
    """Let a module that `couplings_of` knows set its attributes after a cut, in place."""
    found = _registered(module)
    if found is not None:
        found[1](module, side, count)
    elif _says(module):
        module.follow_cut(side, count)


def _registered(module: object) -> tuple[Couplings, Follow] | None:
    """The functions for the nearest class of ``module`` that has some; None where a nearer class has the methods."""
    for kind in type(module).__mro__:
        if kind in _REGISTERED:
            return _REGISTERED[kind]
        if "channel_couplings" in vars(kind):
            return None
    return None


def _says(module: object) -> TypeGuard[Tied]:
    return issubclass(type(module), Tied)


def head_rows(heads: int, wide: int, parts: int = 1) -> tuple[tuple[int, ...], ...]:
    """The rows of each head in a layer that makes ``parts`` vectors of ``wide`` rows for every head, one part after
    the other.

    >>> head_rows(2, 2, 2)
    ((0, 1, 4, 5), (2, 3, 6, 7))
    """
    span = heads * wide
    return tuple(
        tuple(part * span + head * wide + row for part in range(parts) for row in range(wide)) for head in range(heads)
    )
