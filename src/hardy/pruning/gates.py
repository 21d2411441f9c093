"""Gates: the gradient of a loss with respect to a multiplier of every channel, computed without inserting multipliers.

A gate z after a norm layer, y = z (gamma xhat + beta), has at z = 1 exactly dL/dz = gamma dL/dgamma + beta dL/dbeta,
for batch statistics and for running statistics. After a convolution or linear layer it is the sum of w dL/dw over the
filter plus b dL/db. A unit has one gate at all its gate sites, so the gradients of the sites are added (before any
square). `hardy.pruning.units` chooses the sites. A path through two sites of one unit counts at both.

With weight norm (w = g v / ||v||) the sum of w dL/dw over a filter is g dL/dg.

Where the gates multiply the input of a layer (attention heads, a hidden width), dL/dz is the sum of w dL/dw over the
weights that read the channel. The output of a block has no parameter, so inside `gates_applied` a gate of ones
multiplies it, and the gradient of this gate is read directly. Gradients of single samples are in
`hardy.pruning.samples`.

Source: the gates of Molchanov et al., "Importance estimation for neural network pruning", CVPR 2019; the identities
above follow from the chain rule.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hardy.errors import InputError
from hardy.ops.axes import weight_axis
from hardy.pruning.coupled import Member, Unit
from hardy.pruning.weight_norm import weight_norm_of

__all__ = [
    "GateSite",
    "by_unit",
    "gate_gradients",
    "gate_parameters",
    "gate_sites",
    "gates_applied",
    "samples_interact",
]


@dataclass(frozen=True)
class GateSite:
    """A module with gates at its output or its input.

    Attributes:
        module: an affine norm layer, a convolution or linear layer, or a block.
        channels: the module's channels that have a gate.
        gates: the index of the gate of each of these channels; gates are numbered over all units in order.
        side: ``"out"`` for gates at its output, ``"in"`` for gates at the input of a convolution or linear layer.
        factor: for the output of a block the gates themselves, ones (C,); else None.
    """

    module: nn.Module
    channels: Tensor
    gates: Tensor
    side: Literal["out", "in"] = "out"
    factor: nn.Parameter | None = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The weight (with weight norm also its scale), and for gates at the output the bias; for a block its gates."""
        if self.factor is not None:
            return [self.factor]
        held = dict(self.module.named_parameters(recurse=False))
        found = [held[name] for name in (("weight", "bias") if self.side == "out" else ("weight",)) if name in held]
        normed = weight_norm_of(self.module)
        return found if normed is None else [normed.g, *found]


def gate_sites(network: nn.Module, units: Sequence[Unit]) -> list[GateSite]:
    """The gate sites of ``units`` in ``network``, unit by unit.

    Raises:
        InputError: for a site where the gate gradient cannot be computed from a parameter, because the layer normalises
            or standardises its weights.
    """
    sites = []
    first = 0
    for unit in units:
        for member in unit.gated:
            module = network.get_submodule(member.module)
            _check(member, module)
            pairs = [(c, first + gate) for gate, channels in enumerate(member.channels) for c in channels]
            some = next(module.parameters())
            channels, gates = torch.tensor(pairs, device=some.device).unbind(1)
            factor = nn.Parameter(some.new_ones(int(channels.max()) + 1)) if unit.outputs else None
            sites.append(GateSite(module, channels, gates, "out" if member.side == "out" else "in", factor))
        first += unit.size
    return sites


@contextmanager
def gates_applied(sites: Sequence[GateSite]) -> Iterator[None]:
    """Inside the block, forward passes multiply the outputs of residual blocks by their gates."""
    handles = [
        site.module.register_forward_hook(partial(_multiply, site.factor)) for site in sites if site.factor is not None
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def gate_parameters(sites: Sequence[GateSite]) -> list[nn.Parameter]:
    """The parameters whose gradients give the gate gradients, each once, in order."""
    return list(dict.fromkeys(parameter for site in sites for parameter in site.parameters))


def gate_gradients(sites: Sequence[GateSite], gradients: Mapping[nn.Parameter, Tensor | None], count: int) -> Tensor:
    """dL/dz (G,) float64 of all G = ``count`` gates from dL/dp of their parameters; a missing gradient counts as 0."""
    total: Tensor | None = None
    for site in sites:
        summed = _per_channel(site, gradients)
        if total is None:
            total = torch.zeros(count, dtype=torch.float64, device=site.gates.device)
        if summed is not None:
            total.index_add_(0, site.gates, summed.double()[site.channels])
    return torch.zeros(count, dtype=torch.float64) if total is None else total


def by_unit(values: Tensor, units: Sequence[Unit]) -> dict[str, Tensor]:
    """Split the values (G,) of all gates into one (n,) float64 CPU tensor per unit."""
    parts = torch.split(values.cpu().double(), [unit.size for unit in units])
    return {unit.name: part.clone() for unit, part in zip(units, parts, strict=True)}


def samples_interact(network: nn.Module) -> bool:
    """True if at least one batch norm uses the statistics of the batch."""
    norms = (module for module in network.modules() if isinstance(module, _BatchNorm))
    return any(norm.training or norm.running_mean is None for norm in norms)


def _check(member: Member, module: nn.Module) -> None:
    """Raise `InputError` for a gate site where the gate gradient cannot be computed from a parameter.

    A standardised weight does not depend on its scale, and weight norm has one scale for all inputs of a layer.
    """
    normed = weight_norm_of(module)
    if member.standardised or (
        normed is not None and (member.side != "out" or normed.axis != weight_axis(module, "out"))
    ):
        what = "standardises its weights" if member.standardised else "normalises its weights over what the gate scales"
        raise InputError(
            f"the gates of {member.module!r} have no gradient: it {what}; use a weight criterion, such as l2"
        )


def _multiply(factor: Tensor, module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
    """A block's output (B, C, ...) times its gates; channels after the last gate do not change."""
    full_factor = (
        factor if len(factor) == out.shape[1] else torch.cat([factor, factor.new_ones(out.shape[1] - len(factor))])
    )
    return out * full_factor.to(out.dtype).view(-1, *(1,) * (out.ndim - 2))


def _per_channel(site: GateSite, gradients: Mapping[nn.Parameter, Tensor | None]) -> Tensor | None:
    """The sum of p dL/dp over the parameters of each channel at ``site``; None without any gradient."""
    total: Tensor | None = None
    for parameter in site.parameters:
        gradient = gradients.get(parameter)
        if gradient is None:
            continue
        product = parameter.detach() * gradient
        if product.ndim > 1:
            axis = weight_axis(site.module, site.side)
            product = product.sum([other for other in range(product.ndim) if other != axis])
        total = product if total is None else total + product
    return total
