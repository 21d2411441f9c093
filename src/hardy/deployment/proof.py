"""Compares a network with its exported graphs: logits, classes and mean IoU of both, on images."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hardy.deployment import epilogue
from hardy.deployment.epilogue import Upsample
from hardy.deployment.graph import Output
from hardy.errors import InputError
from hardy.metrics import confusion, scores
from hardy.networks.base import Network, resize
from hardy.seed import key

__all__ = ["Parity", "Picture", "ProofError", "as_image", "as_mask", "compare", "proof_sizes", "random_images"]

Picture = np.ndarray | Tensor
"""An image or a mask as the user passes it."""


class ProofError(RuntimeError):
    """A derived network or file does not agree with its network, and was not kept. The message is one line."""


@dataclass(frozen=True)
class Parity:
    """How far a network and its exported graphs agree.

    Attributes:
        size: (height, width) of the first comparison; the only one for a graph of fixed size.
        images: how many images were compared.
        difference: largest absolute difference of a logit; NaN if any logit is NaN.
        agreement: share of pixels (or images) with the same class, where both upsample their logits in the same way.
        agreement_full: share of pixels, at the size of the images, with the same class: the graph's classes are
            enlarged, the network upsamples to full size. Equal to ``agreement`` if the graph does that too.
        miou_torch, miou_onnx: mean IoU of the network at full size and of the graph; None without labels.
    """

    size: tuple[int, int]
    images: int
    difference: float
    agreement: float
    agreement_full: float
    miou_torch: float | None
    miou_onnx: float | None


def compare(
    network: Network,
    sessions: Mapping[Output, Callable[[Tensor], Tensor]],
    *,
    size: Sequence[int],
    dynamic: bool,
    batch: int,
    images: Sequence[Tensor],
    labels: Sequence[Tensor] | None,
    upsample: Upsample = "full",
) -> Parity:
    """Run ``network`` and its two graphs on every image at every size; mean IoU is measured at the first size.

    Args:
        network: in evaluation mode, on the CPU.
        sessions: its two graphs: one returns logits, one returns classes.
        size: (height, width) to which the images are resized.
        dynamic: also compare at a second, odd size.
        batch: images per run.
        images: (3, H, W) float in [0, 1] each.
        labels: per image a (H, W) mask or a () class id.
        upsample: how the graphs upsample; the network's logits are upsampled in the same way.
    """
    differences, (equal, equal_full) = [], torch.zeros(2, 2, dtype=torch.float64)
    count = len(network.label_space)
    by_torch, by_onnx = (torch.zeros(count, count, dtype=torch.int64) for _ in range(2))
    sizes = proof_sizes(size, dynamic, network.least_size)
    for at in sizes:
        for first, chosen in _batches(images, at, batch):
            real = min(batch, len(images) - first)
            expected, best, classes = (each[:real] for each in _expected(network, chosen, at, upsample))
            found = sessions["classes"](chosen)[:real]
            found_full = epilogue.enlarged(found, at)
            differences.append(float((sessions["logits"](chosen)[:real] - expected).abs().max()))
            equal += _equal(found, best)
            equal_full += _equal(found_full, classes)
            if labels is not None and at == sizes[0]:
                masks = torch.stack([as_mask(label, at) for label in labels[first : first + real]])
                by_torch += confusion(classes, masks, count)
                by_onnx += confusion(found_full, masks, count)
    return Parity(
        size=sizes[0],
        images=len(images),
        difference=math.nan if any(map(math.isnan, differences)) else max(differences),
        agreement=float(equal[0] / equal[1]),
        agreement_full=float(equal_full[0] / equal_full[1]),
        miou_torch=scores(by_torch).miou if labels is not None else None,
        miou_onnx=scores(by_onnx).miou if labels is not None else None,
    )


@torch.inference_mode()
def _expected(
    network: Network, images: Tensor, size: Sequence[int], upsample: Upsample
) -> tuple[Tensor, Tensor, Tensor]:
    """The network's logits upsampled like the graph's, their classes, and the network's classes at full size."""
    upsampled = epilogue.logits(network, images, upsample)
    best = epilogue.classes(upsampled, size, upsample)
    return upsampled, best, best if upsample == "full" else network(images).argmax(1)


def _equal(one: Tensor, other: Tensor) -> Tensor:
    """(number of equal classes, number of classes compared)."""
    return torch.tensor([int((one == other).sum()), one.numel()], dtype=torch.float64)


def proof_sizes(size: Sequence[int], dynamic: bool, least: int) -> list[tuple[int, int]]:
    """The sizes at which to compare; for dynamic sizes also a second, odd size."""
    sizes = [(int(size[0]), int(size[1]))]
    other = tuple(max(least, side * 3 // 4) | 1 for side in sizes[0])
    return [*sizes, (other[0], other[1])] if dynamic else sizes


def _batches(pictures: Sequence[Tensor], size: tuple[int, int], batch: int) -> Iterator[tuple[int, Tensor]]:
    """``(index of the first, images (batch, 3, H, W))``; the last batch is padded with copies of its last image."""
    for first in range(0, len(pictures), batch):
        chosen = [resize(picture.unsqueeze(0), size) for picture in pictures[first : first + batch]]
        chosen += chosen[-1:] * (batch - len(chosen))
        yield first, torch.cat(chosen).contiguous()


def as_image(image: Picture) -> Tensor:
    """``image`` as (3, H, W) float32 in [0, 1].

    Raises:
        InputError: for an array that is not (H, W, 3) uint8 or a tensor that is not (3, H, W) float.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(f"an image array must be (H, W, 3) uint8; got {image.shape} {image.dtype}")
        return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 255
    if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
        raise InputError(f"an image tensor must be (3, H, W) float in [0, 1]; got {tuple(image.shape)} {image.dtype}")
    return image.detach().cpu().float()


def as_mask(truth: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels at ``size`` by nearest neighbour; an image-level class id is returned unchanged."""
    if truth.ndim == 0:
        return truth.long()
    return F.interpolate(truth[None, None].float(), size=size, mode="nearest-exact")[0, 0].long()


def random_images(size: Sequence[int], count: int = 4) -> list[Tensor]:
    """Smooth random images (3, H, W) in [0, 1]: coarse blobs with fine noise, the same in every call."""
    generator = torch.Generator().manual_seed(key(0, "export"))
    coarse = torch.rand(count, 3, max(2, size[0] // 32), max(2, size[1] // 32), generator=generator)
    fine = torch.rand(count, 3, *size, generator=generator)
    return list((0.85 * resize(coarse, size) + 0.15 * fine).unbind())
