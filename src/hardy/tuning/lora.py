"""LoRA: trains a low-rank product beside each linear layer of the encoder's attention and MLPs, which are frozen.

    y = W x + b + (alpha / rank) B A x          A (rank, C_in) random, B (C_out, rank) zero at the start

The layers are found by structure, not by name: every linear layer in the encoder's blocks, and with ``pointwise`` every
1x1 convolution. ``targets`` limits them to attention, or to query, key and value, as the published settings for vision
foundation models do. With ``frozen_share`` the first layers are not tuned; then activations before the first tuned
layer are not kept for the backward pass. Merging is exact: ``W + (alpha / rank) B A``.

Source: Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang and Chen, "LoRA: low-rank adaptation of large language models",
ICLR 2022, section 4.1, equation 3; A is initialised as in the authors' code, like a linear layer.
"""

from typing import Literal

from torch import Tensor, nn

from hardy.errors import InputError, within
from hardy.networks.base import Network
from hardy.ops.around import Around
from hardy.tuning._layers import (
    Layer,
    attention_of,
    check_rank,
    check_share,
    factors,
    last_of,
    layers_of,
    product,
    replace,
    unwrap,
)
from hardy.tuning.base import Tuner, freeze_encoder

__all__ = ["LoRA"]


class LoRA(Tuner):
    """For encoders with linear layers, or 1x1 convolutions.

    Args:
        rank: of the products; at most the width of the narrowest layer.
        alpha: the products are multiplied by ``alpha / rank``.
        targets: which linear layers get a product: ``all``; ``attention``, that is query, key, value and output; or
            ``qkv``, without the output.
        pointwise: also 1x1 convolutions, as convolutional encoders need.
        frozen_share: the share of the layers, from the first, that get no product, in [0, 1); rounded.

    Raises:
        InputError: for a negative alpha, a share outside [0, 1), and ``pointwise`` with other ``targets`` than all.
    """

    def __init__(
        self,
        *,
        rank: int = 8,
        alpha: float = 8.0,
        targets: Literal["all", "attention", "qkv"] = "all",
        pointwise: bool = False,
        frozen_share: float = 0.0,
    ) -> None:
        within("tuner.alpha", alpha, 0)
        check_share(frozen_share)
        if pointwise and targets != "all":
            raise InputError(f"tuner.pointwise: it has no effect with tuner.targets: {targets}; leave one of them out")
        self.rank, self.alpha, self.targets, self.pointwise = rank, alpha, targets, pointwise
        self.frozen_share = frozen_share

    def attach(self, network: Network) -> None:
        """See `Tuner.attach`."""
        found = layers_of(network, pointwise=self.pointwise)
        if self.targets != "all":
            found = attention_of(network, found, output=self.targets == "attention")
        found = last_of(found, self.frozen_share)
        check_rank(found, self.rank)
        freeze_encoder(network)
        scale = self.alpha / self.rank
        replace(network, {layer: _LowRank(layer, self.rank, scale) for layer in found.values()})

    def merge(self, network: Network) -> None:
        """See `Tuner.merge`."""
        unwrap(network, _LowRank)


class _LowRank(Around):
    """``layer(x) + scale * up(down(x))``; ``up`` starts at zero."""

    def __init__(self, layer: Layer, rank: int, scale: float) -> None:
        super().__init__(layer)
        self.scale = scale
        self.down, self.up = factors(layer, rank)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x) + self.scale * self.up(self.down(x))
        return out

    def effective(self) -> tuple[Tensor, Tensor | None]:
        """See `Around.effective`."""
        return self.layer.weight + self.scale * product(self.up, self.down), self.layer.bias
