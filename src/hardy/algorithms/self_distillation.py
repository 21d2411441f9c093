"""Self-distillation: the network learns from itself, without another network.

``by`` chooses which part of it teaches:

- ``ema``: a moving average of its weights, theta' <- d theta' + (1 - d) theta after each step, with d at most n / (n +
  9) at step n. The buffers of the average are copies of the network's. ``losses`` compare the network with the average.
  They are multiplied by the share of the batch's pixels where the largest probability of the average is above
  ``confidence``.
- ``deep``: the main head teaches the auxiliary heads. The loss of an auxiliary head is multiplied by (1 - alpha), and
  alpha times ``losses`` between main head and auxiliary head, times the head's weight in the network's loss, is added.
  If the network has a feature with the auxiliary head's name, that feature also learns from the embedding, with the
  loss ``fitnets`` and the weight ``hint``.
- ``attention``: each stage of the encoder learns from the next stage with ``losses``. This begins after the share
  ``start`` of the steps, when the later stages have useful attention maps.

No gradient flows into the part that teaches. Images without labels are used by all losses that need no labels. To learn
from an earlier run of the same network (born-again networks), use the algorithm ``distillation``.

Source: Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017, section 2; the confidence:
Tranheden et al., "DACS", WACV 2021, section 3; Zhang et al., "Be your own teacher", ICCV 2019; Hou, Ma, Liu and Loy,
"Learning lightweight lane detection CNNs by self attention distillation", ICCV 2019.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

import torch
from torch import Tensor
from torch.optim import Optimizer

from hardy.algorithms._unlabelled import task_terms, unlabelled_of
from hardy.algorithms.base import Algorithm, TextTable
from hardy.distillation._matching import STAGES, Matching
from hardy.distillation._terms import Choices, DistillationTerms
from hardy.errors import InputError, within
from hardy.networks.base import Network, PixelLoss
from hardy.networks.parts.stages import EMBEDDING
from hardy.sections import Kind
from hardy.types import Batch, Outputs, Terms

__all__ = ["SelfDistillation"]

_USUAL: Mapping[str, Choices] = {
    "ema": {"kl": {"weight": 1.0}},
    "deep": {"kl": {"weight": 1.0, "temperature": 3.0}},
    "attention": {"attention_transfer": {}},
}

_OWN = {"ema": ("decay", "confidence"), "deep": ("alpha", "hint"), "attention": ("start",)}
"""The options that only one value of ``by`` uses. Their defaults are below."""

_DEFAULTS = {"decay": 0.999, "confidence": 0.968, "alpha": 0.3, "hint": 0.03, "start": 0.4}


class SelfDistillation(Algorithm):
    """Minimise the loss on the labels, and losses between the network and a part or an average of itself.

    Args:
        network: what is trained.
        pixel_loss: the loss of one head.
        steps: the number of optimiser steps.
        by: what teaches: ``ema``, ``deep`` or ``attention``; see the module.
        losses: the losses by name, each with its options. If empty, ``{kl: {weight: 1}}`` for ``ema``, ``{kl: {weight:
            1, temperature: 3}}`` for ``deep`` and ``{attention_transfer: {}}`` for ``attention``.
        decay: d of the moving average, in [0, 1].
        confidence: a probability; with 0 the losses to the average always have their full weight.
        alpha: the share of the loss of an auxiliary head that comes from the main head, in [0, 1].
        hint: the weight of the loss between features; with 0 there is none.
        start: the share of the steps after which attention is compared, in [0, 1].

    Raises:
        InputError: for an option out of range or without effect; for ``deep`` and a network without auxiliary heads;
            and what `DistillationTerms` raises.
    """

    uses_unlabelled = True
    reads_weights = True

    def __init__(
        self,
        network: Network,
        pixel_loss: PixelLoss,
        steps: int,
        *,
        by: Literal["ema", "deep", "attention"] = "ema",
        losses: Annotated[Mapping[str, Mapping[str, Any]], Kind("distillation")] = {},
        decay: float = 0.999,
        confidence: float = 0.968,
        alpha: float = 0.3,
        hint: float = 0.03,
        start: float = 0.4,
    ) -> None:
        given = {"decay": decay, "confidence": confidence, "alpha": alpha, "hint": hint, "start": start}
        _check(by, given)
        super().__init__(network)
        self.pixel_loss, self.by = pixel_loss, by
        self.decay, self.confidence, self.alpha = decay, confidence, alpha
        self.begin = round(start * steps)
        self.average: Network | None = None
        self.hints: DistillationTerms | None = None
        chosen = losses or _USUAL[by]
        if by == "ema":
            self.average = copy.deepcopy(network).requires_grad_(False).eval()
        if by == "deep":
            chosen, self.hints = _of_logits(chosen), _hints(network, hint)
        if by == "attention":
            chosen = {name: {"taps": _successors(network), **options} for name, options in chosen.items()}
        teaches = network if self.average is None else self.average
        self.distilled = DistillationTerms(network, teaches, chosen, steps=steps)
        self.uses_unlabelled = not self.distilled.needs_labels
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.steps: Tensor

    def train(self, mode: bool = True) -> Self:
        """See `torch.nn.Module.train`; the average stays in evaluation mode."""
        super().train(mode)
        if self.average is not None:
            self.average.eval()
        return self

    def chosen(self) -> Mapping[str, Any]:
        """The losses in use, each with all its options."""
        return {"losses": self.distilled.chosen}

    def optimisers(self) -> dict[str, Optimizer]:
        """The optimisers of the losses."""
        return self.distilled.optimisers()

    def forward(self, batch: Batch) -> Terms:
        """The network's loss terms of ``batch``, and one weighted term for each loss and each part that learns."""
        with self.distilled.matching.recording() as recorded:
            outputs = self.network.outputs(batch.images)
            taught = outputs if self.average is None else _without_gradient(self.average, batch.images)
        terms = task_terms(self.network, outputs, batch, self.pixel_loss)
        if self.by == "deep":
            return self._deep(batch, outputs, terms)
        if self.by == "attention" and int(self.steps) < self.begin:
            return terms
        found = self._compared(self.distilled, batch, outputs, taught, recorded)
        if self.by == "ema":
            share = _confident(taught, self.confidence)
            found = {name: share * value for name, value in found.items()}
        return {**terms, **found}

    def table(self) -> TextTable:
        """The losses, the values that they compare, and what aligns these."""
        rows = [*self.distilled.table(), *(self.hints.table() if self.hints is not None else ())]
        return TextTable(f"self-distillation by {self.by}", ("loss", "learns", "teaches", "aligner"), rows)

    def after_step(self, step: int) -> None:
        """See `Algorithm.after_step`."""
        self.steps.fill_(step)
        self.distilled.after_step(step)
        if self.average is not None:
            _follow(self.average, self.network, min(self.decay, step / (step + 9)))

    def _deep(self, batch: Batch, outputs: Outputs, terms: Terms) -> Terms:
        """``terms`` where the auxiliary heads learn from labels and from the main head, and the terms of the hints."""
        found = dict(terms)
        for name in _heads(self.network, outputs):
            found[name] = (1 - self.alpha) * found[name]
            logits = outputs.extras[name]
            said = Outputs(self.network.enlarged(logits, batch.images.shape[-2:]), coarse=logits)
            more = self._compared(self.distilled, batch, said, outputs)
            share = self.alpha * self.network.weight_of(name)
            found |= {f"{name}_{loss}": share * value for loss, value in more.items()}
        return found | (self._compared(self.hints, batch, outputs, outputs) if self.hints is not None else {})

    def _compared(
        self,
        terms: DistillationTerms,
        batch: Batch,
        outputs: Outputs,
        taught: Outputs,
        recorded: Sequence[Mapping[str, Tensor]] = ({}, {}),
    ) -> Terms:
        found: Terms = terms(batch.images, batch.labels, outputs, taught, recorded, unlabelled_of(batch))
        return found


def _check(by: str, given: Mapping[str, float]) -> None:
    """Raise `InputError` for an option out of range, or one that ``by`` does not use and that is not the default."""
    for name, value in given.items():
        within(f"SelfDistillation.{name}", value, 0, *(() if name == "hint" else (1,)))
        if name not in _OWN[by] and value != _DEFAULTS[name]:
            own = ", ".join(_OWN[by])
            raise InputError(f"SelfDistillation.{name}: {value} has no effect with by: {by}, which uses {own}")


@torch.no_grad()
def _without_gradient(network: Network, images: Tensor) -> Outputs:
    return network.outputs(images)


@torch.no_grad()
def _follow(average: Network, network: Network, decay: float) -> None:
    """Update ``average`` in place: move its parameters by ``1 - decay`` towards those of ``network``, and copy the
    buffers of ``network``."""
    for held, value in zip(average.parameters(), network.parameters(), strict=True):
        held.lerp_(value, 1 - decay)
    for kept, now in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(now)


@torch.no_grad()
def _confident(outputs: Outputs, confidence: float) -> Tensor:
    """The share of pixels, or of images, whose largest probability is above ``confidence``."""
    logits = outputs.logits if outputs.coarse is None else outputs.coarse
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return (wide.softmax(1).amax(1) > confidence).to(wide.dtype).mean()


def _heads(network: Network, outputs: Outputs) -> Iterator[str]:
    """The auxiliary heads that predict the classes."""
    for name, value in outputs.extras.items():
        if name.startswith("aux_") and value.shape[1] == len(network.label_space):
            yield name


def _of_logits(losses: Choices) -> Choices:
    """``losses``, after a check that none has ``taps``."""
    for name, options in losses.items():
        if "taps" in options:
            raise InputError(
                f"SelfDistillation.losses.{name}: deep compares the logits of heads; use kl, cwd or the like"
            )
    return losses


def _hints(network: Network, weight: float) -> DistillationTerms | None:
    """The loss between the embedding and the features that are named like auxiliary heads; None if there are none.

    Raises:
        InputError: for a network without auxiliary heads.
    """
    seen = copy.deepcopy(network).train()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        outputs = seen.outputs(network.example().to(network.mean.device))
    names = [name.removeprefix("aux_") for name in _heads(network, outputs)]
    if not names:
        raise InputError(
            f"SelfDistillation: by: deep needs auxiliary heads, and {type(network).__name__} has none; create it with "
            "aux: true if it has that option, or use by: ema"
        )
    maps = outputs.embedding is not None and outputs.embedding.ndim == 4
    taps = [[name, EMBEDDING] for name in names if name in outputs.features and maps]
    if not taps or not weight:
        return None
    return DistillationTerms(network, network, {"fitnets": {"taps": taps, "weight": weight}})


def _successors(network: Network) -> list[list[str]]:
    """Each stage of the encoder except the last, paired with the next stage.

    Raises:
        InputError: for a network with fewer than two stages.
    """
    stages = [pair.student.name for pair in Matching(network, network).pairs([STAGES], "SelfDistillation")]
    if len(stages) < 2:
        raise InputError(
            f"SelfDistillation: by: attention compares stages, and {type(network).__name__} has {len(stages)}; use ema"
        )
    return [[stage, later] for stage, later in pairwise(stages)]
