"""Shared by the algorithms that also learn from images without labels."""

from torch import Tensor

from hardy.networks.base import Network, PixelLoss
from hardy.types import Batch, Outputs, Terms

__all__ = ["task_terms", "unlabelled_of"]


def unlabelled_of(batch: Batch) -> Tensor | None:
    """(B,) bool, True for the images of ``batch`` without labels; None if all images have labels."""
    found = batch.domains < 0
    return found if bool(found.any()) else None


def task_terms(network: Network, outputs: Outputs, batch: Batch, pixel_loss: PixelLoss) -> Terms:
    """The network's loss terms on the images with labels; an empty mapping if no image has labels.

    Args:
        network: what is trained.
        outputs: its outputs for all images of ``batch``.
        batch: see `hardy.types.Batch`.
        pixel_loss: the loss of one head.
    """
    unlabelled = unlabelled_of(batch)
    if unlabelled is None:
        return network.losses(outputs, batch.labels, pixel_loss)
    if bool(unlabelled.all()):
        return {}
    return network.losses(outputs.where(~unlabelled), batch.labels[~unlabelled], pixel_loss)
