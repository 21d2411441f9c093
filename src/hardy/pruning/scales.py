"""Scales: the trained factor of every channel, which sparse training shrinks towards zero.

If all gate sites of a unit are affine norm layers, their gammas are the scales. Elsewhere (attention heads,
convolutions without a norm layer), or on request, a separate factor that starts at 1 is trained: a parametrization of
the modules at the gate sites multiplies their outputs, or their inputs, by one vector that all sites of the unit share.
`Scales.fold` multiplies the factor into the weights and removes the parametrization.

Source: the gammas of Liu, Li, Shen, Huang, Yan and Zhang, "Learning efficient convolutional networks through network
slimming", ICCV 2017; the factor per attention head of Luo, Liu and Yang, IJCV 2024, doi 10.1007/s11263-024-02194-5.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from hardy.errors import InputError
from hardy.ops.axes import weight_axis
from hardy.pruning.coupled import Member, Unit
from hardy.pruning.norms import unmask
from hardy.pruning.weight_norm import weight_norm_of

__all__ = ["Scales", "gate_members", "has_factors"]


def gate_members(unit: Unit) -> list[Member]:
    """The gate sites of ``unit`` as module sides: outputs, or the inputs of the layers that read its channels."""
    found = [member for member in unit.members if member.module in unit.gates]
    out = [member for member in found if member.side == "out"]
    return out or [member for member in found if member.side == "in"]


class Scales:
    """The scales of all units of a network.

    Args:
        network: gets parametrizations where a unit needs a separate factor.
        units: its units.
        separate: give every unit a separate factor, initialised at 1, and do not use the gammas of norm layers.

    Raises:
        InputError: if no unit has a gate, or a unit that needs a separate factor has a layer that normalises or
            standardises its weights.
    """

    def __init__(self, network: nn.Module, units: Sequence[Unit], *, separate: bool = False) -> None:
        self._network = network
        self._units = [unit for unit in units if gate_members(unit)]
        if not self._units:
            raise InputError(f"{type(network).__name__} has no gates: no scales of norm layers and no heads")
        self._factors: dict[str, str] = {}
        for unit in self._units:
            if separate or not all(_is_norm(network, member) for member in gate_members(unit)):
                self._attach(unit)

    def of(self, unit: Unit) -> list[Tensor]:
        """The scales (n,) of ``unit`` at each gate site, with gradients; one tensor for a separate factor."""
        if unit.name in self._factors:
            return [self._network.get_parameter(self._factors[unit.name])]
        found = []
        for member in gate_members(unit):
            weight: Tensor = self._network.get_submodule(member.module).weight  # type: ignore[assignment]
            indices = torch.tensor(member.channels, device=weight.device)
            found.append(weight[indices].mean(1) if indices.shape[1] > 1 else weight[indices[:, 0]])
        return found

    def sizes(self) -> dict[str, Tensor]:
        """For each unit's name the means (n,) of |scale| over its gate sites, float64 on the CPU."""
        sizes = {unit.name: torch.stack([scale.detach().abs() for scale in self.of(unit)]) for unit in self._units}
        return {name: size.double().mean(0).cpu() for name, size in sizes.items()}

    def penalty(self, weights: dict[str, Tensor] | None = None) -> Tensor:
        """``sum_i w_i |scale_i|`` over all units and gate sites; ``weights`` are w (n,) by the unit's name, else 1."""
        terms: list[Tensor] = []
        for unit in self._units:
            weight = (weights or {}).get(unit.name, 1.0)
            terms.extend((weight * scale.abs()).sum() for scale in self.of(unit))
        return torch.stack(terms).sum()

    def fold(self) -> None:
        """Multiply the factors into the weights, in place, and remove the parametrizations."""
        for unit in self._units:
            if unit.name in self._factors:
                for member in gate_members(unit):
                    module = self._network.get_submodule(member.module)
                    unmask(module)  # its class hides the parametrized class; the caller masks again
                    for name in ("weight", "bias"):
                        if parametrize.is_parametrized(module, name):
                            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
        self._factors.clear()

    def _attach(self, unit: Unit) -> None:
        factor = None
        for member in gate_members(unit):
            module = self._network.get_submodule(member.module)
            if weight_norm_of(module) is not None or member.standardised:
                raise InputError(
                    f"{member.module!r} has normalised weights, which cannot have a trained factor; use a pruning "
                    "schedule other than sparse"
                )
            if factor is None:
                factor = nn.Parameter(torch.ones(unit.size, dtype=module.weight.dtype, device=module.weight.device))  # type: ignore[arg-type]
            times = _Times(factor, member, weight_axis(module, member.side))
            parametrize.register_parametrization(module, "weight", times)
            number = len(module.parametrizations["weight"]) - 1  # type: ignore[index,arg-type]
            self._factors.setdefault(unit.name, f"{member.module}.parametrizations.weight.{number}.factor")
            if member.side == "out" and isinstance(module.bias, nn.Parameter):
                parametrize.register_parametrization(module, "bias", _Times(factor, member, 0))


def has_factors(network: nn.Module) -> bool:
    """Whether a unit of ``network`` has a separate factor."""
    return any(isinstance(module, _Times) for module in network.modules())


class _Times(nn.Module):
    """Multiplies the rows (or columns) of each channel of a weight by the factor of the channel."""

    index: Tensor

    def __init__(self, factor: nn.Parameter, member: Member, axis: int) -> None:
        super().__init__()
        self.factor = factor
        self.axis = axis
        pairs = [(i, channel) for channel, indices in enumerate(member.channels) for i in indices]
        self.register_buffer("index", torch.tensor(pairs), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        factors = weight.new_ones(weight.shape[self.axis])
        rows, channels = self.index.unbind(1)
        factors = factors.index_put((rows,), self.factor[channels])
        return weight * factors.view([-1 if axis == self.axis else 1 for axis in range(weight.ndim)])


def _is_norm(network: nn.Module, member: Member) -> bool:
    module = network.get_submodule(member.module)
    return member.side == "out" and not isinstance(module, (_ConvNd, nn.Linear))
