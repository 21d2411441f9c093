"""What pruning measures on its way: sensitivities and the floors from them, the stop rule, batch-norm re-estimation.

The floors are measured on the sources' validation images; the stop rule on domains that are neither trained on nor
unseen, so that the unseen ones go on choosing nothing.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from hardy.data import sources
from hardy.data.base import Domain, Item
from hardy.device import pick
from hardy.engine import protocol
from hardy.engine.held import Held
from hardy.engine.protocol import Settings, Split
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.ops import norms
from hardy.pruning.masked import masked_copy
from hardy.pruning.schedules._rest import score_at_rest
from hardy.pruning.schedules.base import Work
from hardy.pruning.select import Removed
from hardy.pruning.sweep import Sweep, alone, stages, sweep
from hardy.recipe import Prune
from hardy.sections import Floors, Stop
from hardy.types import Batch

__all__ = ["Sight", "checked", "reestimated", "spread", "stop_rule", "swept"]

Part = tuple[Domain, Sequence[Item]]

logger = logging.getLogger("hardy")


@dataclass(frozen=True)
class Sight:
    """What images pruning sees, and how it reads and measures them.

    Attributes:
        parts: the images of domains.
        settings: how they are read, trained on and measured.
        held: batches in memory in their place; the network then stays on its device and in its mode.
    """

    parts: Split
    settings: Settings
    held: Held | None = None

    def batches(self, network: Network, stage: str) -> Iterator[Batch]:
        """Endless training batches on the device, the draws of ``stage`` their own; or those that are held."""
        if self.held is not None:
            return iter(self.held)
        device = pick(self.settings.run.device)
        stream = protocol.training(self.parts.train, network.labels, self.settings, stage=stage)
        return (batch.to(device) for batch in stream(0, 0, 1))

    def score(self, network: Network, parts: Sequence[Part]) -> float:
        """The mean over ``parts`` of mIoU (or of the IoU of ``evaluate.select_class``), or for image-level classes the
        accuracy over all their images; parts without a labelled pixel do not count and go to the log."""
        found = [("source-val", part) for part in parts]
        table = protocol.measure(network, found, self.settings)
        score = table.intra_of(self.settings.evaluate.select_class)
        if score is None:
            names = ", ".join(domain.name for domain, _ in parts)
            raise InputError(f"prune: {names}: the images looked at have no labelled pixel; look at more images")
        for name in table.unscored:
            logger.info("prune: %s: the images looked at have no labelled pixel, so it has no part in the score", name)
        return score


def checked(choice: Prune, network: Network, sight: Sight) -> tuple[Part, ...]:
    """The images of the stop rule, none without one, after all that floors and stop rule need was checked.

    Raises:
        InputError: for floors without sources, and what `_held_out` raises.
    """
    if choice.floors and not sight.parts.val:
        raise InputError(_NO_SOURCES)
    return _held_out(choice.stop, network, sight) if choice.stop else ()


_NO_SOURCES = "prune.floors: sensitivities are measured on the sources' held-out images; name data.sources"


def _held_out(stop: Stop, network: Network, sight: Sight) -> tuple[Part, ...]:
    """The images of the stop rule, evenly spread over its domains and over the images of each.

    Raises:
        InputError: for a domain that is trained on, one that is unseen unless ``evaluate.select`` is ``oracle``, or
            labels that the network cannot be measured on.
    """
    data = sight.settings.data
    found = sources.domains(stop.domains, root=sources.data_root(data.root), options=data.datasets)
    unseen = {domain.name for domain, _ in sight.parts.unseen}
    for domain in found:
        if domain.name in sight.parts.sources:
            raise InputError(f"prune.stop.domains: {domain.name!r} is trained on; name a domain not in data.sources")
        if domain.name in unseen and sight.settings.evaluate.select != "oracle":
            raise InputError(
                f"prune.stop.domains: {domain.name!r} is in data.unseen, and unseen domains choose nothing; name "
                "another, or set evaluate.select to oracle"
            )
    chosen = spread([(domain, domain.items()) for domain in found], stop.images)
    protocol.checked(Split((), (), chosen), network, data)
    return chosen


def stop_rule(work: Work, choice: Prune, parts: Sequence[Part], sight: Sight) -> Callable[[Removed], bool]:
    """``good(removed)``: whether the network without ``removed`` has lost no more than the stop rule allows.

    It is tried on a copy whose batch norms are re-estimated as they will be after the cut.
    """
    assert choice.stop is not None, "there is a stop rule"
    dense, drop = sight.score(masked_copy(work.network, (), {}), parts), choice.stop.drop
    logger.info("prune: %.4f on the domains of the stop rule before pruning", dense)

    def good(removed: Removed) -> bool:
        trial = masked_copy(work.network, work.units, removed)
        reestimated(trial, choice, sight)
        score = sight.score(trial, parts)
        gone = sum(map(len, removed.values()))
        logger.info("prune: %.4f on the domains of the stop rule without %d channels", score, gone)
        return dense - score <= drop

    return good


def swept(work: Work, floors: Floors, sight: Sight) -> Sweep:
    """The sensitivity sweep of ``work.network``, which stays as it is.

    Raises:
        InputError: without sources, on whose validation images it is measured.
    """
    if not sight.parts.val:
        raise InputError(_NO_SOURCES)
    network, criterion = work.network.train(), work.criterion
    looking = criterion.needs_data and not criterion.sparse
    if looking:
        work = replace(work, batches=sight.batches(network, "score"))
    scores = score_at_rest(work, floors.batches) if looking else criterion.scores()
    groups = stages(network, work.units) if floors.by == "stage" else alone(work.units)
    parts = spread(sight.parts.val, floors.images)
    logger.info("prune: measuring %d groups of units at %d shares", len(groups), len(floors.shares))
    return sweep(network, scores, groups, floors.shares, lambda trial: sight.score(trial, parts))


def reestimated(network: Network, choice: Prune, sight: Sight) -> None:
    """Re-estimate the statistics of the batch norms from ``choice.reestimate`` training batches, in place.

    Nothing happens without sources or batches in memory, or with 0 batches.

    Raises:
        InputError: for batches too small for a batch norm.
    """
    seen = bool(sight.parts.train) if sight.held is None else sight.held.given
    if not choice.reestimate or not seen or not norms.countable(network):
        return
    try:
        stream = islice(sight.batches(network, "reestimate"), choice.reestimate)
        norms.reestimate(network, (batch.images for batch in stream))
    except ValueError as error:
        if isinstance(error, InputError) or "more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            f"optim.batch: {sight.settings.optim.batch} image at a time is too few to count the batch norm of "
            f"{type(network).__name__}'s 1x1 map anew; use 2 or more, or set prune.reestimate to 0"
        ) from None


def spread(parts: Sequence[Part], images: int) -> tuple[Part, ...]:
    """About ``images`` in all: as many of each part, at least one, evenly spread over its items."""
    found = []
    for place, (domain, items) in enumerate(parts):
        share = max(1, (images + len(parts) - 1 - place) // len(parts))
        count = min(share, len(items))
        found.append((domain, tuple(items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count))))
    return tuple(found)
