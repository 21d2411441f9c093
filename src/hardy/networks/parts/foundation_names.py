"""Weights of vision foundation models with the names of their releases: conversion, licence and normalisation.

timm converts the names (``checkpoint_filter_fn``), after checks of the shapes from which it computes sizes. Position
embeddings of another size are interpolated (bicubic), and patches of another size are resampled.

Source: the tensor names in the releases of DINOv2, DINOv3, SAM, CLIP, EVA-02 and MAE; licence and normalisation are
those that timm states for its copies.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
from timm.layers import QuickGELU
from timm.models import eva, vision_transformer, vision_transformer_sam
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn

from hardy.errors import InputError
from hardy.networks.parts.encoder_errors import one_line_errors

__all__ = ["Release", "in_names_of_timm", "release_of", "stated"]


@dataclass(frozen=True)
class Release:
    """A release of weights.

    Attributes:
        name: the name of the model.
        signs: names of tensors; a file of the release has all of them.
        like: a timm model with such weights.
        kind: the class of that model.
        dropped: prefixes of the names of tensors that no encoder has.
    """

    name: str
    signs: tuple[str, ...]
    like: str
    kind: type[nn.Module] = VisionTransformer
    dropped: tuple[str, ...] = ()


_RELEASES = (
    Release("DINOv3", ("storage_tokens", "blocks.0.ls1.gamma"), "vit_base_patch16_dinov3.lvd1689m", Eva),
    Release("DINOv2", ("mask_token", "blocks.0.ls1.gamma"), "vit_base_patch14_dinov2.lvd142m"),
    Release("SAM", ("image_encoder.patch_embed.proj.weight",), "samvit_base_patch16.sa1b", VisionTransformerSAM),
    Release("CLIP", ("visual.class_embedding",), "vit_base_patch16_clip_quickgelu_224.openai"),
    Release("EVA-02", ("blocks.0.mlp.w1.weight",), "eva02_base_patch14_224.mim_in22k", Eva),
    Release("EVA-02", ("visual.blocks.0.mlp.w1.weight",), "eva02_base_patch14_224.mim_in22k", Eva),
    Release("MAE", ("mask_token", "decoder_pos_embed"), "vit_base_patch16_224.mae", dropped=("mask_token", "decoder_")),
)

_LARGEST_PATCH = 64

_FILTERS: tuple[tuple[type, Any], ...] = (
    (VisionTransformerSAM, vision_transformer_sam.checkpoint_filter_fn),
    (Eva, eva.checkpoint_filter_fn),
    (VisionTransformer, vision_transformer.checkpoint_filter_fn),
)


def release_of(weights: Mapping[str, Tensor]) -> Release | None:
    """The release whose tensor names ``weights`` have; None for other names, such as timm's."""
    return next((each for each in _RELEASES if all(sign in weights for sign in each.signs)), None)


def stated(model: str) -> dict[str, Any]:
    """The ``tag``, ``licence``, ``mean`` and ``std`` that timm states for the weights of ``model``, a name with a tag.

    Without a tag they are those of timm's default weights. Empty for a model or a tag without weights in timm.
    """
    if not timm.is_model_pretrained(model):
        return {}
    config = timm.get_pretrained_cfg(model)
    assert config is not None, "it is in the list"
    licence = config.license or "unknown"
    return {"tag": config.tag, "licence": licence, "mean": list(config.mean), "std": list(config.std)}


def in_names_of_timm(weights: Mapping[str, Tensor], model: Any, name: str, file: str) -> dict[str, Tensor]:
    """``weights`` with the names and sizes of ``model``, if it is a plain transformer; else unchanged.

    Args:
        weights: tensors with the names of a release or of timm.
        model: the complete encoder.
        name: its name in timm.
        file: the name of the weights in messages.

    Raises:
        InputError: for a release that does not belong to the class of ``model``, for tensors from which no size can be
            computed, and for a model that would compute other values than the release.
    """
    release = release_of(weights)
    convert = next((found for kind, found in _FILTERS if isinstance(model, kind)), None)
    if release is not None and not isinstance(model, release.kind):
        raise InputError(
            f"{file}: has the names of {release.name}, and encoder {name!r} is not such a model; take one such as "
            f"{release.like.partition('.')[0]}"
        )
    if convert is None:
        return dict(weights)
    dropped = release.dropped if release else ()
    kept = {key: value for key, value in weights.items() if not (dropped and key.startswith(dropped))}
    _check_sizes(kept, model, name, file)
    if release is not None:
        kept = _without_biases(kept, model, name, file)
        _check_activation(weights, model, name, file)
    with one_line_errors(f"{file}: does not fit encoder {name!r}", "give the weights of this encoder"):
        found: dict[str, Tensor] = convert(kept, model)
    own = model.state_dict()
    heads = ("head.", "fc_norm.") if release else ()
    return {key: value for key, value in found.items() if key in own or not (heads and key.startswith(heads))}


def _check_sizes(weights: Mapping[str, Tensor], model: Any, name: str, file: str) -> None:
    """Refuse position embeddings and patches that cannot be resized to those of ``model``."""
    width = model.embed_dim
    for key, value in weights.items():
        shape = tuple(value.shape)
        positions = key.rpartition(".")[2] == "pos_embed" or key.endswith("visual.positional_embedding")
        if positions and shape[-1:] != (width,):
            raise InputError(f"{file}: {key} {shape} is not {width} channels wide, as encoder {name!r} is")
        if positions and len(shape) in (2, 3) and not _gridded(shape[-2], model):
            raise InputError(f"{file}: {key} {shape} are {shape[-2]} positions, which do not form a square of patches")
        if key.endswith(("patch_embed.proj.weight", "visual.conv1.weight")):
            own = tuple(model.patch_embed.proj.weight.shape)
            if len(shape) != 4 or shape[:2] != own[:2] or not all(1 <= side <= _LARGEST_PATCH for side in shape[2:]):
                raise InputError(f"{file}: {key} {shape} does not fit encoder {name!r}, which has {own}")


def _gridded(count: int, model: Any) -> bool:
    """Whether ``count`` is the number of positions of ``model``, or of a square of patches and 0 to 2 prefix tokens."""
    if model.pos_embed is not None and count == model.pos_embed.shape[1]:
        return True
    return any(count > prefix and math.isqrt(count - prefix) ** 2 == count - prefix for prefix in (0, 1, 2))


def _without_biases(weights: dict[str, Tensor], model: Any, name: str, file: str) -> dict[str, Tensor]:
    """``weights`` without the biases of query, key and value if ``model`` has none; only those of keys may be not 0."""
    own = model.state_dict()
    if not isinstance(model, Eva) or "blocks.0.attn.q_bias" in own or "blocks.0.attn.qkv.bias" in own:
        return weights
    biases = [key for key in weights if key.endswith(".attn.qkv.bias")]
    for key in biases:
        query, _, value = weights[key].chunk(3)  # attention does not depend on the bias of the keys
        if bool(query.any() or value.any()):
            raise InputError(
                f"{file}: {key} is not zero, and encoder {name!r} has no such bias; take its _qkvb variant"
            )
    return {key: value for key, value in weights.items() if key not in biases}


def _check_activation(weights: Mapping[str, Tensor], model: Any, name: str, file: str) -> None:
    """Refuse the weights of OpenAI's CLIP, which uses QuickGELU, for an encoder with another activation."""
    if "visual.class_embedding" not in weights or "input_resolution" not in weights:
        return
    if not any(isinstance(module, QuickGELU) for module in model.modules()):
        raise InputError(
            f"{file}: OpenAI's CLIP computes QuickGELU and encoder {name!r} another activation; take an encoder such "
            "as vit_base_patch16_clip_quickgelu_224"
        )
