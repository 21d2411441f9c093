"""Find domains by references such as ``camvid/0001TP``, and split their images into training and validation items.

A reference is ``dataset/domain``, or ``dataset`` (the same as ``dataset/*``) for all domains of a dataset. The split is
either a seeded hold-out of each domain's images, or the dataset's own split.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hardy.data.base import Dataset, Domain, Item
from hardy.data.finding import composed
from hardy.errors import InputError, nearest, quoted
from hardy.files import expanded
from hardy.registry import DATASETS
from hardy.seed import key

__all__ = ["Source", "beside_data", "data_root", "domains", "holdout", "leave_one_out", "sources"]


@dataclass(frozen=True)
class Source:
    """A domain with its training items and its held-out items, which select the weights.

    Attributes:
        domain: the domain.
        train: its training items.
        val: its validation items, disjoint from ``train``.
    """

    domain: Domain
    train: tuple[Item, ...]
    val: tuple[Item, ...]


def data_root(given: str | Path | None = None) -> Path:
    """The folder of all datasets: ``given``, else the environment variable HARDY_DATA, else ``../shared/data`` if it
    exists, else ``data``.
    """
    if given is not None:
        return expanded(given)
    if os.environ.get("HARDY_DATA"):
        return expanded(os.environ["HARDY_DATA"])
    beside = Path("../shared/data")
    return beside if beside.is_dir() else Path("data")


def beside_data(path: str | Path) -> Path:
    """``path`` if it exists or is absolute; else the same path below the folder of all datasets, if that exists."""
    own = expanded(path)
    beside = data_root() / own
    return beside if not own.exists() and beside.exists() else own


def domains(
    references: Sequence[str], *, root: Path, options: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Domain]:
    """The domains that ``references`` name, in the order of the references.

    Args:
        references: such as ``["camvid/0001TP", "cityscapes/*"]``.
        root: the folder of all datasets.
        options: dataset name -> its options; ``root`` among them replaces ``root`` for that dataset.

    Raises:
        InputError: for an unknown dataset, option or domain (the message names the nearest known), no reference, a
            domain named twice, or missing data.
    """
    if not references:
        raise InputError("no data named; give references such as camvid/0001TP")
    built: dict[str, Dataset] = {}
    found: list[Domain] = []
    for reference in references:
        name, _, wanted = reference.partition("/")
        if name not in built:
            own = dict((options or {}).get(name, {}))
            place = own.pop("root", root)
            if not isinstance(place, str | Path):
                raise InputError(f"data.datasets.{name}.root: {quoted(place)} is not a path; write it as text")
            built[name] = DATASETS.build(name, {"root": expanded(place)}, **own)
        found.extend(_matching(reference, name, wanted or "*", built[name]))
    names = [domain.name for domain in found]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"domain {name!r} is named twice in {', '.join(references)}")
    return found


def _matching(reference: str, name: str, wanted: str, dataset: Dataset) -> list[Domain]:
    index = {composed(domain): splits for domain, splits in dataset.index().items()}
    wanted = composed(wanted)
    if wanted != "*" and wanted not in index:
        have = ", ".join(index)
        raise InputError(f"{reference!r}: {name} has no domain {wanted!r}{nearest(wanted, index)}; it has: {have}")
    return [Domain(f"{name}/{d}", dataset, splits) for d, splits in index.items() if wanted in ("*", d)]


def holdout(domain: Domain, *, share: float = 0.1, seed: int = 0) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """(training, validation) items of ``domain``.

    Validation gets ``share`` of the images, at least one, drawn at random. The draw depends only on the seed, the
    domain's name and its number of images. Both parts keep the domain's order.

    Raises:
        InputError: for a share outside (0, 1), or a domain of fewer than two images.
    """
    if not 0 < share < 1:
        raise InputError(f"share of held-out images is {share}; it must be between 0 and 1")
    items = domain.items()
    if len(items) < 2:
        raise InputError(f"{domain.name}: it has {len(items)} image, too few for training and validation; add images")
    count = min(max(1, round(share * len(items))), len(items) - 1)
    order = np.random.default_rng(key(seed, "holdout", domain.name)).permutation(len(items))
    held = set(order[:count].tolist())
    train = tuple(item for i, item in enumerate(items) if i not in held)
    return train, tuple(items[i] for i in sorted(held))


def sources(
    chosen: Sequence[Domain], *, split: Literal["holdout", "given"] = "holdout", share: float = 0.1, seed: int = 0
) -> list[Source]:
    """Training and validation items of each domain: by `holdout`, or the dataset's own ``train`` and ``val``.

    Raises:
        InputError: as `holdout`; with ``given``, for a domain without one of the two splits.
    """
    if split == "holdout":
        return [Source(domain, *holdout(domain, share=share, seed=seed)) for domain in chosen]
    for domain in chosen:
        for needed in ("train", "val"):
            if not domain.splits.get(needed):
                have = ", ".join(domain.splits)
                raise InputError(f"{domain.name}: has no split {needed!r}, only {have}; use the split 'holdout'")
    return [Source(domain, domain.items("train"), domain.items("val")) for domain in chosen]


def leave_one_out(chosen: Sequence[Domain]) -> Iterator[tuple[list[Domain], Domain]]:
    """Each domain in turn as the unseen one, with all others as sources: (sources, unseen).

    Raises:
        InputError: for fewer than two domains.
    """
    if len(chosen) < 2:
        raise InputError(f"leaving one domain out needs at least two domains, got {len(chosen)}")
    for unseen in chosen:
        yield [domain for domain in chosen if domain is not unseen], unseen
