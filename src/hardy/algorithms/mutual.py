"""Mutual learning: several networks are trained together, each on the labels and on the outputs of its peers.

    loss_k = loss of the labels_k + w(n) 1/(K - 1) sum_{l != k} L(network_k, network_l)      by: peers
    loss_k = loss of the labels_k + w(n) L(network_k, mean of the logits of all K)           by: mean
    loss_k = loss of the labels_k + w(n) L(network_k, at each pixel the best logits of all)  by: best

L is the sum of the weighted ``losses``. The best logits are those with the smallest cross-entropy to the label; where
there is no label, the mean is used. No gradient flows into the network that teaches. w grows linearly from 0 at the
first step to 1 after the share ``warm_up`` of the steps, because the first predictions are mostly wrong. Images without
labels are used by all losses that need no labels.

One optimiser trains all networks. ``optim.clip`` limits the gradient norm of all networks together. The network of the
recipe is the one that is kept, even if a peer is better. At the end the run measures the peers, records their scores
under separate stages, and saves them in its folder ``peers``.

Source: Zhang, Xiang, Hospedales and Lu, "Deep mutual learning", CVPR 2018; the mean and the best: Guo et al., "Online
knowledge distillation via collaborative learning" (KDCL), CVPR 2020, there per image.
"""

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import permutations
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from hardy.algorithms._unlabelled import task_terms, unlabelled_of
from hardy.algorithms.base import Algorithm, TextTable
from hardy.distillation._terms import DistillationTerms
from hardy.errors import InputError, quoted, within
from hardy.networks.base import Network, PixelLoss
from hardy.networks.building.create import create, unwarned
from hardy.networks.building.wrapped import Wrapped
from hardy.sections import Kind
from hardy.types import IGNORE, Batch, Outputs, Terms

__all__ = ["Mutual"]


class Mutual(Algorithm):
    """Train ``network`` and its peers with their losses on the labels and losses between them.

    Args:
        network: what is trained and kept.
        pixel_loss: the loss of one head.
        steps: the number of optimiser steps.
        peers: the number of further networks like ``network``, with other random weights; or a list of networks, each a
            name or a mapping of ``name`` and options. If ``network`` was changed (pruned, for example) or wrapped, it
            is copied, and the layers of the copy with a method ``reset_parameters`` get new random weights.
        losses: the losses between two networks by name, each with its options.
        by: what teaches: every other network (``peers``) or, for losses of logits, the ``mean`` of all logits or the
            ``best`` logits at each pixel.
        warm_up: the share of the steps in which w grows, in [0, 1].

    Raises:
        InputError: for fewer than one peer; for a peer that cannot be built; when one of ``network`` and a peer
            predicts masks and the other one class per image; for a ``warm_up`` outside [0, 1]; and what
            `DistillationTerms` raises.
    """

    uses_unlabelled = True

    def __init__(
        self,
        network: Network,
        pixel_loss: PixelLoss,
        steps: int,
        *,
        peers: int | str | Sequence[str | Mapping[str, Any]] = 1,
        losses: Annotated[Mapping[str, Mapping[str, Any]], Kind("distillation")] = {"kl": {"weight": 1.0}},
        by: Literal["peers", "mean", "best"] = "peers",
        warm_up: float = 0.1,
    ) -> None:
        within("Mutual.warm_up", warm_up, 0, 1)
        super().__init__(network)
        self.pixel_loss, self.by = pixel_loss, by
        self.warm = round(warm_up * steps)
        self.others = nn.ModuleList(_peers(network, peers))
        places = range(len(self.all))
        self.pairs = list(permutations(places, 2)) if by == "peers" else [(k, k) for k in places]
        together = _Logits(network)
        self.distilled = nn.ModuleList(
            DistillationTerms(self.all[k], self.all[other] if by == "peers" else together, losses, steps=steps)
            for k, other in self.pairs
        )
        self.uses_unlabelled = not self._each()[0].needs_labels
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.steps: Tensor

    @property
    def all(self) -> list[Network]:
        """The network that is kept, then its peers."""
        return [self.network, *self.peers().values()]

    def peers(self) -> dict[str, Network]:
        """The peers as ``peer1``, ``peer2`` and so on."""
        found: dict[str, Network] = {}
        for number, peer in enumerate(self.others, start=1):
            assert isinstance(peer, Network), "they were built so"
            found[f"peer{number}"] = peer
        return found

    def optimisers(self) -> dict[str, Optimizer]:
        """The optimisers of the losses of each pair."""
        return {
            f"{number}/{name}": own
            for number, terms in enumerate(self._each())
            for name, own in terms.optimisers().items()
        }

    def forward(self, batch: Batch) -> Terms:
        """The loss terms of all networks on ``batch``; the names of the peers' terms begin with the peer's name."""
        with ExitStack() as stack:
            recorded = [stack.enter_context(terms.matching.recording()) for terms in self._each()]
            outputs = [network.outputs(batch.images) for network in self.all]
        names = ["", *(f"{name}_" for name in self.peers())]
        found: Terms = {}
        for name, network, said in zip(names, self.all, outputs, strict=True):
            own = task_terms(network, said, batch, self.pixel_loss)
            found |= {f"{name}{term}": value for term, value in own.items()}
        together = None if self.by == "peers" else _mean(outputs)
        if together and self.by == "best":
            together = _best(outputs, batch.labels, together)
        share = self._share() / (len(self.pairs) // len(self.all))
        for (k, other), terms, values in zip(self.pairs, self._each(), recorded, strict=True):
            taught = together or outputs[other]
            apart = terms(batch.images, batch.labels, outputs[k], taught, values, unlabelled_of(batch))
            for term, value in apart.items():
                key = f"{names[k]}{term}"
                found[key] = found.get(key, 0.0) + share * value
        return found

    def table(self) -> TextTable:
        """The losses of each pair of networks, the values that they compare, and what aligns these."""
        names = ["the network", *self.peers()]
        rows = []
        for (k, other), terms in zip(self.pairs, self._each(), strict=True):
            teaches = names[other] if self.by == "peers" else f"the {self.by}"
            rows += [(f"{names[k]} from {teaches}", *row) for row in terms.table()]
        return TextTable("mutual learning", ("pair", "loss", "learns", "teaches", "aligner"), rows)

    def after_step(self, step: int) -> None:
        """See `Algorithm.after_step`."""
        self.steps.fill_(step)
        for terms in self._each():
            terms.after_step(step)

    def _share(self) -> float:
        """w of this step."""
        return min(1.0, int(self.steps) / self.warm) if self.warm else 1.0

    def _each(self) -> list[DistillationTerms]:
        return [terms for terms in self.distilled if isinstance(terms, DistillationTerms)]


class _Logits(Network):
    """A placeholder for a teacher that is the mean or the best of several networks.

    It has the classes of ``network`` and no features.
    """

    gives_features = False

    def __init__(self, network: Network) -> None:
        super().__init__(network.label_space)
        self.image_level = network.image_level

    def outputs(self, images: Tensor) -> Outputs:
        raise AssertionError("they are computed from outputs that are there")


def _mean(outputs: Sequence[Outputs]) -> Outputs:
    """The mean of the logits, without gradient; also of the coarse logits, if all have the same size."""
    coarse = [said.coarse for said in outputs if said.coarse is not None]
    alike = len(coarse) == len(outputs) and len({value.shape for value in coarse}) == 1
    logits = torch.stack([said.logits.detach() for said in outputs]).mean(0)
    return Outputs(logits, coarse=torch.stack(coarse).detach().mean(0) if alike else None)


def _best(outputs: Sequence[Outputs], labels: Tensor, mean: Outputs) -> Outputs:
    """The logits with the smallest cross-entropy, at each pixel or for each image; ``mean`` where ``labels`` is
    `IGNORE`. Without gradient."""
    logits = torch.stack([said.logits.detach() for said in outputs])
    apart = torch.stack(
        [F.cross_entropy(each.float(), labels, ignore_index=IGNORE, reduction="none") for each in logits]
    )
    best = logits.take_along_dim(apart.argmin(0)[None, :, None], 0)[0]
    return Outputs(torch.where((labels == IGNORE)[:, None], mean.logits, best))


def _peers(network: Network, peers: int | str | Sequence[str | Mapping[str, Any]]) -> list[Network]:
    """See `Mutual`."""
    if isinstance(peers, int):
        within("Mutual.peers", peers, 1)
        return [_redrawn(network) for _ in range(peers)]
    if isinstance(peers, str):
        raise InputError(f"Mutual.peers: {quoted(peers)} is not a list; write [{peers}], or a number of peers")
    if not peers:
        raise InputError("Mutual.peers: the list is empty; give a number or a list of networks, such as [fast_scnn]")
    return [_named(network, choice) for choice in peers]


def _named(network: Network, choice: str | Mapping[str, Any]) -> Network:
    """A new network from the name or the mapping ``choice``, for the classes of ``network``."""
    options = {"name": choice} if isinstance(choice, str) else dict(choice)
    if not isinstance(options.get("name"), str):
        raise InputError(f"Mutual.peers: {quoted(choice)} names no network; give {{name: fast_scnn}} and its options")
    if "classes" in options:
        raise InputError("Mutual.peers: leave out classes; peers predict the classes of the network")
    try:
        peer = create(options.pop("name"), network.label_space, **options)
    except (InputError, TypeError) as error:
        raise InputError(f"Mutual.peers: {error}") from error
    if peer.image_level != network.image_level:
        raise InputError(
            f"Mutual.peers: one of {type(peer).__name__} and {type(network).__name__} predicts masks and the other one "
            "class per image; name peers that predict the same"
        )
    return peer


def _redrawn(network: Network) -> Network:
    """A network like ``network`` with other random weights."""
    architecture = network.architecture
    if architecture and architecture["name"] != Wrapped.NAME and not network.changes:
        with unwarned():
            peer = create(architecture["name"], network.label_space, **architecture["options"])
        if "mean" in architecture:
            peer.renormalise(architecture["mean"], architecture["std"])
        return peer
    peer = copy.deepcopy(network)
    for module in peer.modules():
        own = list(module.parameters(recurse=False))
        redraw = getattr(module, "reset_parameters", None)
        if own and redraw is not None and all(value.requires_grad for value in own):
            redraw()
    return peer.train()
