"""Domain risks: the loss of a batch by domain, from one forward pass.

``R_i`` is the sum of the network's loss terms over the images of domain i. Pruning scores and the loss that is
trained meanwhile both use them: their mean weighs domains equally, however many images each has in the batch.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from hardy.networks.base import Network, PixelLoss
from hardy.types import Batch, Outputs

__all__ = ["domain_outputs", "domain_risks"]


def domain_risks(network: Network, batch: Batch, pixel_loss: PixelLoss) -> tuple[Tensor, Tensor]:
    """The risk of each domain in ``batch``, and the domain of each image in the order they went through.

    Returns:
        (D,) risks of the D domains present, by ascending index; (B,) int64, ascending, the row of the risks that
        each image of the forward pass belongs to.
    """
    parts, rows = domain_outputs(network, batch)
    risks = [torch.stack(list(network.losses(part, labels, pixel_loss).values())).sum() for part, labels in parts]
    return torch.stack(risks), rows


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
    """Views of consecutive images. One split, and not D slices, whose gradients would each be as large as the whole."""
    features, extras = _parts(outputs.features, sizes), _parts(outputs.extras, sizes)
    named = {"logits": outputs.logits, "coarse": outputs.coarse, "embedding": outputs.embedding}
    own = _parts({name: tensor for name, tensor in named.items() if tensor is not None}, sizes)
    for some_features, some_extras, some_own in zip(features, extras, own, strict=True):
        yield Outputs(features=some_features, extras=some_extras, **some_own)


def _parts(tensors: Mapping[str, Tensor], sizes: list[int]) -> list[dict[str, Tensor]]:
    split = {name: torch.split(tensor, sizes) for name, tensor in tensors.items()}
    return [{name: parts[i] for name, parts in split.items()} for i in range(len(sizes))]
