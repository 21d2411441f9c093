"""timm encoders by name, with weights from a file or from timm, that return a list of feature maps."""

import logging
from collections.abc import Callable
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn

from hardy.errors import InputError, nearest, within
from hardy.networks.base import IMAGENET_MEAN, IMAGENET_STD
from hardy.networks.building.weights import digest, fill, is_file, note, read_weights
from hardy.networks.parts.encoder_errors import one_line_errors, reason
from hardy.networks.parts.foundation_names import in_names_of_timm, release_of, stated
from hardy.networks.parts.hub import HUB, no_retries_shown
from hardy.networks.parts.hub import fetched as fetched_from_hub
from hardy.networks.parts.plain import Plain, repatch
from hardy.networks.parts.same_padding import with_open_padding
from hardy.networks.parts.torchvision_names import in_timm_names
from hardy.networks.shipped.base import shipped, short_names

__all__ = ["Pyramid", "load_encoder", "stages"]

_log = logging.getLogger("hardy")


class Pyramid(nn.Module):
    """The feature maps of a timm encoder, finest first: its stages from a stride on. For a plain transformer: the
    outputs of four blocks, spaced evenly over its depth, or of the blocks named.

    Attributes:
        channels: width of each map as built.
        strides: of each map.

    Args:
        name: the encoder's name in timm.
        weights: see `load_encoder`.
        output_stride: stride of the coarsest map, reached by dilation; None does not change the encoder.
        finest: the smallest stride of a map; if it is below 4, the encoder must have a map of this stride.
        plain: options of a plain transformer.

    Raises:
        InputError: as `load_encoder`, and for strides or options that the encoder does not have.
    """

    indices: list[int]
    channels: list[int]
    strides: list[int]

    def __init__(
        self, name: str, weights: str | None, output_stride: int | None, *, finest: int = 4, plain: Plain | None = None
    ) -> None:
        super().__init__()
        self._finest, self._plain, self._prefix = finest, plain or Plain(), False
        kwargs = {} if output_stride is None else {"output_stride": output_stride}
        self.name = name
        self.model: Any = load_encoder(name, weights, self._trim, **kwargs)
        if self._plain.patch is not None:
            repatch(self.model, name, self._plain.patch)
            self.strides = [self._plain.patch] * len(self.indices)
        if output_stride is not None and self.strides[-1] != output_stride:
            raise InputError(
                f"output_stride {output_stride}: encoder {name!r} still has a last map of stride {self.strides[-1]}; "
                "leave output_stride out, or choose another encoder"
            )

    def _trim(self, model: Any) -> None:
        """Choose the maps of ``model`` to return, and remove the layers after the last of them, in place."""
        if not _one_stride(model):
            self._plain.refuse(self.name)
        blocks = self._plain.places(self.name, len(model.feature_info))
        self.indices, self.channels, self.strides, _ = stages(model, finest=self._finest, blocks=blocks)
        if self._finest < 4 and self.strides[0] != self._finest:
            raise InputError(
                f"finest_stride {self._finest}: encoder {self.name!r} has no map of that stride, its finest one has "
                f"{self.strides[0]}; leave finest_stride out, or choose another encoder"
            )
        neck = isinstance(model, VisionTransformerSAM)  # SAM has a neck instead of the norm, which changes the width
        unused = neck or not self._plain.final_norm
        model.prune_intermediate_layers(self.indices, prune_norm=unused, prune_head=True)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, 3, H, W) -> maps (B, C, h, w); after `give` also the prefix tokens (B, P, C), last."""
        options = {"indices": self.indices, "norm": self._plain.final_norm, "intermediates_only": True}
        if not self._prefix:
            maps: list[Tensor] = self.model.forward_intermediates(images, **options)
            return maps
        pairs = self.model.forward_intermediates(images, return_prefix_tokens=True, **options)
        if self.model.num_prefix_tokens:
            return [*(spatial for spatial, _ in pairs), pairs[-1][1]]
        return [*pairs, pairs[-1].flatten(2).transpose(1, 2)[:, :0]]

    def give(self, count: int) -> tuple[list[nn.Module], nn.Module]:
        """Remove the last ``count`` blocks of a plain transformer and the norm after them, in place, and return them.

        The maps are then spaced evenly over the blocks that are left, without the norm.

        Raises:
            InputError: if the encoder is not timm's VisionTransformer, has too few blocks, or has the options
                ``vit.blocks`` or ``vit.final_norm``.
        """
        model = self.model
        if not isinstance(model, VisionTransformer):
            raise InputError(f"encoder {self.name!r} is not a plain vision transformer of timm; take one")
        if self._plain.blocks is not None or not self._plain.final_norm:
            raise InputError(
                "vit.blocks and vit.final_norm: the decoder joins the last blocks and the norm; leave them out"
            )
        within("blocks", count, 1, len(model.blocks) - 1)
        blocks: list[nn.Module] = list(model.blocks)
        given, norm = blocks[-count:], model.norm
        model.blocks, model.norm, self._prefix = nn.Sequential(*blocks[:-count]), nn.Identity(), True
        self.indices = _even(len(blocks) - count)
        self.channels, self.strides = self.channels[: len(self.indices)], self.strides[: len(self.indices)]
        return given, norm


def stages(
    model: Any, *, finest: int = 4, blocks: list[int] | None = None
) -> tuple[list[int], list[int], list[int], int]:
    """The indices, channels and strides of the maps of a timm ``model``, and its ``multiple``; see `Pyramid`."""
    infos = [(info["num_chs"], info["reduction"]) for info in model.feature_info]
    count, plain = len(infos), _one_stride(model)
    if blocks is not None:
        indices = blocks
    elif plain:
        indices = _even(count)
    else:
        indices = [index for index, (_, stride) in enumerate(infos) if stride >= finest]
    channels, strides = zip(*(infos[index] for index in indices), strict=True)
    return indices, list(channels), list(strides), strides[-1] if plain else 1


def _even(count: int) -> list[int]:
    """Four indices, spaced evenly up to the last of ``count``; fewer if ``count`` is below four."""
    return sorted({max(0, count * quarter // 4 - 1) for quarter in (1, 2, 3, 4)})


def _one_stride(model: Any) -> bool:
    """Whether ``model`` is a plain transformer: the maps of all blocks have one stride."""
    return len(model.feature_info) > 1 and len({info["reduction"] for info in model.feature_info}) == 1


def load_encoder(name: str, weights: str | None, trim: Callable[[Any], object], **kwargs: Any) -> Any:
    """The timm model ``name`` after ``trim``, which removes its head in place.

    Args:
        name: a timm model, with or without a tag (``resnet18.a1_in1k``).
        weights: None for random initialisation; a file with the names of timm, of torchvision or of a release in
            `hardy.networks.parts.foundation_names`; a short name of ``hardy list weights``; ``"timm"`` for timm's
            default weights; a timm tag; or ``"hf-hub:OWNER/NAME"`` for the file ``model.safetensors`` of a repository.
            The file may contain the layers that `trim` removes. Weights with timm's names have the normalisation that
            timm states for the tag in ``name``, or for the repository ``timm/NAME``; without either it is ImageNet's.
        trim: called with the complete model.
        kwargs: for ``timm.create_model``.

    Raises:
        InputError: for a name or a tag that timm does not have, an encoder with a fixed input size, or weights that do
            not fit or cannot be downloaded.
    """
    if weights is not None and weights.startswith(HUB):
        owner, _, like = weights.removeprefix(HUB).partition("/")
        model = _loaded(name, fetched_from_hub(weights), trim, kwargs, like if owner == "timm" else name)
        note(pretrained={"name": weights})
        return model
    return _loaded(name, weights, trim, kwargs, name)


def _loaded(name: str, weights: str | None, trim: Callable[[Any], object], kwargs: dict[str, Any], like: str) -> Any:
    """See `load_encoder`; ``like`` is timm's name for weights of a file."""
    short = shipped(weights)
    fetched = weights is not None and not short and not is_file(weights)
    tagged = name if weights is None or not fetched else _tagged(name, weights)
    model = _made(tagged, fetched, kwargs)
    known = model.state_dict()
    if short:
        short.check_encoder(name, known)
    with one_line_errors(f"encoder {name!r} gives no maps that a decoder can use", "choose another encoder"):
        trim(model)
    if fetched:
        note(pretrained={"name": tagged, "sha256": digest(model.state_dict()), "origin": "timm"})
        _note_stated(tagged)
    elif weights is not None:
        found = short.named(short.read(), known) if short else _named(read_weights(weights), model, name, weights, like)
        fill(model, found, weights, may_be_left=set(known).intersection)
    return model


def _named(found: dict[str, Tensor], model: Any, name: str, weights: str, like: str) -> dict[str, Tensor]:
    """The tensors ``found`` in the file ``weights`` with the names of ``model``, encoder ``name``; see `_loaded`."""
    if release := release_of(found):
        note(pretrained={"origin": f"names of {release.name}, whose release has this licence"})
        _note_stated(release.like)
    elif "." in like and stated(like):
        note(pretrained={"origin": f"names of timm, whose {like} has this licence"})
        _note_stated(like)
    elif (own := stated(like)) and _differs(own):
        _log.warning(
            "%s: images are normalised with the mean %s of ImageNet, but timm's weights of %s need %s; if these are "
            "timm's, give the encoder with its tag, such as %s",
            weights,
            list(IMAGENET_MEAN),
            name,
            own["mean"],
            f"{name}.{own['tag']}",
        )
    return in_names_of_timm(in_timm_names(found), model, name, weights)


def _note_stated(model: str) -> None:
    """Note the licence and the normalisation that timm states for the weights of ``model``."""
    found = stated(model)
    if found:
        note(pretrained={"licence": found["licence"]})
        if _differs(found):
            note(mean=found["mean"], std=found["std"])


def _differs(found: dict[str, Any]) -> bool:
    """Whether the normalisation is not ImageNet's."""
    return (tuple(found["mean"]), tuple(found["std"])) != (IMAGENET_MEAN, IMAGENET_STD)


def _made(name: str, pretrained: bool, kwargs: dict[str, Any]) -> Any:
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise InputError(f"timm has no encoder {name!r}{nearest(architecture, timm.list_models())}")
    config = timm.get_pretrained_cfg(architecture)
    if config is not None and config.fixed_input_size and not architecture.startswith("samvit"):
        kwargs = {**kwargs, "dynamic_img_size": True}
    try:
        with no_retries_shown():
            model: Any = with_open_padding(timm.create_model(name, pretrained=pretrained, **kwargs))
        if isinstance(model, VisionTransformerSAM):  # its positions are resized; only this check refuses other sizes
            model.patch_embed.strict_img_size = False  # type: ignore[assignment]
        return model
    except Exception as error:
        raise InputError(_unmade(name, pretrained, kwargs, error)) from error


def _unmade(name: str, pretrained: bool, kwargs: dict[str, Any], error: Exception) -> str:
    """The reason why timm could not build the model ``name``: an option without which it can be built, or the error."""
    if pretrained and (isinstance(error, OSError) or _makes(name, kwargs)):
        return f"the weights of {name!r} could not be downloaded; give a weights file ({reason(error)})"
    for option, value in kwargs.items():
        if not _makes(name, {key: kwargs[key] for key in kwargs if key != option}):
            continue
        if option == "output_stride":
            return (
                f"output_stride {value}: encoder {name!r} takes no output_stride, because it cannot dilate "
                f"({reason(error)}); leave it out, or choose an encoder that can, such as resnet18"
            )
        if option == "dynamic_img_size":
            return f"encoder {name!r} takes one input size only; choose another encoder"
    given = "".join(f", {option} {value}" for option, value in kwargs.items())
    return f"encoder {name!r}{given} cannot be built ({reason(error)}); choose another encoder"


def _makes(name: str, kwargs: dict[str, Any]) -> bool:
    """Whether timm can build the model ``name`` with these options, without weights."""
    try:
        with torch.device("meta"):
            timm.create_model(name.partition(".")[0], **kwargs)
    except Exception:
        return False
    return True


def _tagged(name: str, weights: str) -> str:
    """timm's name for encoder ``name`` with ``weights``, ``"timm"`` or a tag; it must have weights."""
    architecture = name.partition(".")[0]
    available = timm.list_pretrained(architecture)
    wanted = name if weights == "timm" else f"{architecture}.{weights}"
    if weights == "timm" and "." not in name and available:
        return name
    if wanted not in available:
        tags, short = [known.partition(".")[2] for known in available], short_names(architecture)
        hint, have = nearest(weights, [*short, *tags]), ", ".join(tags) or "none"
        or_short = f"; short names: {', '.join(short)}" if short else ""
        raise InputError(
            f"weights {weights!r}: timm has no such weights of {name!r}{hint}; it has: {have}, or a file{or_short}"
        )
    return wanted
