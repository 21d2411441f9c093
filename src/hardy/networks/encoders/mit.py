"""Mix transformers B0 to B5, the encoders of SegFormer: four stages of efficient attention, without position encoding.

A stage begins with an overlapping patch embedding (7x7 with stride 4, then 3x3 with stride 2) and ends with a layer
norm. The stages have 1, 2, 5, 8 heads and reductions 8, 4, 2, 1; hidden layers have four times the channels of their
stage. The parameter counts are the published ones.

Source: Xie et al., "SegFormer: simple and efficient design for semantic segmentation with transformers", NeurIPS 2021,
section 3.1; stochastic depth: Huang et al., "Deep networks with stochastic depth", ECCV 2016, equation 4.
"""

import math
from collections.abc import Mapping
from functools import partial
from itertools import count

from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from hardy.blocks.efficient_attention import EfficientAttention
from hardy.blocks.mix_ffn import MixFFN
from hardy.networks.encoders.base import Encoder
from hardy.networks.parts.mit_names import in_our_names

__all__ = ["VARIANTS", "MixTransformer"]

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


class MixTransformer(Encoder):
    """Maps at strides 4, 8, 16, 32, each after its layer norm.

    Its parts are named as in ImageNet checkpoints: ``patch_embed1``, ``block1``, ``norm1`` and so on to 4. Weights
    come from a file with the names of the authors' checkpoints or of the transformers library.

    Args:
        name: ``mit_b0`` .. ``mit_b5``.
        drop_path: stochastic depth: share of images that skip the last block in training; it rises linearly from 0 at
            the first block.
        eps: epsilon of all layer norms except those of ``embedding_eps``.
        embedding_eps: epsilon of the layer norms of patch embeddings and of reduced keys and values.
    """

    variants = tuple(VARIANTS)
    outside = ("head.", "classifier.", "decode_head.")

    def __init__(self, name: str, *, drop_path: float = 0.1, eps: float = 1e-6, embedding_eps: float = 1e-6) -> None:
        widths, depths = VARIANTS[name]
        super().__init__(name, widths)
        rates = (drop_path * place / (sum(depths) - 1) for place in count())
        before, shapes = 3, zip(widths, depths, HEADS, REDUCTIONS, strict=True)
        for stage, (width, depth, heads, reduction) in enumerate(shapes, start=1):
            embedding = _PatchEmbedding(before, width, *((7, 4) if stage == 1 else (3, 2)), embedding_eps)
            attend = partial(EfficientAttention, width, heads, reduction=reduction, eps=embedding_eps)
            blocks = (_Block(width, attend(), next(rates), eps) for _ in range(depth))
            self.add_module(f"patch_embed{stage}", embedding)
            self.add_module(f"block{stage}", nn.Sequential(*blocks))
            self.add_module(f"norm{stage}", nn.LayerNorm(width, eps=eps))
            before = width
        _initialise(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Shapes as above."""
        x, maps = images, []
        for stage in range(1, len(self.channels) + 1):
            for part in ("patch_embed", "block", "norm"):
                x = self.get_submodule(f"{part}{stage}")(x)
            x = x.permute(0, 3, 1, 2)
            maps.append(x)
        return maps

    def renamed(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Encoder.renamed`."""
        return in_our_names(weights)


class _PatchEmbedding(nn.Module):
    """``(B, C_in, H, W) -> (B, ceil(H / stride), ceil(W / stride), C_out)``, channels last; the patches overlap."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, eps: float) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(out_channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return normed


class _Block(nn.Module):
    """``(B, h, w, C) -> (B, h, w, C)``: attention and Mix-FFN, each on the normed map and added to the map."""

    def __init__(self, channels: int, attention: EfficientAttention, drop_path: float, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=eps)
        self.attn = attention
        self.norm2 = nn.LayerNorm(channels, eps=eps)
        self.mlp = MixFFN(channels, EXPANSION * channels)
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        y: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return y


def _initialise(encoder: nn.Module) -> None:
    """Initialise all layers at random, in place: linear ones with a standard deviation of 0.02, truncated at 2;
    convolutions as He et al., ICCV 2015, eq. 14, with the fan-out of one group; biases 0 and norms the identity."""
    for layer in encoder.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
        elif isinstance(layer, nn.Conv2d):
            fan_out = layer.weight.shape[0] // layer.groups * layer.weight[0, 0].numel()
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
