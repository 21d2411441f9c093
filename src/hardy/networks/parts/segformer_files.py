"""Shared by the published SegFormers: the variant of a file, and conversions of attention and head weights."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hardy.errors import InputError
from hardy.networks.encoders.mit import VARIANTS

__all__ = ["depths", "fused_from_coarse", "joined", "squeezed", "variant"]


def variant(widths: list[int], depths: list[int]) -> str:
    """The variant, ``"b0"`` to ``"b5"``, whose encoder has ``widths`` channels and ``depths`` blocks by stage.

    Raises:
        InputError: if there is none.
    """
    for name, (channels, blocks) in VARIANTS.items():
        if (list(channels), list(blocks)) == (widths, depths):
            return name.removeprefix("mit_")
    raise InputError(f"a mix transformer of {widths} channels and {depths} blocks; Hardy has B0 to B5")


def depths(names: Mapping[str, Tensor], pattern: str) -> list[int]:
    """The number of blocks of each of the four stages in ``names``; ``pattern`` is the text before a block's number,
    with ``{}`` for the stage, counted from 0."""
    return [
        len({name.removeprefix(start).split(".")[0] for name in names if name.startswith(start)})
        for start in (pattern.format(stage) for stage in range(4))
    ]


def fused_from_coarse(weight: Tensor) -> Tensor:
    """A fusion's weight (C, 4 C, 1, 1) for coarsest-first maps, reordered for finest-first maps."""
    return torch.cat(weight.chunk(4, dim=1)[::-1], dim=1)


def joined(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """``weights`` with the layers ``k`` and ``v`` of each attention joined into one layer ``kv``, keys first.

    Raises:
        InputError: for keys without values.
    """
    merged = {name: value for name, value in weights.items() if ".attn.k." not in name and ".attn.v." not in name}
    for name in (name for name in weights if ".attn.k." in name):
        values = name.replace(".attn.k.", ".attn.v.")
        if values not in weights:
            raise InputError(f"the keys of an attention layer have no values: {values} is missing")
        merged[name.replace(".attn.k.", ".attn.kv.")] = torch.cat([weights[name], weights[values]])
    return merged


def squeezed(weight: Tensor) -> Tensor:
    """The weight of a 1x1 convolution (M, N, 1, 1) as the weight of a linear layer (M, N)."""
    return weight.flatten(1)
