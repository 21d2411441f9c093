"""Gates: the gradient of a loss with respect to a multiplier of ones on every channel, without inserting any.

A gate z after a norm, y = z (gamma xhat + beta), has at z = 1 exactly dL/dz = gamma dL/dgamma + beta dL/dbeta, for
batch statistics and for frozen ones alike; after a convolution or linear layer it is the sum of w dL/dw over the
filter plus b dL/db. A unit's gate is shared by all its places, so their gradients are added (before any square).
Where the places are is told by `hardy.pruning.units`. A path that crosses two places of one unit counts in both.

While all batch norms are frozen, samples do not interact, and one backward pass also gives any weighted sum of the
samples' own gate gradients (`SampleGates`): the sum over pixels of dL/dy times y, sample by sample.

Source: the gates of Molchanov et al., "Importance estimation for neural network pruning", CVPR 2019;
the identities above are the chain rule.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd
from torch.utils.hooks import RemovableHandle

from hardy.pruning.units import Unit

__all__ = ["Place", "SampleGates", "by_unit", "gate_gradients", "gate_parameters", "gate_places", "samples_interact"]


@dataclass(frozen=True)
class Place:
    """A module at whose output gates sit.

    Attributes:
        module: an affine norm, or a convolution or linear layer.
        channels: the module's channels that have a gate.
        gates: the number of each one's gate; gates count through all units in order.
    """

    module: nn.Module
    channels: Tensor
    gates: Tensor

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Weight and, where there is one, bias."""
        found: list[nn.Parameter | None] = [self.module.weight, self.module.bias]  # type: ignore[list-item]
        return [parameter for parameter in found if parameter is not None]


def gate_places(network: nn.Module, units: Sequence[Unit]) -> list[Place]:
    """Where the gates of ``units`` sit in ``network``."""
    places = []
    first = 0
    for unit in units:
        for member in unit.members:
            if member.side == "out" and member.module in unit.gates:
                module = network.get_submodule(member.module)
                pairs = [(c, first + gate) for gate, channels in enumerate(member.channels) for c in channels]
                channels, gates = torch.tensor(pairs, device=_weight(module).device).unbind(1)
                places.append(Place(module, channels, gates))
        first += unit.size
    return places


def gate_parameters(places: Sequence[Place]) -> list[nn.Parameter]:
    """The parameters whose gradients the gates are computed from, each once, in order."""
    return list(dict.fromkeys(parameter for place in places for parameter in place.parameters))


def gate_gradients(places: Sequence[Place], gradients: Mapping[nn.Parameter, Tensor | None], count: int) -> Tensor:
    """dL/dz of all ``count`` gates from dL/dp of their parameters: (G,) float64; no gradient counts as 0."""
    total: Tensor | None = None
    for place in places:
        summed = _per_channel(place, gradients)
        if total is None:
            total = torch.zeros(count, dtype=torch.float64, device=place.gates.device)
        if summed is not None:
            total.index_add_(0, place.gates, summed.double()[place.channels])
    return torch.zeros(count, dtype=torch.float64) if total is None else total


def by_unit(values: Tensor, units: Sequence[Unit]) -> dict[str, Tensor]:
    """The values (G,) of all gates as one (n,) float64 CPU tensor for each unit."""
    parts = torch.split(values.cpu().double(), [unit.size for unit in units])
    return {unit.name: part.clone() for unit, part in zip(units, parts, strict=True)}


def samples_interact(network: nn.Module) -> bool:
    """True when some batch norm uses the statistics of the batch."""
    norms = (module for module in network.modules() if isinstance(module, _BatchNorm))
    return any(norm.training or norm.running_mean is None for norm in norms)


class SampleGates:
    """The sum over samples of ``w_n dL/dz`` for each gate, from one backward pass; samples must not interact.

    Forward inside the ``with`` block, give `weigh` the samples' weights, go backward, and read `total`.

    Args:
        places: where the gates sit.
        count: how many gates there are.
    """

    def __init__(self, places: Sequence[Place], count: int) -> None:
        self._places = places
        self._weights: Tensor | None = None
        self._handles: list[RemovableHandle] = []
        self.total = torch.zeros(count, dtype=torch.float64, device=places[0].gates.device if places else None)

    def weigh(self, weights: Tensor) -> None:
        """Set the weight w (B,) of each sample, before the backward pass."""
        self._weights = weights.detach()

    def __enter__(self) -> "SampleGates":
        for place in self._places:
            self._watch(place)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _watch(self, place: Place) -> None:
        """Hook the place's output. What multiplies its gradient must outlive in-place changes of the output: for a
        norm that is its input, which its own backward pass needs unchanged too; else a copy."""
        module = place.module
        if not isinstance(module, _BatchNorm):
            self._handles.append(module.register_forward_hook(lambda _, __, out: self._listen(place, out, out.clone())))
            return
        inputs: list[Tensor] = []

        def before(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            inputs.append(args[0].detach())

        self._handles.append(module.register_forward_pre_hook(before))
        if isinstance(module, BatchNormAct2d):  # its activation is inside: the norm's own output is what drop takes
            drop = module.drop.register_forward_pre_hook(lambda _, args: self._listen(place, args[0], inputs.pop()))
            self._handles.append(drop)
        else:
            self._handles.append(
                module.register_forward_hook(lambda _, __, out: self._listen(place, out, inputs.pop()))
            )

    def _listen(self, place: Place, output: Tensor, factor: Tensor) -> None:
        factor = factor.detach()
        output.register_hook(  # type: ignore[no-untyped-call]
            lambda gradient: self._add(place, gradient, factor)
        )

    def _add(self, place: Place, gradient: Tensor, factor: Tensor) -> None:
        assert self._weights is not None, "weigh() comes before the backward pass"
        flat = gradient.flatten(2) if gradient.ndim > 2 else gradient.unsqueeze(2)
        flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
        products = torch.linalg.vecdot(flat, factor.reshape(flat.shape).to(flat.dtype)).double()
        weights = self._weights.double()
        summed = weights @ products
        module = place.module
        if isinstance(module, _BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            scale = module.weight.double() / (module.running_var.double() + module.eps).sqrt()
            shift = module.bias.double() - module.running_mean.double() * scale
            summed = scale * summed + shift * (weights @ flat.sum(2).double())
        self.total.index_add_(0, place.gates, summed.detach()[place.channels])


def _weight(module: nn.Module) -> Tensor:
    return module.weight  # type: ignore[return-value]


def _per_channel(place: Place, gradients: Mapping[nn.Parameter, Tensor | None]) -> Tensor | None:
    """The sum of p dL/dp over the parameters of each channel of the place's module; None when none has a gradient."""
    total: Tensor | None = None
    for parameter in place.parameters:
        gradient = gradients.get(parameter)
        if gradient is None:
            continue
        product = parameter.detach() * gradient
        if product.ndim > 1:
            axis = 1 if isinstance(place.module, _ConvTransposeNd) else 0
            product = product.sum([other for other in range(product.ndim) if other != axis])
        total = product if total is None else total + product
    return total
