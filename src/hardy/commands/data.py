"""``hardy data``: count, read and check data before anything is trained on them."""

from collections.abc import Sequence

from hardy.commands._print import percent, show_rows
from hardy.data import check, sources

__all__ = ["run"]


def run(domains: Sequence[str], *, root: str | None) -> None:
    """Read every label of ``domains`` once and print images per split and the share of pixels per class.

    Raises:
        InputError: for the first thing wrong with the data, naming file, id and count.
    """
    found = sources.domains(domains, root=sources.data_root(root))
    rows = [
        [
            domain.name,
            ", ".join(f"{name} {len(items)}" for name, items in domain.splits.items()),
            domain.dataset.labels.name,
        ]
        for domain in found
    ]
    show_rows("domains", ["domain", "images per split", "label space"], rows)
    labels = found[0].dataset.labels
    counts = check.check_labels([(domain, domain.items()) for domain in found], labels)
    total = counts.sum()
    shares = [[name, percent(count / total)] for name, count in zip(labels.classes, counts, strict=True)]
    show_rows("every label was read: each id is in the map", ["class", "share of labelled pixels %"], shares)
