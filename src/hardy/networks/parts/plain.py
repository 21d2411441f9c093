"""Options of timm's plain transformers: the blocks whose outputs are maps, the final norm, and the size of the patches.

For another patch size, the kernel of the patch embedding (p, p) is resized to it, and the table of positions to the
grid of the same image with these patches, both bicubic. For example, from 14 to 16 pixels at 518x518 the 37x37
positions become 32x32. The rows of class and register tokens do not change.

Source: Wei et al., "Stronger, fewer, & superior: harnessing vision foundation models for domain generalized semantic
segmentation", CVPR 2024, whose release converts DINOv2 in this way and takes maps without the final norm.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from timm.layers import PatchEmbed
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.errors import InputError, within
from hardy.registry import Method, Option

__all__ = ["Plain", "checked", "repatch"]

_OPTIONS = (
    Option("blocks", "Sequence[int] | None", None),
    Option("final_norm", "bool", True),
    Option("patch", "int | None", None),
)


class Plain(NamedTuple):
    """The options of a plain transformer.

    Attributes:
        blocks: the blocks whose outputs are the maps, from 0, ascending; None for four, spaced evenly over the depth.
        final_norm: whether every map goes through the norm that follows the last block.
        patch: side of the patches in pixels; None for that of the weights.
    """

    blocks: tuple[int, ...] | None = None
    final_norm: bool = True
    patch: int | None = None

    def refuse(self, name: str) -> None:
        """Check that no option is given for encoder ``name``, which is not a plain transformer.

        Raises:
            InputError: naming the option.
        """
        if self != Plain():
            given = next(key for key, value in self._asdict().items() if value != getattr(Plain(), key))
            raise InputError(f"vit.{given}: encoder {name!r} is not a plain transformer; leave vit out")

    def places(self, name: str, count: int) -> list[int] | None:
        """``blocks``, checked for encoder ``name`` with ``count`` blocks; None if it is None.

        Raises:
            InputError: unless they are ascending and in range.
        """
        if self.blocks is None:
            return None
        found = list(self.blocks)
        if not found or found != sorted(set(found)) or found[0] < 0 or found[-1] >= count:
            raise InputError(f"vit.blocks {found}: give places from 0 to {count - 1}, ascending: {name!r} has {count}")
        return found


def checked(options: Mapping[str, Any] | None) -> Plain:
    """The options as given in a recipe.

    Raises:
        InputError: for an unknown option or a wrong value.
    """
    values = Method("vit", "vit", "", "", _OPTIONS).check(options or {})
    if values["patch"] is not None:
        within("vit.patch", values["patch"], 1, 256)
    blocks: Sequence[int] | None = values["blocks"]
    return Plain(None if blocks is None else tuple(blocks), values["final_norm"], values["patch"])


@torch.no_grad()
def repatch(model: Any, name: str, patch: int) -> None:
    """Resize the patches of ``model``, encoder ``name`` of timm, to ``patch`` x ``patch`` pixels, in place.

    Raises:
        InputError: for a model whose patches cannot be resized, or whose image is smaller than a patch.
    """
    embed = model.patch_embed if isinstance(model, VisionTransformer | Eva) else None
    if not isinstance(embed, PatchEmbed) or embed.grid_size is None:
        raise InputError(f"vit.patch: the patches of encoder {name!r} cannot be resized; leave it out")
    old, side = embed.grid_size, embed.img_size
    new = (side[0] // patch, side[1] // patch)
    if min(new) < 1:
        raise InputError(
            f"vit.patch {patch}: encoder {name!r} is made for images of {side[0]}x{side[1]}; take a smaller patch"
        )
    embed.proj = _resized_kernel(embed.proj, patch)
    embed.patch_size, embed.grid_size, embed.num_patches = (patch, patch), new, new[0] * new[1]
    embed.img_size = (new[0] * patch, new[1] * patch)
    if model.pos_embed is not None:
        prefix = 0 if model.no_embed_class else model.num_prefix_tokens
        positions = model.pos_embed
        grid = positions[:, prefix:].transpose(1, 2).unflatten(2, old)
        table = torch.cat([positions[:, :prefix], _bicubic(grid, new).flatten(2).transpose(1, 2)], dim=1)
        model.pos_embed = nn.Parameter(table, requires_grad=positions.requires_grad)
    for info in model.feature_info:
        info["reduction"] = patch


def _resized_kernel(conv: nn.Conv2d, patch: int) -> nn.Conv2d:
    weight = _bicubic(conv.weight, (patch, patch))
    outputs, inputs = weight.shape[:2]
    made = nn.Conv2d(inputs, outputs, patch, patch, bias=conv.bias is not None, device="meta")
    made.weight, made.bias = nn.Parameter(weight, requires_grad=conv.weight.requires_grad), conv.bias
    return made


def _bicubic(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps.float(), size=size, mode="bicubic", align_corners=False).to(maps.dtype)
