"""Trains low-rank products beside the convolutions and linear layers of a frozen encoder, and the decoder.

Source: Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang and Chen, "LoRA: low-rank adaptation of large language models",
ICLR 2022, section 4.1, equation 3.
"""

import torch
from torch import Tensor, nn

from hardy.networks.base import Network
from hardy.ops.around import Around
from hardy.tuning.base import Tuner, freeze_encoder

__all__ = ["LowRank"]


class _Beside(Around):
    """``layer(x) + up(down(x))``; ``up`` starts at zero."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, rank: int) -> None:
        super().__init__(layer)
        self.down: nn.Module
        self.up: nn.Module
        if isinstance(layer, nn.Linear):
            self.down = nn.Linear(layer.in_features, rank, bias=False)
            self.up = nn.Linear(rank, layer.out_features, bias=False)
        else:
            self.down = nn.Conv2d(
                layer.in_channels,
                rank,
                layer.kernel_size,
                layer.stride,
                layer.padding,
                layer.dilation,
                bias=False,
            )
            self.up = nn.Conv2d(rank, layer.out_channels, 1, bias=False)
        nn.init.zeros_(self.up.weight)
        self.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x) + self.up(self.down(x))
        return out

    def effective(self) -> tuple[Tensor, Tensor | None]:
        product = torch.tensordot(self.up.weight.flatten(1), self.down.weight, dims=1)
        return self.layer.weight + product, self.layer.bias


class LowRank(Tuner):
    """Inserts modules, and can merge them.

    Args:
        rank: of the products.
    """

    def __init__(self, *, rank: int = 2) -> None:
        self.rank = rank

    def attach(self, network: Network) -> None:
        """See `Tuner.attach`."""
        freeze_encoder(network)
        for root in network.encoder():
            for parent in list(root.modules()):
                for name, layer in list(parent.named_children()):
                    plain = isinstance(layer, nn.Conv2d) and layer.groups == 1
                    if plain or isinstance(layer, nn.Linear):
                        setattr(parent, name, _Beside(layer, self.rank))

    def merge(self, network: Network) -> None:
        """See `Tuner.merge`."""
        for parent in list(network.modules()):
            for name, module in list(parent.named_children()):
                if isinstance(module, _Beside):
                    setattr(parent, name, module.merged())
