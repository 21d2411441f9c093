"""Class ids and their probabilities for images: complete, resized, or window by window.

With windows, logits are kept only where another window still covers them; else they are resized one class at a time.
So apart from the decoded image and its mask, the memory does not grow with the image's height.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from hardy.data.transforms import evaluation
from hardy.networks.base import Network, resize
from hardy.ops import windows

__all__ = ["MOST_PIXELS", "Classes", "bands", "best", "classes", "refusal", "tensor_of"]

MOST_PIXELS = 90_000_000
"""The largest image, in pixels, that is predicted without windows."""

Classes = tuple[np.ndarray, np.ndarray | None]
"""Class ids (H, W) uint8, and the probability (H, W) float32 of each if it is asked for."""


def refusal(network: Network, shape: Sequence[int], size: Sequence[int] | None, window: Sequence[int] | None) -> str:
    """Why an image of ``shape`` (height, width) cannot be predicted: it is too small, or too large without windows;
    else empty."""
    height, width = size or shape
    if min(height, width) < network.least_size:
        return (
            f"{height}x{width} pixels, but {type(network).__name__} needs at least {network.least_size} "
            "on each side; give a size"
        )
    if window is None and height * width > MOST_PIXELS:
        return (
            f"{height}x{width} pixels are more than the {MOST_PIXELS // 10**6} megapixels that are predicted without "
            "windows; give a window such as 1024x1024"
        )
    return ""


@torch.inference_mode()
def classes(
    network: Network,
    forward: windows.Forward,
    images: Sequence[np.ndarray],
    size: Sequence[int] | None,
    window: Sequence[int] | None,
    device: torch.device,
    *,
    confidence: bool = False,
) -> Iterator[Classes]:
    """The classes of each image (H, W, 3) uint8, at its own size.

    Args:
        network: in evaluation mode, on ``device``; called in windows.
        forward: the network, or the network with views or adaptation; called on whole images.
        images: of one size if ``size`` is None.
        size: (height, width) that they are resized to for the network.
        window: (height, width) of a sliding window.
        device: where the network is.
        confidence: return probabilities too.
    """
    if window is not None and size is None:
        yield from _by_bands(network, images, window, device, confidence)
        return
    seen = torch.stack([tensor_of(image, size) for image in images]).to(device)
    for image, logits in zip(images, forward(seen), strict=True):
        ids, sure = best(logits, image.shape[:2], confidence=confidence)
        yield ids.cpu().numpy(), None if sure is None else sure.float().cpu().numpy()


def _by_bands(
    network: Network, images: Sequence[np.ndarray], window: Sequence[int], device: torch.device, confidence: bool
) -> Iterator[Classes]:
    """As `classes`, for images of one size, in windows."""

    def take(rows: slice, columns: slice) -> Sequence[np.ndarray]:
        return [image[rows, columns] for image in images]

    height, width = images[0].shape[:2]
    ids = np.empty((len(images), height, width), dtype=np.uint8)
    sure = np.empty(ids.shape, dtype=np.float32) if confidence else None
    for top, own, probability in bands(network, take, (height, width), window, device, confidence=confidence):
        rows = slice(top, top + own.shape[1])
        ids[:, rows] = own
        if sure is not None:
            sure[:, rows] = probability
    yield from ((own, None if sure is None else sure[place]) for place, own in enumerate(ids))


@torch.inference_mode()
def bands(
    network: Network,
    take: Callable[[slice, slice], Sequence[np.ndarray]],
    size: Sequence[int],
    window: Sequence[int],
    device: torch.device,
    *,
    confidence: bool = False,
) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
    """The classes of images of ``size`` (height, width), in windows, in bands from top to bottom.

    Args:
        network: in evaluation mode, on ``device``.
        take: a function from rows and columns to that part (h, w, 3) uint8 of each of the B images; it is called from
            top to bottom.
        size: of the images.
        window: (height, width) of the windows.
        device: where the network is.
        confidence: yield probabilities too.

    Yields:
        the place of a band's first row, its class ids (B, h, W) uint8, and their probabilities or None.
    """

    def seen(region: windows.Region) -> Tensor:
        return torch.stack([tensor_of(part, None) for part in take(*region[1:])]).to(device)

    ids, sure = np.empty((0, 0, 0), dtype=np.uint8), None
    for top, left, logits in windows.tiles(network, seen, size, window, windows.strides(window)):
        (count, _, rows, columns), width = logits.shape, size[1]
        if left == 0:
            ids = np.empty((count, rows, width), dtype=np.uint8)
            sure = np.empty(ids.shape, dtype=np.float32) if confidence else None
        ids[..., left : left + columns] = logits.max(1).indices.to(torch.uint8).cpu().numpy()
        if sure is not None:
            sure[..., left : left + columns] = logits.float().softmax(1).amax(1).cpu().numpy()
        if left + columns == width:
            yield top, ids, sure


def best(logits: Tensor, size: Sequence[int], *, confidence: bool = False) -> tuple[Tensor, Tensor | None]:
    """The class (H, W) uint8 of the largest of ``logits`` (K, h, w) resized to ``size``, one class at a time; and its
    probability (H, W), or None unless it is asked for."""
    if tuple(logits.shape[-2:]) == tuple(size):
        sure = logits.float().softmax(0).amax(0) if confidence else None
        return logits.max(0).indices.to(torch.uint8), sure  # the indices of argmax, in a third of its time on a CPU
    top = resize(logits[None, :1], size)[0, 0]
    total = top.clone() if confidence else None
    ids = torch.zeros_like(top, dtype=torch.uint8)
    for index in range(1, len(logits)):
        other = resize(logits[None, index : index + 1], size)[0, 0]
        if total is not None:
            total = torch.logaddexp(total, other)
        ids[(other > top) | (other.isnan() & ~top.isnan())] = index  # NaN is the largest, as in argmax
        torch.maximum(top, other, out=top)
    return ids, None if total is None else (top - total).exp()


def tensor_of(image: np.ndarray, size: Sequence[int] | None) -> Tensor:
    """(3, h, w) in [0, 1], exactly the input that `hardy.evaluate` gives a network."""
    return evaluation(None if size is None else (size[0], size[1]))(image, np.zeros((), dtype=np.int64))[0]
