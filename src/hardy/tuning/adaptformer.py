"""AdaptFormer: trains a bottleneck beside each MLP of the encoder, which is frozen.

    y = MLP(h) + scale * (W_up ReLU(W_down h + b_down) + b_up)          h: the input of the MLP, after its norm

W_up and the biases are zero at the start, so the network computes the same as before. MLPs are found by structure: a
module with a linear layer to another width and a linear layer back to the first width. If a layer scale follows the
MLP, it also scales the bottleneck. The bottleneck is not linear, so it cannot be merged.

Source: Chen, Ge, Tong, Wang, Song, Wang and Luo, "AdaptFormer: adapting vision transformers for scalable visual
recognition", NeurIPS 2022; the initial values are those of the authors' code.
"""

import math
from itertools import permutations
from typing import Any

from torch import Tensor, nn

from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.tuning._layers import is_plain, replace, within
from hardy.tuning.base import Tuner, freeze_encoder

__all__ = ["AdaptFormer"]


class AdaptFormer(Tuner):
    """For encoders with MLPs of linear layers: transformers, MLP-Mixers, ConvNeXt.

    Args:
        width: the number of channels of the bottlenecks.
        scale: the factor on the outputs of the bottlenecks.

    Raises:
        InputError: for a width below 1.
    """

    def __init__(self, *, width: int = 64, scale: float = 0.1) -> None:
        if width < 1:
            raise InputError(f"tuner.width: {width} is out of range; it must be 1 or more")
        self.width, self.scale = width, scale

    def attach(self, network: Network) -> None:
        """See `Tuner.attach`."""
        found = {module: wide for _, module in within(network) if (wide := _width_of_mlp(module))}
        if not found:
            raise InputError(
                f"tuner: the encoder of {type(network).__name__} has no MLP of linear layers; use a transformer, or "
                "another tuner"
            )
        freeze_encoder(network)
        made: dict[nn.Module, nn.Module] = {}
        for module, wide in found.items():
            like = next(module.parameters())
            made[module] = _Beside(module, wide, self.width, self.scale).to(like.device, like.dtype)
        replace(network, made)


def _width_of_mlp(module: nn.Module) -> int | None:
    """The number of input and output channels of ``module`` if it is an MLP; None if it is not.

    An MLP holds a linear layer to a hidden width (twice that width in a gated MLP) and a linear layer back."""
    layers = [child for child in module.children() if isinstance(child, nn.Linear) and is_plain(child)]
    for first, last in permutations(layers, 2):
        hidden, wide = last.in_features, first.in_features
        if last.out_features == wide != hidden and first.out_features in (hidden, 2 * hidden):
            return wide
    return None


class _Beside(nn.Module):
    """``mlp(x) + scale * up(relu(down(x)))``, over the last axis.

    Args:
        mlp: the original MLP.
        wide: the number of its input channels.
        width: the number of channels of the bottleneck.
        scale: of the bottleneck's output.
    """

    def __init__(self, mlp: nn.Module, wide: int, width: int, scale: float) -> None:
        super().__init__()
        self.mlp, self.scale = mlp, scale
        self.down, self.up = nn.Linear(wide, width), nn.Linear(width, wide)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for value in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(value)

    def forward(self, x: Tensor, *args: Any, **given: Any) -> Tensor:
        out: Tensor = self.mlp(x, *args, **given) + self.scale * self.up(self.down(x).relu())
        return out
