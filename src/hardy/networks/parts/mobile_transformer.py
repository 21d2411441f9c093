"""Shared by TopFormer and SeaFormer: stages of inverted residuals, and transformer blocks on maps.

Source: Zhang et al., "TopFormer", CVPR 2022, sections 3.1 and 3.2; Wan et al., "SeaFormer", ICLR 2023, section 3.1;
inverted residuals: Sandler et al., CVPR 2018; stochastic depth: Huang et al., ECCV 2016, equation 4.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from hardy.blocks.conv_attention import ConvAttention
from hardy.blocks.conv_ffn import ConvFFN
from hardy.blocks.inverted_residual import InvertedResidual
from hardy.blocks.squeeze_axial_attention import SqueezeAxialAttention
from hardy.networks.building.weights import initialise

__all__ = ["Layer", "convolutions", "draw", "transformer"]

Layer = tuple[int, int | None, int, int]
"""An inverted residual: kernel size, expansion (None omits the first layer), channels, stride."""


def convolutions(in_channels: int, layers: Sequence[Layer]) -> nn.Sequential:
    """A sequence of inverted residuals, from ``in_channels`` to the channels of the last."""
    found = []
    for kernel, expansion, channels, stride in layers:
        found.append(InvertedResidual(in_channels, channels, stride=stride, expansion=expansion, kernel=kernel))
        in_channels = channels
    return nn.Sequential(*found)


def transformer(
    depth: int, channels: int, ratio: int, drop_path: float, attention: Callable[[], nn.Module]
) -> nn.Sequential:
    """A sequence of blocks of attention and a feed-forward layer, (B, channels, h, w) to the same shape.

    Args:
        depth: number of blocks.
        channels: channels of the map.
        ratio: hidden channels of the feed-forward layer, as a multiple of ``channels``.
        drop_path: stochastic depth: share of images that skip the last block in training; it rises linearly from 0 at
            the first block.
        attention: builds the attention of one block.
    """
    rates = [drop_path * place / max(depth - 1, 1) for place in range(depth)]
    return nn.Sequential(*(_Block(attention(), ConvFFN(channels, ratio * channels), rate) for rate in rates))


def draw(network: nn.Module) -> None:
    """Initialise the layers of ``network`` at random, in place, so that its attention has no effect before training.

    No norm limits the sums of the blocks, which grow from block to block, and a softmax of large products amplifies
    rounding errors. So before training every transformer block computes the same as without its attention.
    """
    initialise(network)
    for module in network.modules():
        if isinstance(module, ConvAttention | SqueezeAxialAttention):
            module.silence()


class _Block(nn.Module):
    """``(B, C, h, w) -> (B, C, h, w)``: attention and a feed-forward layer, each added to its input."""

    def __init__(self, attention: nn.Module, feed_forward: nn.Module, drop_path: float) -> None:
        super().__init__()
        self.attention, self.feed_forward = attention, feed_forward
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attention(x))
        y: Tensor = x + self.drop_path(self.feed_forward(x))
        return y
