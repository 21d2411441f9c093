"""Shared by the algorithms that also learn from images without labels: which ones they are, and the labels' loss.

Such an image has the domain index -1, and all its labels are `IGNORE`.
"""

from torch import Tensor

from hardy.networks.base import Network, PixelLoss
from hardy.types import Batch, Outputs, Terms

__all__ = ["labelled_terms", "unlabelled"]


def unlabelled(batch: Batch) -> Tensor | None:
    """The images of ``batch`` without labels, (B,) bool; None when all have labels."""
    missing = batch.domains < 0
    return missing if bool(missing.any()) else None


def labelled_terms(network: Network, outputs: Outputs, batch: Batch, pixel_loss: PixelLoss) -> Terms:
    """The loss terms of ``network`` over the images with labels; over all, where `IGNORE` adds 0, if there are none.

    Args:
        network: what is trained.
        outputs: of all images of ``batch``.
        batch: images, some of which may have no labels.
        pixel_loss: the loss of one head.
    """
    missing = unlabelled(batch)
    if missing is None or bool(missing.all()):
        return network.losses(outputs, batch.labels, pixel_loss)
    return network.losses(outputs.where(~missing), batch.labels[~missing], pixel_loss)
