"""How often a network predicts what its teacher predicts, domain by domain.

    agreement(D) = share of the labelled pixels (or images) of D at which argmax student = argmax teacher

Both predict at the size of the labels, with the window, scales and flip of the evaluation; the classes of the teacher
are matched by name, and those that the student lacks are left out. The labels only say which pixels count, so that
agreement and scores are about the same pixels. A student that agrees in known domains and not in unseen ones has not
learned there what its teacher knows; one that agrees with a teacher that is wrong there gains nothing.

Source: Stanton, Izmailov, Kirichenko, Alemi and Wilson, "Does knowledge distillation really work?", NeurIPS 2021,
section 3 (average top-1 agreement), per pixel for segmentation.
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

import torch

from hardy.data.base import DomainItems
from hardy.device import pick
from hardy.distillation._matching import class_order, in_order
from hardy.engine.evaluate import Predictor, evaluating
from hardy.engine.protocol import Settings, Split, predictor, reading, shared
from hardy.errors import InputError
from hardy.networks.base import Network, resize
from hardy.networks.building.teacher import Teacher
from hardy.types import IGNORE, Batch

__all__ = ["METRIC", "agreements", "comparable", "measured", "share", "values"]

_log = logging.getLogger("hardy")

METRIC = "agreement"
"""The name in records."""


def comparable(network: Network, teacher: Teacher) -> bool:
    """Whether both predict masks, or one class per image, and ``teacher`` predicts the classes of ``network``; if not,
    a line of the log says so."""
    lacking = set(network.label_space.classes) - set(teacher.label_space.classes)
    if network.image_level == teacher.image_level and not lacking:
        return True
    _log.info("no agreement with the teacher is measured: it predicts %s", teacher.label_space.name)
    return False


@torch.no_grad()
def share(student: Predictor, teacher: Predictor, batches: Iterable[Batch], device: torch.device) -> float:
    """The share, in [0, 1], of the labelled pixels or images of ``batches`` where both predict the same class.

    Args:
        student: images (B, 3, H, W) -> logits (B, K, h, w) or (B, K).
        teacher: the same, with the same classes in the same order.
        batches: images, and labels whose ids say no more than whether a pixel counts.
        device: to predict on.

    Returns:
        NaN where nothing is labelled.
    """
    same = counted = 0
    for batch in batches:
        here = batch.to(device)
        found = []
        for predict in (student, teacher):
            logits = predict(here.images).float()
            found.append((resize(logits, here.labels.shape[-2:]) if logits.ndim == 4 else logits).argmax(dim=1))
        labelled = here.labels != IGNORE
        same += int((found[0] == found[1])[labelled].sum())
        counted += int(labelled.sum())
    return same / counted if counted else math.nan


def agreements(
    network: Network, teacher: Teacher, parts: Sequence[tuple[str, DomainItems]], settings: Settings
) -> dict[str, tuple[str, float]]:
    """Domain -> (its group, the agreement of ``network`` and ``teacher`` there), for domains with a labelled pixel.

    Args:
        network: the student; its mode does not change.
        teacher: predicts at least its classes.
        parts: pairs of a group, ``source-val`` or ``unseen``, and a domain with its images.
        settings: how images are read and predicted.

    Raises:
        InputError: for a teacher that lacks classes. A domain that cannot be read, or whose images the teacher does not
            take, is named in the log and left out.
    """
    order = class_order(network.label_space, teacher.label_space)
    device = pick(settings.run.device)
    network.to(device)
    teacher.to(device)
    mine = predictor(network, settings.evaluate)
    theirs = predictor(lambda images: in_order(teacher(images), order), settings.evaluate)
    found = {}
    with evaluating(network):
        for group, (domain, items) in parts:
            batches = reading(settings)((domain, items), shared(domain, network)[0])
            try:
                found[domain.name] = (group, share(mine, theirs, batches, device))
            except (InputError, OSError) as error:
                _log.warning("%s: no agreement with the teacher: %s", domain.name, " ".join(str(error).split()))
    return {name: pair for name, pair in found.items() if not math.isnan(pair[1])}


def values(found: Mapping[str, tuple[str, float]]) -> list[tuple[str, str, float]]:
    """(target, metric, value) for records: every domain, the mean ``intra`` and ``unseen``, and the ``worst``."""
    known = [value for group, value in found.values() if group == "source-val"]
    away = [value for group, value in found.values() if group == "unseen"]
    summary = {"intra": fmean(known)} if known else {}
    summary |= {"unseen": fmean(away), "worst": min(away)} if away else {}
    return [(name, METRIC, value) for name, (_, value) in found.items()] + [
        (target, METRIC, value) for target, value in summary.items()
    ]


def measured(
    network: Network, teacher: Teacher, images: Split, settings: Settings
) -> tuple[list[tuple[str, str, float]], list[str]]:
    """The `values` of ``network`` and ``teacher`` on the measured ``images`` of a run, and the lines to show, if any.

    Raises:
        InputError: what `agreements` raises.
    """
    parts = [("source-val", part) for part in images.val] + [("unseen", part) for part in images.unseen]
    found = values(agreements(network, teacher, parts, settings))
    means = {target: value for target, _, value in found}
    named = [
        f"{means[of]:.1%} of {what}" for of, what in (("intra", "source-val"), ("unseen", "unseen")) if of in means
    ]
    return found, [f"predicts what its teacher predicts: on {', '.join(named)}"] if named else []
