"""Domain risks: the loss of each domain in a batch, from one forward pass.

``R_i`` is the sum of the network's loss terms for the images of domain i. Pruning scores and the training loss during
pruning both use them. Their mean gives all domains the same weight, however many images each has in the batch.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from hardy.networks.base import Network, PixelLoss
from hardy.types import IGNORE, Batch, Outputs

__all__ = ["domain_outputs", "domain_risks", "per_image"]


def domain_risks(network: Network, batch: Batch, pixel_loss: PixelLoss) -> tuple[Tensor, Tensor]:
    """The risk of each domain in ``batch``, and the domain of each image in the order of the forward pass.

    Returns:
        (D,) risks of the D domains present, by ascending index; (B,) int64, ascending: for each image of the forward
        pass the index of its risk.
    """
    parts, rows = domain_outputs(network, batch)
    risks = [torch.stack(list(network.losses(part, labels, pixel_loss).values())).sum() for part, labels in parts]
    return torch.stack(risks), rows


def per_image(pixel_loss: PixelLoss) -> PixelLoss:
    """A loss that gives every image the same weight: the mean over images of the ``pixel_loss`` of each image.

    Images without a labelled pixel do not count; if no image has one, it is ``pixel_loss`` of the batch.
    """

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        pairs = zip(logits.split(1), labels.split(1), strict=True)
        each = [pixel_loss(some, own) for some, own in pairs if bool((own != IGNORE).any())]
        return torch.stack(each).mean() if each else pixel_loss(logits, labels)

    return loss


def domain_outputs(network: Network, batch: Batch) -> tuple[list[tuple[Outputs, Tensor]], Tensor]:
    """The outputs and the labels of each domain in ``batch``, by ascending index, from one forward pass.

    Returns:
        D (outputs, labels) of the D domains present; (B,) int64 rows as `domain_risks` returns them.
    """
    _, rows, counts = torch.unique(batch.domains, return_inverse=True, return_counts=True)
    order = torch.argsort(rows, stable=True)
    batch = Batch(batch.images[order], batch.labels[order], batch.domains[order])
    sizes: list[int] = counts.tolist()
    parts = zip(_split(network.outputs(batch.images), sizes), torch.split(batch.labels, sizes), strict=True)
    return list(parts), rows[order]


def _split(outputs: Outputs, sizes: list[int]) -> Iterator[Outputs]:
    """Views of consecutive images. One split, because each of D slices would have a gradient of the full size."""
    features, extras = _parts(outputs.features, sizes), _parts(outputs.extras, sizes)
    named = {"logits": outputs.logits, "coarse": outputs.coarse, "embedding": outputs.embedding}
    own = _parts({name: tensor for name, tensor in named.items() if tensor is not None}, sizes)
    for some_features, some_extras, some_own in zip(features, extras, own, strict=True):
        yield Outputs(features=some_features, extras=some_extras, **some_own)


def _parts(tensors: Mapping[str, Tensor], sizes: list[int]) -> list[dict[str, Tensor]]:
    split = {name: torch.split(tensor, sizes) for name, tensor in tensors.items()}
    return [{name: parts[i] for name, parts in split.items()} for i in range(len(sizes))]
