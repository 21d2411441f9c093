"""The images that select the weights: those of domains with a labelled pixel."""

import logging
from collections.abc import Callable, Sequence

import numpy as np

from hardy.data.base import Domain, DomainItems, Item
from hardy.data.label_spaces import LabelSpace
from hardy.data.loader import label_map
from hardy.engine.evaluate import ScoreTable
from hardy.errors import InputError, nearest
from hardy.sections import Evaluate
from hardy.types import IGNORE

__all__ = ["chosen", "known_classes", "labelled", "warn_of"]

Judge = tuple[str, DomainItems]
"""A part that is measured, with its group."""

_log = logging.getLogger("hardy")


def chosen(val: Sequence[DomainItems], unseen: Sequence[DomainItems], choice: Evaluate) -> list[Judge]:
    """The images that select the weights, none for ``last``; their group is always source validation.

    Raises:
        InputError: for ``oracle`` without unseen domains.
    """
    if choice.select == "oracle" and not unseen:
        raise InputError("evaluate.select: oracle selects by data.unseen, which names no domain")
    parts = {"source-val": val, "oracle": unseen, "last": ()}[choice.select]
    return [("source-val", part) for part in parts]


def labelled(judges: Sequence[Judge], space: Callable[[Domain], LabelSpace]) -> list[Judge]:
    """The ``judges`` with a labelled pixel in the ``space`` they are measured in; the others are named in the log.

    Labels are read until the first labelled pixel is found.

    Raises:
        InputError: when there are judges and none has a labelled pixel.
    """
    useful = [judge for judge in judges if _labelled(*judge[1], space(judge[1][0]))]
    lacking = [domain.name for _, (domain, _) in judges if domain.name not in {d.name for _, (d, _) in useful}]
    if judges and not useful:
        raise InputError(
            f"evaluate.select: no held-out image of {', '.join(lacking)} has a labelled pixel, so none can select the "
            "weights to keep; look at the masks, or set evaluate.select to last"
        )
    for name in lacking:
        _log.warning("%s: no held-out image has a labelled pixel; the other domains select the weights to keep", name)
    return useful


def known_classes(choice: Evaluate, space: LabelSpace, *, image_level: bool) -> None:
    """Refuse classes of ``choice`` that are not in ``space``.

    Raises:
        InputError: naming key and class, or for an ``image_level`` network, whose classes have no IoU.
    """
    asked = [("classes", name) for name in choice.classes] + [("select_class", choice.select_class)]
    for key, name in asked:
        if name is None:
            continue
        if image_level:
            raise InputError(f"evaluate.{key}: {name!r} has no IoU where there is one class per image; leave it out")
        if name not in space.classes:
            hint = nearest(name, space.classes)
            raise InputError(f"evaluate.{key}: {space.name} has no class {name!r}{hint}")


def warn_of(table: ScoreTable, where: str, by: str | None = None) -> None:
    """Log the domains of ``table`` that could not be read, and warn when none has a score (an IoU of class ``by``)."""
    for name, reason in table.failed.items():
        _log.warning("%s: %s does not count in the selection of weights: %s", where, name, reason)
    if table.intra_of(by) is None:
        _log.warning("%s: no domain has a score; without any score the weights of the last step are kept", where)


def _labelled(domain: Domain, items: Sequence[Item], space: LabelSpace) -> bool:
    table = label_map(domain, space)
    maps = (np.ravel(domain.dataset.read_label(item)) for item in items)
    return any((ids if table is None else table[ids]).min(initial=IGNORE) < IGNORE for ids in maps)
