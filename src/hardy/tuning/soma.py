"""SoMA: trains the minor singular components of the encoder's linear layers; the principal part is frozen.

    W = U S V^T        B = U_r sqrt(S_r)        A = sqrt(S_r) V_r^T        of the ``rank`` smallest singular values
    y = (W - B_0 A_0) x + B A x + b             A_0, B_0: A and B at the start; A, B and b are trained

The singular value decomposition is complete and in float64. Layers that are stored as one, such as query, key and
value, are decomposed separately. Biases b that attention stores apart from their layer are trained too. The first
layers are frozen: a third by default, like blocks 0 to 7 of 24. At the start the network computes the same as before. W
keeps its bits. A_0 and B_0 are stored with the trained weights, because another machine may find other singular
vectors. Merging is exact: ``W - B_0 A_0 + B A``.

Source: Yun, Chae, Lee and Ro, "SoMA: singular value decomposed minor components adaptation for domain generalizable
representation learning", CVPR 2025.
"""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.ops.around import Around
from hardy.tuning._layers import (
    Layer,
    check_rank,
    check_share,
    factors,
    is_bias,
    last_of,
    layers_of,
    product,
    replace,
    unwrap,
)
from hardy.tuning.base import Tuner, freeze_encoder

__all__ = ["SoMA"]


class SoMA(Tuner):
    """For encoders with linear layers, or 1x1 convolutions.

    Args:
        rank: the number of singular values that are trained in each layer; at most the width of the narrowest layer.
        frozen_share: the share of the layers, from the first, that stay frozen, in [0, 1); rounded.
        pointwise: also 1x1 convolutions, as convolutional encoders need.

    Raises:
        InputError: for a share outside [0, 1).
    """

    def __init__(self, *, rank: int = 16, frozen_share: float = 0.3333, pointwise: bool = False) -> None:
        check_share(frozen_share)
        self.rank, self.frozen_share, self.pointwise = rank, frozen_share, pointwise

    def attach(self, network: Network) -> None:
        """See `Tuner.attach`."""
        self._insert(network, _split)

    def attach_unfilled(self, network: Network) -> None:
        """See `Tuner.attach_unfilled`; no layer is decomposed."""
        self._insert(network, _unsplit)

    def _insert(self, network: Network, split: "_Split") -> None:
        """Freeze the encoder and put factors beside its layers, in place."""
        found = last_of(layers_of(network, pointwise=self.pointwise), self.frozen_share)
        parts = {name: _stored_as_one(network, name, layer) for name, layer in found.items()}
        check_rank(found, self.rank)
        for name, count in parts.items():
            wide = len(found[name].weight) // count
            if self.rank > wide:
                raise InputError(f"tuner.rank is {self.rank}, but each part of {name} is {wide} channels wide")
        freeze_encoder(network)
        for name, layer in found.items():
            for bias in _biases_apart(network, name, layer, parts[name]):
                bias.requires_grad_(True)
        replace(network, {layer: _Minor(layer, self.rank, parts[name], split) for name, layer in found.items()})

    def trained(self, network: Network) -> frozenset[str]:
        """See `Tuner.trained`; also A_0 and B_0, because they must be stored."""
        starts = {
            entry
            for name, module in network.named_modules()
            if isinstance(module, _Minor)
            for part in ("start_down", "start_up")
            for entry in module.get_submodule(part).state_dict(prefix=f"{name}.{part}.")
        }
        return super().trained(network) | starts

    def merge(self, network: Network) -> None:
        """See `Tuner.merge`."""
        unwrap(network, _Minor)


def _stored_as_one(network: Network, name: str, layer: Layer) -> int:
    """The number of layers that are stored as one in ``layer``: query, key and value, or the halves of a gated layer.

    It is 3 or 2 if a sibling layer reads a third or a half of its outputs and none reads all of them, else 1.
    """
    parent = network.get_submodule(name.rpartition(".")[0])
    beside = {other.in_features for other in parent.children() if isinstance(other, nn.Linear) and other is not layer}
    outputs = len(layer.weight)
    if isinstance(layer, nn.Linear) and outputs not in beside:
        return next((count for count in (3, 2) if outputs % count == 0 and outputs // count in beside), 1)
    return 1


def _biases_apart(network: Network, name: str, layer: Layer, parts: int) -> Iterator[nn.Parameter]:
    """The biases of the ``parts`` of ``layer`` that its parent stores, such as ``q_bias``; none if it has a bias."""
    if layer.bias is None:
        parent = network.get_submodule(name.rpartition(".")[0])
        for own, value in parent.named_parameters(recurse=False):
            if is_bias(parent, own) and len(value) * parts == len(layer.weight):
                yield value


_Split = Callable[[Tensor, Layer, int], tuple[Layer, Layer]]


class _Minor(Around):
    """``layer(x)`` plus, for the rows of each part, ``up(down(x)) - start_up(start_down(x))``."""

    def __init__(self, layer: Layer, rank: int, parts: int, split: _Split) -> None:
        super().__init__(layer)
        rows = layer.weight.detach().chunk(parts)
        made = [split(part, layer, rank) for part in rows]
        self.start_down, self.start_up = (nn.ModuleList(each).requires_grad_(False) for each in zip(*made, strict=True))
        self.down, self.up = copy.deepcopy(self.start_down), copy.deepcopy(self.start_up)
        for trained in (self.down, self.up):
            trained.requires_grad_(True)
        if layer.bias is not None:
            layer.bias.requires_grad_(True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        pairs = zip(self.down, self.up, self.start_down, self.start_up, strict=True)
        added = [up(down(x)) - start_up(start_down(x)) for down, up, start_down, start_up in pairs]
        return out + torch.cat(added, dim=-1 if isinstance(self.layer, nn.Linear) else 1)

    def effective(self) -> tuple[Tensor, Tensor | None]:
        """See `Around.effective`."""
        pairs = zip(self.down, self.up, self.start_down, self.start_up, strict=True)
        added = [product(up, down) - product(start_up, start_down) for down, up, start_down, start_up in pairs]
        return self.layer.weight + torch.cat(added), self.layer.bias


def _split(part: Tensor, layer: Layer, rank: int) -> tuple[Layer, Layer]:
    """Layers A and B of the ``rank`` smallest singular values of the rows ``part`` of the weight of ``layer``."""
    down, up = _unsplit(part, layer, rank)
    left, values, right = torch.linalg.svd(part.flatten(1).double(), full_matrices=False)
    roots = values[-rank:].sqrt()
    with torch.no_grad():
        down.weight.copy_((roots[:, None] * right[-rank:]).reshape(down.weight.shape))
        up.weight.copy_((left[:, -rank:] * roots).reshape(up.weight.shape))
    return down, up


def _unsplit(part: Tensor, layer: Layer, rank: int) -> tuple[Layer, Layer]:
    """Layers of the shapes of `_split`, for weights that are loaded later."""
    return factors(layer, rank, outputs=len(part))
