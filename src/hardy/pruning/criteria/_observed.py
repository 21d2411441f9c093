"""What the gradient criteria share: gate gradients of each batch, and their mean in either order with the square."""

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.pruning.gates import Place, by_unit, gate_gradients, gate_parameters, gate_places
from hardy.pruning.units import Unit

__all__ = ["Observed", "Squares"]


class Observed:
    """The gates of the units, and the gradient of the mean risk at them after a backward pass.

    The gradients of the parameters must have been cleared before the step. The loss may be scaled (mixed precision,
    gradient accumulation): the scale is read off the gradient that reaches the risk itself, and divided out.
    """

    def __init__(self, network: Network, units: Sequence[Unit]) -> None:
        self._network = network
        self._units = units
        self.count = sum(unit.size for unit in units)
        self._scales: list[Tensor] = []

    @cached_property
    def places(self) -> list[Place]:
        """The gate places; looked up when first used, as the network may move to its device after the criterion."""
        return gate_places(self._network, self._units)

    @cached_property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that the gates are read from."""
        return gate_parameters(self.places)

    def expect(self, risk: Tensor) -> Tensor:
        """``risk`` itself, watched for the scale of its gradient.

        Raises:
            InputError: when a gate's parameter is frozen, so that it will have no gradient.
        """
        frozen = next((parameter for parameter in self.parameters if not parameter.requires_grad), None)
        if frozen is not None:
            name = next(name for name, parameter in self._network.named_parameters() if parameter is frozen)
            raise InputError(f"{name!r} is frozen: a criterion that reads gradients needs it trainable")
        risk.register_hook(self._scales.append)  # type: ignore[no-untyped-call]
        return risk

    def scale(self) -> Tensor:
        """What the risks of this step were multiplied with on the way to the loss, added up; then forgotten."""
        total = torch.stack(self._scales).double().sum()
        self._scales.clear()
        return total

    def forget(self) -> None:
        """Drop what was expected and never went backward."""
        self._scales.clear()

    def gradients(self, scale: Tensor) -> Tensor:
        """dR/dz (G,) float64, R the mean risk, from the gradients that the parameters hold."""
        return gate_gradients(self.places, {p: p.grad for p in self.parameters}, self.count) / scale


class Squares:
    """The mean over batches of squares, or the square of the mean.

    Args:
        square: ``"before"`` squares each batch's value, so the noise of the batches adds to the score; ``"after"``
            squares their mean.
    """

    def __init__(self, square: Literal["before", "after"]) -> None:
        self._before = square == "before"
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._total: Tensor | None = None
        self._batches = 0

    def add(self, *rows: Tensor) -> None:
        """Add one batch's values, each (G,); one that overflowed (a step that mixed precision skips) counts not."""
        values = torch.stack(rows)
        if not torch.isfinite(values).all():
            return
        values = values.square() if self._before else values
        self._total = values if self._total is None else self._total + values
        self._batches += 1

    def scores(self, units: Sequence[Unit], weights: Sequence[float]) -> dict[str, Tensor]:
        """For each unit the weighted sum of the rows' squares.

        Raises:
            InputError: when nothing was collected.
        """
        if self._total is None:
            raise InputError("no batch with finite gradients was collected; observe, go backward and collect first")
        mean = self._total / self._batches
        mean = mean if self._before else mean.square()
        return by_unit(torch.tensor(weights, dtype=mean.dtype, device=mean.device) @ mean, units)
