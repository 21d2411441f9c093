"""Trial: tests that a network computes the same whether units are removed or masked.

The code of a network may depend on widths in ways that a trace cannot find: a number in an attribute, a view, a split.
So half of the channels of each unit are masked in one copy of the network and removed from another. If the outputs
differ, or the smaller network fails, the unit is rejected. All units are tested together first. If this test fails, the
two halves of the units are tested separately, and so on.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hardy.pruning.coupled import Unit
from hardy.pruning.mask import mask
from hardy.pruning.remove import remove
from hardy.pruning.tracing.trace import example_for, outputs_of, twin_of
from hardy.seed import seeded

__all__ = ["tried"]

TOLERANCE = 1e-4
"""The largest allowed difference, relative to the largest output."""


def tried(
    network: nn.Module, units: Sequence[Unit], example: Tensor | None = None
) -> tuple[list[Unit], dict[str, str]]:
    """The units that can be pruned, and for each other unit, by name, the reason.

    Units of one channel are not tested.

    Args:
        network: a `Network` or any module; it does not change.
        units: the units to test.
        example: see `hardy.pruning.tracing.trace.trace`.
    """
    trial = _Trial(network, example)
    sound: list[Unit] = []
    refused: dict[str, str] = {}

    def add(some: list[Unit]) -> None:
        reason = trial.fault([*sound, *some])
        if reason is None:
            sound.extend(some)
        elif len(some) == 1:
            refused[some[0].name] = reason
        else:
            add(some[: len(some) // 2])
            add(some[len(some) // 2 :])

    if units:
        add([unit for unit in units if unit.size > 1])
    names = {unit.name for unit in sound}
    return [unit for unit in units if unit.name in names or unit.size == 1], refused


class _Trial:
    """A copy of the network with weights such that every channel has an effect."""

    def __init__(self, network: nn.Module, example: Tensor | None) -> None:
        self._twin = twin_of(network).requires_grad_(False).eval()
        self._example = example_for(network, example)
        with seeded(0, "trial"):
            _shake(self._twin)

    def fault(self, units: Sequence[Unit]) -> str | None:
        """The error if every second channel of ``units`` is removed; None without an error."""
        removed = {unit.name: list(range(0, unit.size - unit.size % 2, 2)) for unit in units}
        masked, smaller = copy.deepcopy(self._twin), copy.deepcopy(self._twin)
        mask(masked, units, removed)
        remove(smaller, units, removed)
        expected, _ = _run(masked, self._example)
        found, reason = _run(smaller, self._example)
        if reason is not None:
            return f"after its removal {reason}"
        if not expected or not all(_alike(one, other) for one, other in zip(expected, found, strict=True)):
            return "removing it changes the outputs of the network"
        return None


def _alike(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    apart, size = float((one - other).abs().max()), float(one.abs().max())
    return apart <= TOLERANCE * max(size, 1e-12)  # False for NaN


def _run(network: nn.Module, example: Tensor) -> tuple[list[Tensor], str | None]:
    """The outputs and None; or no outputs and a text that names the failing module and its error."""
    running: list[str] = []

    def entering(name: str) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            running.append(name)

        return enter

    def leave(*_: Any) -> None:
        running.pop()

    for name, module in network.named_modules():
        module.register_forward_pre_hook(entering(name or type(network).__name__))
        module.register_forward_hook(leave)
    try:
        with torch.no_grad():
            return outputs_of(network, example), None
    except Exception as error:  # foreign code may raise anything; the error is the result
        text = " ".join(str(error).split())[:120]
        return [], f"{running[-1] if running else type(network).__name__} fails: {text}"


def _shake(network: nn.Module) -> None:
    """Replace constant vectors, such as the scales and shifts of a new norm layer, by random ones, in place."""
    for value in [*network.parameters(), *network.buffers()]:
        if value.is_floating_point() and value.numel() > 1 and float(value.max()) == float(value.min()):
            value.copy_(torch.rand(value.shape) + 0.5)
