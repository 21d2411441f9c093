"""Mix transformers B0 to B5, the encoders of SegFormer: four stages of efficient attention, without position encoding.

A stage begins with an overlapping patch embedding (7x7 with stride 4, then 3x3 with stride 2) and ends with a layer
norm. Heads 1, 2, 5, 8 and reductions 8, 4, 2, 1; hidden layers are four times as wide as their stage, which gives the
published counts of parameters.

Source: Xie et al., "SegFormer: simple and efficient design for semantic segmentation with transformers", NeurIPS 2021,
section 3.1; stochastic depth: Huang et al., "Deep networks with stochastic depth", ECCV 2016, equation 4.
"""

import math
from collections.abc import Collection
from itertools import count

from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from hardy.blocks.efficient_attention import EfficientAttention
from hardy.blocks.mix_ffn import MixFFN
from hardy.errors import InputError
from hardy.networks._mit_names import in_our_names
from hardy.networks._weights import fill, is_file, read_weights

__all__ = ["VARIANTS", "MixTransformer", "load_mit"]

VARIANTS = {
    "mit_b0": ((32, 64, 160, 256), (2, 2, 2, 2)),
    "mit_b1": ((64, 128, 320, 512), (2, 2, 2, 2)),
    "mit_b2": ((64, 128, 320, 512), (3, 4, 6, 3)),
    "mit_b3": ((64, 128, 320, 512), (3, 4, 18, 3)),
    "mit_b4": ((64, 128, 320, 512), (3, 8, 27, 3)),
    "mit_b5": ((64, 128, 320, 512), (3, 6, 40, 3)),
}
"""Name -> channels and number of blocks of each stage."""

HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
EXPANSION = 4


class MixTransformer(nn.ModuleDict):
    """Normalised images (B, 3, H, W) -> maps (B, C, h, w) at strides 4, 8, 16, 32; H and W at least 32, of any size.

    Its parts, by the names of ImageNet checkpoints: ``patch_embed1``, ``block1``, ``norm1`` and so on to 4.

    Attributes:
        channels: width of each map as built.
        strides: of each map.
        multiple: 1: sides of the images need not be multiples of anything.

    Args:
        name: one of `VARIANTS`.
        drop_path: share of images for which the last block is skipped while training; it rises to it linearly from 0 at
            the first block.
    """

    def __init__(self, name: str, *, drop_path: float = 0.1) -> None:
        widths, depths = VARIANTS[name]
        super().__init__()
        self.channels, self.strides, self.multiple = list(widths), [4, 8, 16, 32], 1
        rates = (drop_path * place / (sum(depths) - 1) for place in count())
        before, shapes = 3, zip(widths, depths, HEADS, REDUCTIONS, strict=True)
        for stage, (width, depth, heads, reduction) in enumerate(shapes, start=1):
            self[f"patch_embed{stage}"] = _PatchEmbedding(before, width, *((7, 4) if stage == 1 else (3, 2)))
            blocks = (_Block(width, heads, reduction, next(rates)) for _ in range(depth))
            self[f"block{stage}"] = nn.Sequential(*blocks)
            self[f"norm{stage}"] = nn.LayerNorm(width, eps=1e-6)
            before = width
        _initialise(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Shapes as above."""
        x, maps = images, []
        for stage in range(1, len(self.channels) + 1):
            tokens = self[f"block{stage}"](self[f"patch_embed{stage}"](x))
            x = self[f"norm{stage}"](tokens).permute(0, 3, 1, 2)
            maps.append(x)
        return maps


class _PatchEmbedding(nn.Module):
    """``(B, C_in, H, W) -> (B, ceil(H / stride), ceil(W / stride), C_out)``, channels last; the patches overlap."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(out_channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return normed


class _Block(nn.Module):
    """``(B, h, w, C) -> (B, h, w, C)``: attention and Mix-FFN, each of the normed map and added to it."""

    def __init__(self, channels: int, heads: int, reduction: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = EfficientAttention(channels, heads, reduction=reduction)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = MixFFN(channels, EXPANSION * channels)
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        y: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return y


def load_mit(name: str, weights: str | None, *, drop_path: float = 0.1) -> MixTransformer:
    """The mix transformer ``name`` with ``weights``.

    Args:
        name: one of `VARIANTS`.
        weights: None for a random draw; a file under the names of the authors' checkpoints or of transformers', with
            or without a classifier or a segmentation head, which is left out.
        drop_path: see `MixTransformer`.

    Raises:
        InputError: for anything but a file, or one that does not fit.
    """
    encoder = MixTransformer(name, drop_path=drop_path)
    if weights is not None:
        if not is_file(weights):
            raise InputError(f"weights {weights!r}: timm has none of {name}; give a weights file or None")
        fill(encoder, in_our_names(read_weights(weights)), weights, may_be_left=_heads)
    return encoder


def _heads(names: Collection[str]) -> list[str]:
    return [name for name in names if name.startswith(("head.", "classifier.", "decode_head."))]


def _initialise(encoder: nn.Module) -> None:
    """Draw all layers in place: linear ones with a deviation of 0.02, cut at 2; convolutions as He et al., ICCV 2015,
    eq. 14, by the fan-out within a group; every bias 0 and every norm the identity."""
    for layer in encoder.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
        elif isinstance(layer, nn.Conv2d):
            fan_out = layer.weight.shape[0] // layer.groups * layer.weight[0, 0].numel()
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
