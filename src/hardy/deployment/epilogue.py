"""Classes from logits at a network's own stride: at full size, at half size and doubled, or at that stride.

For light networks this last step takes as long as all layers before it: with K classes, ``full`` computes and compares
K values for every pixel, ``borders`` for the pixels between cells of different classes, ``half`` for a quarter of the
pixels, ``none`` for the cells of the logits only.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.errors import InputError, nearest
from hardy.networks.base import Network, resize

__all__ = ["Treated", "Upsample", "check", "classes", "enlarged", "logits"]

Upsample = Literal["full", "borders", "half", "none"]
"""``full``: logits resized bilinearly to the image, then argmax. ``borders``: the same classes, but the file
interpolates only between cells of different classes; see `hardy.deployment.borders`. ``half``: logits resized to half
the image (rounded up), argmax, every pixel doubled. ``none``: argmax at the network's own stride."""

_SAME = 1e-3
"""The largest rounding difference of a logit, as a share of the largest logit."""


def logits(network: Network, images: Tensor, upsample: Upsample) -> Tensor:
    """The logits (B, K, h, w) before argmax; (B, K) for image-level networks, which support ``full`` only."""
    if upsample == "full":
        full: Tensor = network(images)
        return full
    own = network.outputs(images).coarse
    assert own is not None, "see `check`"
    if upsample in ("borders", "none"):
        return own
    return network.enlarged(own, [(side + 1) // 2 for side in images.shape[-2:]])


def classes(found: Tensor, size: Sequence[int], upsample: Upsample) -> Tensor:
    """Class ids (B, H, W), or (B, h, w) for ``none``, from the result of `logits` for images of ``size`` (H, W)."""
    best = (resize(found, size) if upsample == "borders" else found).argmax(1)
    if upsample != "half":
        return best
    return best.repeat_interleave(2, -2).repeat_interleave(2, -1)[..., : size[0], : size[1]]


def enlarged(found: Tensor, size: Sequence[int]) -> Tensor:
    """Class ids (B, h, w) at ``size`` (H, W) by nearest neighbour; image-level ids (B,) are returned unchanged."""
    if found.ndim < 3 or tuple(found.shape[-2:]) == tuple(size):
        return found
    return F.interpolate(found.unsqueeze(1).float(), size=tuple(size), mode="nearest-exact").squeeze(1).long()


class Treated(nn.Module):
    """``images -> logits(network, images, upsample)`` as a module, for the exporter."""

    def __init__(self, network: Network, upsample: Upsample) -> None:
        super().__init__()
        self.network = network
        self.upsample: Upsample = upsample

    def forward(self, images: Tensor) -> Tensor:
        """See `logits`."""
        return logits(self.network, images, self.upsample)


@torch.no_grad()
def check(network: Network, upsample: str, sizes: Sequence[Sequence[int]]) -> None:
    """Check that ``network``, in evaluation mode on the CPU, supports ``upsample`` at ``sizes``.

    Raises:
        InputError: for a value outside `Upsample`; for an image-level network; for a network without coarse logits, or
            whose logits are not its coarse logits enlarged, or with coarse logits at full size; for ``borders`` with
            several sizes, with a size that is not a multiple of the cells, or with a network that resizes with aligned
            corners.
    """
    if upsample not in get_args(Upsample):
        raise InputError(
            f"there is no upsample {upsample!r}; there are: {', '.join(get_args(Upsample))}"
            f"{nearest(upsample, get_args(Upsample))}"
        )
    if upsample == "full":
        return
    name = type(network).__name__
    if upsample == "borders":
        _check_borders(network, sizes)
    if network.image_level:
        raise InputError(f"upsample {upsample!r}: {name} predicts one class per image; use 'full'")
    for height, width in sizes:
        outputs = network.outputs(torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)))
        own = outputs.coarse
        if own is None:
            raise InputError(f"upsample {upsample!r}: {name} does not give its coarse logits; use 'full'")
        if upsample != "half" and tuple(own.shape[-2:]) == network.fitted((height, width)):
            raise InputError(f"upsample {upsample!r}: {name} computes its logits at full size; use 'full' or 'half'")
        fitting = "x".join(str(-(-side // 32) * 32) for side in (height, width))
        if (network.enlarged(own, (height, width)) - outputs.logits).abs().max() > _SAME * outputs.logits.abs().max():
            raise InputError(
                f"upsample {upsample!r}: at {height}x{width} the logits of {name} are not its coarse logits enlarged; "
                f"use 'full', or choose a size such as {fitting}"
            )
        if upsample == "borders" and (height % own.shape[-2] or width % own.shape[-1]):
            raise InputError(
                f"upsample 'borders': at {height}x{width} {name} has {own.shape[-2]}x{own.shape[-1]} cells, which do "
                f"not divide the size; choose a size such as {fitting}"
            )


def _check_borders(network: Network, sizes: Sequence[Sequence[int]]) -> None:
    if len(sizes) > 1:
        raise InputError("upsample 'borders' works at one image size only; export without dynamic sizes")
    if network.align_corners:
        name = type(network).__name__
        raise InputError(f"upsample 'borders': {name} resizes its logits with aligned corners; use 'full' or 'half'")
