"""``hardy data``: decode, count and check data before anything is trained on them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import track

from hardy.commands._print import percent, say, show_rows
from hardy.data import check, sources
from hardy.data.base import Item

__all__ = ["run"]


def run(domains: Sequence[str], *, root: str | None, datasets: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Read every image and label of ``domains`` and print images per split and the share of pixels per class.

    Raises:
        InputError: for the first error in the data, naming file, id and count; nothing is printed then.
    """
    chosen = sources.domains(domains, root=sources.data_root(root), options=datasets)
    labels = chosen[0].dataset.labels
    data = [(domain, domain.items()) for domain in chosen]
    counts = check.count_labels(data, labels, decode="all", over=_over)
    rows = [
        [
            domain.name,
            ", ".join(f"{name} {len(items)}" for name, items in domain.splits.items()),
            domain.dataset.labels.name,
        ]
        for domain in chosen
    ]
    show_rows("domains", ["domain", "images per split", "label space"], rows)
    total = counts.classes.sum()
    shares = [[name, percent(count / total)] for name, count in zip(labels.classes, counts.classes, strict=True)]
    show_rows("every label was read: each id is in the map", ["class", "share of labelled pixels %"], shares)
    if missing := check.gaps(data, labels, counts):
        say(missing)


def _over(items: Sequence[Item]) -> Iterable[Item]:
    """``items`` with a progress bar on a terminal."""
    screen = Console(stderr=True)
    return track(items, "decoding", console=screen, transient=True, disable=not screen.is_terminal)
