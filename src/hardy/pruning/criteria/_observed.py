"""Shared by the gradient criteria: the gate gradients of each batch, and their means, squared before or after."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.pruning.coupled import Unit
from hardy.pruning.criteria.base import Halves
from hardy.pruning.gates import GateSite, by_unit, gate_gradients, gate_parameters, gate_sites, gates_applied
from hardy.pruning.residual import refined

__all__ = ["Means", "Observed", "Skip", "Squares", "Watch", "divisor", "placed", "relative", "too_few"]

Skip = Literal["none", "places", "blocks", "nvidia"]
"""The divisor of the squared gradient of a gate with several sites: 1, the number of sites, the number of residual
blocks, or the number of residual blocks with 3 for a gate with a single site."""

_ALONE = 3
"""The authors' code of "Importance estimation" divides a gate with a single site by this."""


def placed(network: Network, units: Sequence[Unit], gates: Literal["unit", "paper"]) -> Sequence[Unit]:
    """The ``units`` with one gate for each channel that can be cut out, or with the gates of the papers' code."""
    return refined(network, units) if gates == "paper" else units


class Watch:
    """Measures the factor between the risks of a step and the loss.

    The loss may be scaled (mixed precision, gradient accumulation). The scale is read from the gradient at the risk, so
    that it can be divided out.
    """

    def __init__(self) -> None:
        self._scales: list[Tensor] = []

    def expect(self, risk: Tensor) -> Tensor:
        """``risk`` itself, watched for the scale of its gradient."""
        risk.register_hook(self._scales.append)  # type: ignore[no-untyped-call]
        return risk

    def scale(self) -> Tensor:
        """Return the sum of the scales of this step's risks, and clear them."""
        total = torch.stack(self._scales).double().sum()
        self._scales.clear()
        return total

    def forget(self) -> None:
        """Clear the scales of risks without a completed step."""
        self._scales.clear()


class Observed(Watch):
    """The gates of the units, and the gradient of the mean risk at the gates after a backward pass.

    The gradients of the parameters must be cleared before the step.
    """

    def __init__(self, network: Network, units: Sequence[Unit]) -> None:
        super().__init__()
        self._network = network
        self._units = units
        self.count = sum(unit.size for unit in units)

    @cached_property
    def sites(self) -> list[GateSite]:
        """The gate sites; found at first use, because the network may be moved to its device after `__init__`."""
        return gate_sites(self._network, self._units)

    @cached_property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters from which the gate gradients are computed."""
        return gate_parameters(self.sites)

    def gates_applied(self) -> AbstractContextManager[None]:
        """Forward passes inside use the gates; see `hardy.pruning.gates.gates_applied`."""
        return gates_applied(self.sites)

    def expect(self, risk: Tensor) -> Tensor:
        """``risk`` itself, watched for the scale of its gradient.

        Raises:
            InputError: when the parameter of a gate is frozen, because then it gets no gradient.
        """
        frozen = next((parameter for parameter in self.parameters if not parameter.requires_grad), None)
        if frozen is not None:
            name = next(name for name, parameter in self._network.named_parameters() if parameter is frozen)
            raise InputError(
                f"{name!r} is frozen: a criterion that reads gradients needs it trainable; "
                "prune by the one_shot schedule, or merge the tuner that froze it (network.merge)"
            )
        return super().expect(risk)

    def gradients(self, scale: Tensor) -> Tensor:
        """dR/dz (G,) float64, where R is the mean risk, from the gradients of the parameters."""
        found = gate_gradients(self.sites, {p: p.grad for p in self.parameters}, self.count) / scale
        self._clear()
        return found

    def forget(self) -> None:
        """See `Watch.forget`; also clears the gradients of the gates."""
        super().forget()
        self._clear()

    def _clear(self) -> None:
        """Clear the gradients of gates that are parameters; they belong to no optimiser, which would clear them."""
        for site in self.sites:
            if site.factor is not None:
                site.factor.grad = None


class Means:
    """The means of rows of values over batches, and over every other batch."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Clear the means."""
        self._total: Tensor | None = None
        self._second: Tensor | None = None
        self._batches = 0

    @property
    def batches(self) -> int:
        """The number of batches added."""
        return self._batches

    def add(self, *rows: Tensor) -> None:
        """Add the values of one batch, each (G,); a batch with infinite values or NaN (mixed precision) is ignored."""
        values = torch.stack(rows)
        if not torch.isfinite(values).all():
            return
        self._total = values if self._total is None else self._total + values
        self._batches += 1
        if self._batches % 2 == 0:
            self._second = values if self._second is None else self._second + values

    def mean(self) -> Tensor:
        """The (R, G) means of the R rows.

        Raises:
            InputError: if nothing was collected.
        """
        if self._total is None:
            raise InputError("no batch with finite values was collected; call observe, backward and collect first")
        return self._total / self._batches

    def halves(self) -> tuple[Tensor, Tensor] | None:
        """The (R, G) means over the first, third, ... batch and over the others; None for fewer than two batches."""
        if self._total is None or self._second is None:
            return None
        even = self._batches // 2
        return (self._total - self._second) / (self._batches - even), self._second / even


class Squares:
    """The mean over batches of squares, or the square of the mean.

    Args:
        square: ``"before"`` squares the value of each batch, so the noise of the batches adds to the score; ``"after"``
            squares the mean; ``"sample"`` expects values that are sums of squares already.
        accumulate: the values of this many batches are averaged first and then count as one batch.
    """

    def __init__(self, square: Literal["sample", "before", "after"], accumulate: int = 1) -> None:
        self._square = square
        self._accumulate = accumulate
        self._group = Means()
        self._means = Means()

    def reset(self) -> None:
        """Clear the values."""
        self._group.reset()
        self._means.reset()

    def add(self, *rows: Tensor) -> None:
        """Add the values of one batch, each (G,)."""
        if self._accumulate > 1:
            self._group.add(*rows)
            if self._group.batches < self._accumulate:
                return
            rows = tuple(self._group.mean())
            self._group.reset()
        self._means.add(*(row.square() if self._square == "before" else row for row in rows))

    def rows(self) -> Tensor:
        """The (R, G) squared rows, before they are weighted.

        Raises:
            InputError: if nothing was collected, or fewer than ``accumulate`` batches.
        """
        if self._group.batches and not self._means.batches:
            raise too_few(self._group.batches, self._accumulate)
        return self._squared(self._means.mean())

    def scores(self, units: Sequence[Unit], weights: Sequence[float], skip: Skip) -> dict[str, Tensor]:
        """For each unit the weighted sum of the squared rows, divided by the divisor of ``skip``.

        Raises:
            InputError: what `rows` raises.
        """
        return _weighed(self.rows(), units, weights, skip)

    def halves(self, units: Sequence[Unit], weights: Sequence[float], skip: Skip) -> Halves | None:
        """`scores` of every other batch and of the batches between them; None for fewer than two batches."""
        if (found := self._means.halves()) is None:
            return None
        one, other = (_weighed(self._squared(half), units, weights, skip) for half in found)
        return one, other

    def _squared(self, mean: Tensor) -> Tensor:
        return mean.square() if self._square == "after" else mean


def _weighed(rows: Tensor, units: Sequence[Unit], weights: Sequence[float], skip: Skip) -> dict[str, Tensor]:
    total = torch.tensor(weights, dtype=rows.dtype, device=rows.device) @ rows
    scores = by_unit(total, units)
    return {unit.name: scores[unit.name] / divisor(unit, skip) for unit in units}


def too_few(batches: int, accumulate: int) -> InputError:
    """The error of a round that is shorter than ``accumulate`` batches."""
    return InputError(
        f"accumulate {accumulate}: this many batches are averaged before squaring, but a round has only {batches}; "
        "lower it, or raise prune.schedule.every or prune.scoring.batches"
    )


def divisor(unit: Unit, skip: Skip) -> int:
    """The divisor of the squared gradient of ``unit``'s gate, which is a sum over the gate sites.

    A channel of a residual stream of n blocks has n + 1 gate sites: at the last norm layer of every block that adds to
    the stream, and at that of the stem or shortcut at its start. With the gates of the papers it has n sites, at the
    outputs of the blocks.
    """
    sites = len(unit.gated)
    if unit.outputs:
        return 1 if skip == "none" else sites
    if skip == "places":
        return max(sites, 1)
    if skip == "none":
        return 1
    return sites - 1 if sites > 1 else (_ALONE if skip == "nvidia" else 1)


def relative(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The scores of each unit divided by their Euclidean norm; zeros stay zeros."""
    return {name: values / (float(values.norm()) or 1.0) for name, values in scores.items()}
