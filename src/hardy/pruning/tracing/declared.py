"""Couplings that the code of a module fixes and a trace cannot find: heads, parts, and attributes that hold a size.

Hardy's blocks and registered classes declare these themselves (`hardy.ties`); this file declares them for classes of
timm and torchvision. The rows and columns of heads are in `hardy.pruning.heads`. This file has the widths that a module
stores as numbers (of a residual stream, of the parts of a split map), and the attributes to set after a cut.
"""

from typing import Literal

from timm.layers import ConvMlp, GatedMlp, GlobalResponseNormMlp, GluMlp, Mlp, PatchEmbed, SelectiveKernel, SwiGLU
from timm.models.efficientformer import ConvMlpWithNorm as PlainConvMlpWithNorm
from timm.models.efficientformer_v2 import ConvMlpWithNorm
from timm.models.metaformer import Scale
from timm.models.res2net import Bottle2neck
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionTransformer
from torchvision.ops.misc import MLP

from hardy.errors import InputError, nearest
from hardy.ops.around import inside
from hardy.ops.axes import side_width
from hardy.pruning.heads import follow_heads, heads_of
from hardy.pruning.narrow import narrow
from hardy.ties import Coupling, couplings_of, follow_cut

__all__ = ["DECLARED", "check", "declared", "declared_width", "follow"]

DECLARED = ("heads", "embedding", "parts")
"""Sides that a module has only by declaration."""

_FEED_FORWARD = (
    Mlp,
    GluMlp,
    SwiGLU,
    GatedMlp,
    ConvMlp,
    GlobalResponseNormMlp,
    ConvMlpWithNorm,
    PlainConvMlpWithNorm,
    MLP,
)
"""Feed-forward blocks, with a hidden width between their two layers."""


def declared(module: nn.Module) -> tuple[Coupling, ...]:
    """The couplings of ``module``, as its class declares or registers them (`hardy.ties`), else as declared here."""
    couplings = couplings_of(module)
    if couplings is not None:
        return couplings
    heads = heads_of(module)
    found = [] if heads is None else [heads]
    if isinstance(module, _FEED_FORWARD):
        found.append(Coupling("hidden"))
    if isinstance(module, VisionTransformer) and isinstance(module.patch_embed, PatchEmbed):
        found.append(_tied("embedding", module.embed_dim, "patch_embed.proj", "out"))
    elif isinstance(module, TorchvisionTransformer) and isinstance(module.conv_proj, nn.Conv2d):
        found.append(_tied("embedding", module.hidden_dim, "conv_proj", "out"))
    elif isinstance(module, Bottle2neck):
        found.append(_tied("parts", module.width, "convs.0", "in"))
    elif isinstance(module, SelectiveKernel) and module.split_input:
        found.append(_tied("parts", module.in_channels // module.num_paths, "paths.0.conv", "in"))
    return tuple(found)


def check(coupling: Coupling, module: nn.Module) -> None:
    """Check a coupling that a class declares or registers against its module.

    Raises:
        InputError: for a layer that the module does not have, or channels that the layer does not have.
    """
    if couplings_of(module) is None:
        return
    layers = dict(module.named_modules())
    where = f"{type(module).__name__}: its coupling of {coupling.side}"
    named = [layer for layer, _, _ in coupling.ties] + ([coupling.gate] if coupling.side == "heads" else [])
    for layer in named:
        if layer not in layers:
            raise InputError(f"{where} names a layer {layer!r} that it does not have{nearest(layer, layers)}")
    for layer, side, channels in coupling.ties:
        most = max((row for rows in channels for row in rows), default=-1)
        count = side_width(inside(layers[layer]), side)
        if len(channels) != coupling.count or most >= count:
            raise InputError(
                f"{where} counts {coupling.count}, but gives {len(channels)} rows of channels up to {most} of "
                f"{layer!r} ({side}), which has {count}: give {coupling.count} rows of existing channels"
            )


def _tied(kind: Literal["embedding", "parts"], width: int, layer: str, side: str) -> Coupling:
    """A coupling of ``width`` channels, one to one with the channels of a side of a layer."""
    return Coupling(kind, width, ((layer, side, tuple((channel,) for channel in range(width))),))


def declared_width(module: nn.Module, side: str) -> int:
    """The number of channels of a declared side; 0 if ``module`` has no such side."""
    return next((coupling.count for coupling in declared(module) if coupling.side == side), 0)


def follow(module: nn.Module, side: str, count: int) -> None:
    """After a cut of a side to ``count`` channels, set the attributes of ``module`` that hold its size, in place."""
    if couplings_of(module) is not None:
        follow_cut(module, side, count)
        return
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
