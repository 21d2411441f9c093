"""Statistics of batch norms as inputs of an exported graph, so that onnxruntime can switch domains without PyTorch.

Statistics are one array (2, N): means and biased variances of all batch norms, one after the other, N channels in all.
A graph with ``inputs`` has the input ``statistics``, whose default is the network's own. One with ``observed`` also has
the input ``weight`` w, by default 0, and returns ``observed`` b, the statistics of the batch; it normalises by

    (1 - w) statistics + w b

as `hardy.adaptation.bn_domains` does for a batch that moves a prototype. `hardy.deployment.runner` runs both.

With statistics as inputs onnxruntime cannot fold batch norms into convolutions. So the runner makes them constants
again when a domain is chosen, and the folded graph is as fast as the plain file.

Source: Hardy's own; the prototypes are those of Reddy, Baktashmotlagh and Arora, "Towards domain-aware knowledge
distillation for continual model generalization", WACV 2024.
"""

import copy
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from hardy.errors import InputError, nearest
from hardy.networks.base import Network
from hardy.ops.batch_statistics import AdaptiveNorm, batch_norms, install, recording, use_given, use_mixed, use_source

__all__ = ["Opened", "Statistics", "check", "opened"]

Statistics = Literal["fixed", "inputs", "observed"]
"""Whether statistics are constants of the graph, its inputs, or inputs and outputs."""


class Opened(nn.Module):
    """``(images, statistics) -> logits``, or ``(images, statistics, weight) -> (logits, observed)``, for the exporter.

    Args:
        network: what is exported.
        norms: its batch norms.
        observed: whether it is the second form, which returns the statistics of the batch too.
    """

    def __init__(self, network: nn.Module, norms: Sequence[AdaptiveNorm], *, observed: bool) -> None:
        super().__init__()
        self.network = network
        self._norms, self._observed = tuple(norms), observed
        self._sizes = [norm.source.shape[1] for norm in norms]

    @property
    def defaults(self) -> dict[str, Tensor]:
        """The inputs after the images with their default values, by name."""
        own = {"statistics": torch.cat([norm.source for norm in self._norms], 1)}
        return {**own, "weight": torch.zeros(())} if self._observed else own

    def forward(self, images: Tensor, statistics: Tensor, weight: Any = None) -> Any:
        """See the class."""
        parts = [torch.stack(pair) for pair in zip(*(row.split(self._sizes) for row in statistics), strict=True)]
        if not self._observed:
            use_given(self._norms, parts)
            logits = self.network(images)
            use_source(self._norms)
            return logits
        use_mixed(self._norms, alpha=weight, past=parts)
        with recording(self._norms) as found:
            logits = self.network(images)
        use_source(self._norms)
        return logits, torch.cat(found, 1)


def opened(network: Network) -> tuple[Network, dict[str, AdaptiveNorm]]:
    """A copy of ``network`` whose statistics can be replaced, and its batch norms by name.

    Raises:
        InputError: for a network without batch norms.
    """
    copied = copy.deepcopy(network)
    return copied, batch_norms(install(copied), "a file with statistics as inputs")


def check(statistics: str, *, dynamic: bool, prototypes: bool) -> None:
    """Check that the options of an export can be combined.

    Raises:
        InputError: for a value outside `Statistics`, ``observed`` at dynamic sizes, or prototypes of fixed statistics.
    """
    kinds = get_args(Statistics)
    if statistics not in kinds:
        raise InputError(
            f"there is no statistics {statistics!r}; there are: {', '.join(kinds)}{nearest(statistics, kinds)}"
        )
    if statistics == "observed" and dynamic:
        raise InputError(
            "statistics 'observed' works at one image size and batch, since a norm with one value per channel keeps "
            "its statistics; export without dynamic sizes, or with statistics 'inputs'"
        )
    if statistics == "fixed" and prototypes:
        raise InputError("prototypes are for statistics that can change; export with statistics 'inputs' or 'observed'")
