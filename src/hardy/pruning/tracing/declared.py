"""What the code of known modules fixes and no trace can see: heads, parts, and the attributes that tell a size.

What belongs to a head is in `hardy.pruning.heads`; here are the width of a residual stream and of the parts that a map
is split into, where a module keeps them as a number, and the attributes that follow what is cut.
"""

from timm.layers import ConvMlp, GatedMlp, GlobalResponseNormMlp, GluMlp, Mlp, PatchEmbed, SelectiveKernel, SwiGLU
from timm.models.efficientformer import ConvMlpWithNorm as PlainConvMlpWithNorm
from timm.models.efficientformer_v2 import ConvMlpWithNorm
from timm.models.metaformer import Scale
from timm.models.res2net import Bottle2neck
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionTransformer
from torchvision.ops.misc import MLP

from hardy.blocks.conv_ffn import ConvFFN
from hardy.blocks.mix_ffn import MixFFN
from hardy.blocks.parts import Parts
from hardy.pruning.heads import Tie, follow_heads, heads_of
from hardy.pruning.narrow import narrow

__all__ = ["DECLARED", "FEED_FORWARD", "PARTED", "declared_width", "follow", "parts_of", "streams_of"]

DECLARED = ("heads", "embedding", "parts")
"""Sides that modules have by declaration."""

FEED_FORWARD = (
    Mlp, GluMlp, SwiGLU, GatedMlp, ConvMlp, GlobalResponseNormMlp, ConvMlpWithNorm, PlainConvMlpWithNorm, MLP,
    MixFFN, ConvFFN,
)  # fmt: skip
"""Blocks that widen, act and narrow: the width between is a hidden width."""

PARTED = (Parts,)
"""Blocks that cut a map along its channels by widths that they read from other maps."""


def streams_of(module: nn.Module) -> tuple[Tie, ...]:
    """What in ``module`` follows the width of its residual stream besides its layers, tied to what makes it."""
    if isinstance(module, VisionTransformer) and isinstance(module.patch_embed, PatchEmbed):
        width, maker = module.embed_dim, "patch_embed.proj"
    elif isinstance(module, TorchvisionTransformer) and isinstance(module.conv_proj, nn.Conv2d):
        width, maker = module.hidden_dim, "conv_proj"
    else:
        return ()
    channels = tuple((channel,) for channel in range(width))
    return ("", "embedding", channels), (maker, "out", channels)


def declared_width(module: nn.Module, side: str) -> int:
    """How many channels a declared side has; 0 when ``module`` has no such side."""
    if side in ("embedding", "parts"):
        ties = streams_of(module) if side == "embedding" else parts_of(module)
        return len(ties[0][2]) if ties else 0
    found = heads_of(module)
    return found.count if found else 0


def parts_of(module: nn.Module) -> tuple[Tie, ...]:
    """What cuts a map along its channels by a number that ``module`` holds: the channels of one part, tied to a layer
    that takes it."""
    if isinstance(module, Bottle2neck):
        width, taker = module.width, "convs.0"
    elif isinstance(module, SelectiveKernel) and module.split_input:
        width, taker = module.in_channels // module.num_paths, "paths.0.conv"
    else:
        return ()
    channels = tuple((channel,) for channel in range(width))
    return ("", "parts", channels), (taker, "in", channels)


def follow(module: nn.Module, side: str, count: int) -> None:
    """Set the attributes of ``module`` that tell its size, after a side was cut to ``count`` channels, in place."""
    if isinstance(module, Scale):
        module.shape = (count, *module.shape[1:])
    if side == "embedding" and isinstance(module, VisionTransformer):
        module.embed_dim = module.num_features = module.head_hidden_size = count
    if side == "embedding" and isinstance(module, TorchvisionTransformer):
        module.hidden_dim = count
    if side == "parts" and isinstance(module, Bottle2neck):
        module.width = count
    if side == "parts" and isinstance(module, SelectiveKernel):
        module.in_channels = count * module.num_paths
    if isinstance(module, nn.MultiheadAttention):
        narrow(module, side, count)
    elif side == "heads":
        follow_heads(module, count)
