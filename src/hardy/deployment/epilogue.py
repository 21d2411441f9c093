"""From logits at a network's own stride to classes: at full size, at half size and doubled, or left where they are.

For light networks this last step costs as much as the layers before it: with K classes, ``full`` makes and compares K
values for every pixel, ``borders`` for the pixels between cells of different classes, ``half`` for a quarter of all,
``none`` only for the cells that the network has.
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
"""``full``: logits resized bilinearly to the image, then the best class. ``borders``: the same classes, but a file
interpolates only between cells of different classes; see `hardy.deployment.borders`. ``half``: resized to half the
image (rounded up), the best class, every pixel doubled. ``none``: the best class where the network's own logits are."""

_SAME = 1e-3
"""What rounding may change of a logit, as a share of the largest."""


def logits(network: Network, images: Tensor, upsample: Upsample) -> Tensor:
    """The logits (B, K, h, w) of which the best class is taken; (B, K) for image-level networks, at ``full`` alone."""
    if upsample == "full":
        whole: Tensor = network(images)
        return whole
    own = network.outputs(images).coarse
    assert own is not None, "see `check`"
    if upsample in ("borders", "none"):
        return own
    return network.enlarged(own, [(side + 1) // 2 for side in images.shape[-2:]])


def classes(found: Tensor, size: Sequence[int], upsample: Upsample) -> Tensor:
    """Class ids (B, H, W), at ``none`` (B, h, w), from what `logits` returned for images of ``size`` (H, W)."""
    best = (resize(found, size) if upsample == "borders" else found).argmax(1)
    if upsample != "half":
        return best
    return best.repeat_interleave(2, -2).repeat_interleave(2, -1)[..., : size[0], : size[1]]


def enlarged(found: Tensor, size: Sequence[int]) -> Tensor:
    """Class ids (B, h, w) at ``size`` (H, W), each pixel that of the cell it lies in; (B,) stay as they are."""
    if found.ndim < 3 or tuple(found.shape[-2:]) == tuple(size):
        return found
    return F.interpolate(found.unsqueeze(1).float(), size=tuple(size), mode="nearest-exact").squeeze(1).long()


class Treated(nn.Module):
    """``images -> logits(network, images, upsample)``, to be exported."""

    def __init__(self, network: Network, upsample: Upsample) -> None:
        super().__init__()
        self.network = network
        self.upsample: Upsample = upsample

    def forward(self, images: Tensor) -> Tensor:
        """See `logits`."""
        return logits(self.network, images, self.upsample)


@torch.no_grad()
def check(network: Network, upsample: str, sizes: Sequence[Sequence[int]]) -> None:
    """Refuse an ``upsample`` that ``network``, in evaluation mode on the CPU, cannot do at ``sizes``.

    Raises:
        InputError: for another word than those of `Upsample`; for an image-level network; for one that does not give
            its coarse logits, or whose own logits are those of a padded image, or already at full size;
            for ``borders`` with several sizes, with cells of no whole number of pixels, or for a network that
            enlarges its logits from corner to corner.
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
        raise InputError(f"upsample {upsample!r}: {name} predicts one class per image and upsamples nothing")
    for height, width in sizes:
        outputs = network.outputs(torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)))
        own = outputs.coarse
        if own is None:
            raise InputError(f"upsample {upsample!r}: {name} does not give its coarse logits; use 'full'")
        if upsample != "half" and own.shape == outputs.logits.shape:
            raise InputError(f"upsample {upsample!r}: {name} has its own logits at full size; use 'full' or 'half'")
        fitting = "x".join(str(-(-side // 32) * 32) for side in (height, width))
        if (network.enlarged(own, (height, width)) - outputs.logits).abs().max() > _SAME * outputs.logits.abs().max():
            raise InputError(
                f"upsample {upsample!r}: at {height}x{width} {name} pads its images, and its own logits cover the "
                f"padding too; choose a size that it does not pad, such as {fitting}"
            )
        if upsample == "borders" and (height % own.shape[-2] or width % own.shape[-1]):
            raise InputError(
                f"upsample 'borders': at {height}x{width} {name} has {own.shape[-2]}x{own.shape[-1]} cells, each of no "
                f"whole number of pixels; choose a size such as {fitting}"
            )


def _check_borders(network: Network, sizes: Sequence[Sequence[int]]) -> None:
    if len(sizes) > 1:
        raise InputError("upsample 'borders' is laid out for one size of images; export without open sizes")
    if network.align_corners:
        name = type(network).__name__
        raise InputError(f"upsample 'borders': {name} enlarges its logits from corner to corner; use 'full' or 'half'")
