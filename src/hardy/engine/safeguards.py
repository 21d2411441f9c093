"""Measurements during pruning: sensitivities and minimum widths, the stop rule, batch-norm re-estimation.

Minimum widths are measured on the validation images of the sources. The stop rule is measured on domains that are
neither sources nor unseen, so that unseen domains still select nothing.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from hardy.data import sources
from hardy.data.base import DomainItems
from hardy.device import pick
from hardy.engine import protocol
from hardy.engine.memory_batches import MemoryBatches
from hardy.engine.protocol import Settings, Split
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.ops import norms
from hardy.pruning.masked import masked_copy
from hardy.pruning.schedules.base import Work
from hardy.pruning.scoring import score_without_training
from hardy.pruning.select import Removed
from hardy.pruning.sweep import Sweep, alone, stages, sweep
from hardy.recipe import Prune
from hardy.sections import Floors, Stop
from hardy.types import Batch

__all__ = ["DataView", "checked", "measure_sensitivity", "reestimate_norms", "spread", "stop_rule"]

logger = logging.getLogger("hardy")


@dataclass(frozen=True)
class DataView:
    """The images that pruning uses, and how they are read and measured.

    Attributes:
        parts: the images of domains.
        settings: how they are read, trained on and measured.
        memory: batches in memory, used instead; the network then stays on its device and in its mode.
    """

    parts: Split
    settings: Settings
    memory: MemoryBatches | None = None

    def batches(self, network: Network, stage: str, parts: Sequence[DomainItems] | None = None) -> Iterator[Batch]:
        """The batches in memory; else endless training batches on the device, with random draws of ``stage``.

        They are of ``parts``, by default of the training images.
        """
        if self.memory is not None:
            return iter(self.memory)
        device = pick(self.settings.run.device)
        stream = protocol.training(parts or self.parts.train, network.label_space, self.settings, stage=stage)
        return (batch.to(device) for batch in stream(0, 0, 1))

    def score(self, network: Network, parts: Sequence[DomainItems]) -> float:
        """The mIoU (or the IoU of ``evaluate.select_class``) averaged over ``parts``, or for image-level classes the
        accuracy over all their images.

        Parts without a labelled pixel do not count and are named in the log.
        """
        pairs = [("source-val", part) for part in parts]
        table = protocol.measure(network, pairs, self.settings)
        score = table.intra_of(self.settings.evaluate.select_class)
        if score is None:
            names = ", ".join(domain.name for domain, _ in parts)
            raise InputError(f"prune: {names}: the measured images have no labelled pixel; measure more images")
        for name in table.unscored:
            logger.info("prune: %s: its measured images have no labelled pixel, so it does not count", name)
        return score


def checked(choice: Prune, network: Network, view: DataView) -> tuple[DomainItems, ...]:
    """The images of the stop rule, none without one, after the checks for minimum widths and stop rule.

    Raises:
        InputError: for ``floors`` without sources, and what `_held_out` raises.
    """
    if choice.floors and not view.parts.val:
        raise InputError(_NO_SOURCES)
    return _held_out(choice.stop, network, view) if choice.stop else ()


_NO_SOURCES = "prune.floors: sensitivities are measured on the sources' held-out images; name data.sources"


def _held_out(stop: Stop, network: Network, view: DataView) -> tuple[DomainItems, ...]:
    """The images of the stop rule, evenly spread over its domains and over the images of each.

    Raises:
        InputError: for a source domain, an unseen domain unless ``evaluate.select`` is ``oracle``, or labels that the
            network cannot be measured on.
    """
    data = view.settings.data
    domains = sources.domains(stop.domains, root=sources.data_root(data.root), options=data.datasets)
    unseen = {domain.name for domain, _ in view.parts.unseen}
    for domain in domains:
        if domain.name in view.parts.sources:
            raise InputError(f"prune.stop.domains: {domain.name!r} is trained on; name a domain not in data.sources")
        if domain.name in unseen and view.settings.evaluate.select != "oracle":
            raise InputError(
                f"prune.stop.domains: {domain.name!r} is in data.unseen, and unseen domains select nothing; name "
                "another, or set evaluate.select to oracle"
            )
    chosen = spread([(domain, domain.items()) for domain in domains], stop.images)
    protocol.checked(Split((), (), chosen), network, data)
    return chosen


def stop_rule(work: Work, choice: Prune, parts: Sequence[DomainItems], view: DataView) -> Callable[[Removed], bool]:
    """``good(removed)``: whether the network without ``removed`` has lost no more than the stop rule allows.

    It is measured on a copy, after batch-norm re-estimation as it is done after the cut.
    """
    assert choice.stop is not None, "the recipe has a stop rule"
    dense, drop = view.score(masked_copy(work.network, (), {}), parts), choice.stop.drop
    logger.info("prune: %.4f on the domains of the stop rule before pruning", dense)

    def good(removed: Removed) -> bool:
        trial = masked_copy(work.network, work.units, removed)
        reestimate_norms(trial, choice, view)
        score = view.score(trial, parts)
        count = sum(map(len, removed.values()))
        logger.info("prune: %.4f on the domains of the stop rule without %d channels", score, count)
        return dense - score <= drop

    return good


def measure_sensitivity(work: Work, floors: Floors, view: DataView) -> Sweep:
    """The sensitivity sweep of ``work.network``, whose weights do not change.

    Raises:
        InputError: without sources, since it is measured on their validation images.
    """
    if not view.parts.val:
        raise InputError(_NO_SOURCES)
    network, criterion = work.network.train(), work.criterion
    uses_batches = criterion.needs_data and not criterion.sparse
    if uses_batches:
        work = replace(work, batches=view.batches(network, "score"))
    scores = score_without_training(work, floors.batches) if uses_batches else criterion.scores()
    groups = stages(network, work.units) if floors.by == "stage" else alone(work.units)
    parts = spread(view.parts.val, floors.images)
    logger.info("prune: measuring %d groups of units at %d shares", len(groups), len(floors.shares))
    return sweep(network, scores, groups, floors.shares, lambda trial: view.score(trial, parts))


def reestimate_norms(network: Network, choice: Prune, view: DataView) -> None:
    """Batch-norm re-estimation: compute the statistics again from ``choice.reestimate`` training batches, in place.

    Nothing is done with 0 batches, or without sources and batches in memory.

    Raises:
        InputError: for batches too small for a batch norm.
    """
    has_batches = bool(view.parts.train) if view.memory is None else view.memory.given
    if not choice.reestimate or not has_batches or not norms.countable(network):
        return
    try:
        stream = islice(view.batches(network, "reestimate"), choice.reestimate)
        norms.reestimate(network, (batch.images for batch in stream))
    except ValueError as error:
        if isinstance(error, InputError) or "more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            f"optim.batch: {view.settings.optim.batch} image at a time is too few to re-estimate the batch norm "
            f"of {type(network).__name__}'s 1x1 map; use 2 or more, or set prune.reestimate to 0"
        ) from None


def spread(parts: Sequence[DomainItems], images: int) -> tuple[DomainItems, ...]:
    """About ``images`` in total, the same number from each part (at least one), evenly spread over its items."""
    chosen = []
    for index, (domain, items) in enumerate(parts):
        share = max(1, (images + len(parts) - 1 - index) // len(parts))
        count = min(share, len(items))
        chosen.append((domain, tuple(items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count))))
    return tuple(chosen)
