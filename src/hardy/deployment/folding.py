"""A network with its batch norms folded into other layers, and a proof on images that its outputs are the same.

timm first re-parameterises the modules that it knows for inference (RepViT, MobileOne, FastViT, ...);
`hardy.ops.folding` then folds the batch norms that are left. Both run and are proven in float64, where an exact
identity leaves only rounding. The agreement in the network's own precision is also measured.

A folded network can be saved, loaded, measured and exported; `hardy prune` and adaptation refuse it. Its list of
changes ends with ``{"change": "fold", ...}`` (`hardy.networks.building.changes`), which `refold` replays.
"""

import copy
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from timm.utils.model import reparameterize_model
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hardy.deployment.proof import Picture, ProofError, as_image, random_images
from hardy.errors import InputError
from hardy.networks.base import Network, resize
from hardy.networks.building.changes import Change
from hardy.ops.folding import fold_norms, fold_structure
from hardy.seed import key

__all__ = ["TOLERANCE", "Folding", "agreement", "fold", "refold"]

_log = logging.getLogger("hardy")

TOLERANCE = 1e-6
"""The largest difference of a logit allowed in float64, as a share of the largest logit."""


@dataclass(frozen=True)
class Folding:
    """A folded network and its proof.

    Attributes:
        network: in evaluation mode, of the same class and on the same device. Training it further is of little use,
            since most of its batch norms are gone.
        reparameterised: number of batch norms that timm removed when it re-parameterised modules.
        folded: names of the batch norms folded into other layers.
        left: batch norms that could not be folded: name -> reason.
        images: how many images it was proven on.
        drawn: True if these are random images because none were given.
        difference: largest absolute difference of a logit in float64, as a share of the largest logit.
        agreement: share of pixels (or images) with the same class in the network's own precision.
    """

    network: Network
    reparameterised: int
    folded: tuple[str, ...]
    left: Mapping[str, str]
    images: int
    drawn: bool
    difference: float
    agreement: float

    @property
    def counted(self) -> str:
        """``43 of 55 batch norms folded``."""
        gone = self.reparameterised + len(self.folded)
        return f"{gone} of {gone + len(self.left)} batch norms folded"

    def __str__(self) -> str:
        """One line: how many batch norms were folded, and how the network was proven."""
        timm = f" ({self.reparameterised} by timm)" if self.reparameterised else ""
        return (
            f"{self.counted}{timm}: the same classes on {self.images} {'random' if self.drawn else 'given'} images in "
            f"float64, largest logit difference {self.difference:.1e} of the largest logit; {self.agreement:.4%} of "
            f"the pixels in the network's own precision"
        )


def fold(network: Network, *, size: Sequence[int], images: Sequence[Picture] | None = None) -> Folding:
    """A copy of ``network`` with its batch norms folded, proven on ``images``; the network does not change.

    Args:
        network: any network, on any device.
        size: (height, width) to which images are resized; the proof is repeated at about three quarters of it.
        images: uint8 (H, W, 3) RGB or float (3, H, W) in [0, 1]; None for two random images.

    Raises:
        InputError: if the network has no batch norm, or none that can be folded.
        ProofError: if the folded network has other outputs.
    """
    pictures = random_images(size, 2) if images is None else [as_image(image) for image in images]
    before = copy.deepcopy(network).cpu().double().eval()
    after, parts = _reparameterised(before)
    total, gone = _norms(before), _norms(before) - _norms(after)
    if not total:
        raise InputError(f"{type(network).__name__} has no batch norm to fold")
    found = fold_norms(after, lambda: _returned(after))
    if not gone + len(found.folded):
        reason, count = Counter(found.left.values()).most_common(1)[0]
        name = type(network).__name__
        raise InputError(f"none of the {total} batch norms of {name} can be folded; of {count}, {reason}")
    difference = _proven(before, after, pictures, size)
    change = {"change": "fold", "parts": parts, "folded": list(found.folded), "biased": list(found.biased)}
    after.changes, after.origin = [*network.changes, change], None
    own, device = network.mean.dtype, network.mean.device
    same = agreement(before.to(own), after.to(own), pictures, size)
    return Folding(after.to(device), gone, found.folded, found.left, len(pictures), images is None, difference, same)


def refold(network: Network, change: Change) -> None:
    """Give ``network`` the structure that `fold` gave another one of its form, in place; its weights are loaded later.

    Args:
        network: has the form that the other one had before.
        change: an entry ``fold`` of `hardy.networks.building.changes`.

    Raises:
        InputError: for a change of another network.
    """
    children = dict(network.named_children())
    for name in change["parts"]:
        if name not in children:
            raise InputError(f"the network has no part {name!r} to re-parameterise: it was made from another network")
        with _new_tensors_in(network.mean.dtype):
            setattr(network, name, _without_branches(children[name]))
    fold_structure(network, change["folded"], change["biased"])
    network.changes, network.origin = [*network.changes, change], None


@torch.inference_mode()
def agreement(one: Network, other: Network, images: Sequence[Tensor], size: Sequence[int]) -> float:
    """The share of pixels (or images) to which ``one`` and ``other`` give the same class.

    Args:
        one: in evaluation mode.
        other: in evaluation mode; each gets the images on its own device and in its own precision.
        images: (3, H, W) float in [0, 1] each.
        size: (height, width) to which they are resized.
    """
    same, total = 0, 0
    for image in images:
        first, second = (_logits(each, image, size).argmax(1).cpu() for each in (one, other))
        same += int((first == second).sum())
        total += first.numel()
    return same / total


@torch.inference_mode()
def _proven(before: Network, after: Network, images: Sequence[Tensor], size: Sequence[int]) -> float:
    """The largest difference of a logit as a share of the largest logit.

    Raises:
        ProofError: if it is above `TOLERANCE`, or if any class differs.
    """
    smaller = [max(before.least_size, side * 3 // 4) | 1 for side in size]
    difference, largest, other = 0.0, 0.0, 0
    for at in (size, smaller):
        for image in images:
            expected, found = _logits(before, image, at), _logits(after, image, at)
            difference = max(difference, float((found - expected).abs().nan_to_num(nan=torch.inf).max()))
            largest = max(largest, float(expected.abs().max()))
            other += int((found.argmax(1) != expected.argmax(1)).sum())
    share = difference / (largest or 1.0)
    if other or not share <= TOLERANCE:
        raise ProofError(
            f"{type(before).__name__} with its batch norms folded gives another class on {other} pixels; largest logit "
            f"difference {share:.3g} of the largest logit, allowed: {TOLERANCE:g}; it cannot be folded"
        )
    return share


def _logits(network: Network, image: Tensor, size: Sequence[int]) -> Tensor:
    logits: Tensor = network(resize(image.unsqueeze(0), size).to(network.mean))
    return logits


def _norms(network: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for module in network.modules())


def _returned(network: Network) -> list[Tensor]:
    """All outputs for an image whose sides are no multiples of `Network.multiple`."""
    side = 2 * max(network.least_size, 48) + 1
    generator = torch.Generator().manual_seed(key(0, "fold"))
    outputs = network.outputs(torch.rand(1, 3, side, side + 34, generator=generator).to(network.mean))
    named = [tensor for tensor in (outputs.coarse, outputs.embedding) if tensor is not None]
    return [outputs.logits, *outputs.features.values(), *outputs.extras.values(), *named]


def _reparameterised(network: Network) -> tuple[Network, list[str]]:
    """A copy of ``network`` in which timm re-parameterised those parts that have fewer batch norms afterwards, and the
    names of these.

    timm calls every module's ``fuse``, ``reparameterize`` or ``switch_to_deploy`` without arguments. A part whose
    methods of these names do something else fails and is left unchanged.
    """
    changed, names = copy.deepcopy(network), []
    for name, part in list(changed.named_children()):
        try:
            with _new_tensors_in(network.mean.dtype):
                other = _without_branches(part)
        except (TypeError, RuntimeError, AttributeError) as error:
            _log.debug("%s is not re-parameterised: %s: %s", name, type(error).__name__, error)
            continue
        if _norms(other) < _norms(part):
            setattr(changed, name, other)
            names.append(name)
    return changed, names


def _without_branches(part: nn.Module) -> nn.Module:
    """A copy of ``part`` as timm re-parameterises it for inference."""
    return next(reparameterize_model(nn.ModuleList([part])).eval().children())


@contextmanager
def _new_tensors_in(dtype: torch.dtype) -> Iterator[None]:
    """Inside the block new tensors have ``dtype``, so that timm's new layers take the weights without rounding."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
