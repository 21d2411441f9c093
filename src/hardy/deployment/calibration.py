"""The images that give an int8 file its ranges, and the other images on which it is compared with its network."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

from hardy.data import loader
from hardy.data.base import Domain, DomainItems, Item
from hardy.data.label_spaces import convert
from hardy.deployment.graph import Output
from hardy.deployment.quantisation import LIMIT, Quantised, quantise
from hardy.errors import InputError
from hardy.networks.base import Network

__all__ = ["quantise_on"]


def quantise_on(
    network: Network,
    path: Path | str,
    ranges: Iterable[DomainItems],
    judged: Iterable[DomainItems],
    *,
    images: int,
    size: Sequence[int],
    limit: float = LIMIT,
    output: Output = "classes",
) -> Quantised:
    """`hardy.deployment.quantisation.quantise` with images of domains.

    Args:
        network: any network for pixels; it does not change.
        path: the ONNX file.
        ranges: domains whose images give the ranges of activations, the first ``images`` of each.
        judged: domains on which network and file are compared, on the first ``images`` of each that are not in
            ``ranges``.
        images: the number of images per domain.
        size, limit, output: see `hardy.deployment.quantisation.quantise`.

    Raises:
        InputError: what `quantise` raises; and for a domain without an image left, or without a label that can be
            mapped to the network's classes.
        ProofError: if a domain loses more than ``limit`` points; no file is written.
    """
    ranges = [(domain, items[:images]) for domain, items in ranges]
    used = {(domain.name, item) for domain, items in ranges for item in items}
    judged = [
        (domain, [item for item in items if (domain.name, item) not in used][:images]) for domain, items in judged
    ]
    for domain, items in (*ranges, *judged):
        if not items:
            raise InputError(
                f"{domain.name}: the calibration takes all its images, so none is left to measure; lower --images"
            )
    return quantise(
        network,
        path,
        size=size,
        calibration={domain.name: [image for image, _ in _read(network, domain, items)] for domain, items in ranges},
        measured={domain.name: _read(network, domain, items) for domain, items in judged},
        limit=limit,
        output=output,
    )


def _read(network: Network, domain: Domain, items: Sequence[Item]) -> list[tuple[Tensor, Tensor]]:
    """The images of a domain and their masks in the network's classes."""
    if convert(domain.dataset.label_space, network.label_space) is None:
        raise InputError(
            f"{domain.name}: its classes {domain.dataset.label_space.name} have no map to "
            f"{network.label_space.name}, so no drop can be measured; name other domains"
        )
    batches = loader.evaluation_batches([(domain, items)], network.label_space)
    return [(batch.images[0], batch.labels[0]) for batch in batches]
