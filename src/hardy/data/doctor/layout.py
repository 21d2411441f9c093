"""Recognises the dataset in a folder: every dataset of the registry is tried."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hardy.data import sources
from hardy.data.base import AbsentError, Domain
from hardy.data.decoding import raw_mask
from hardy.data.finding import IMAGE_SUFFIXES, files, unpaired_left_out
from hardy.errors import InputError
from hardy.registry import DATASETS

__all__ = ["found_in", "named"]

_OWN = "folder"
_SAMPLE = 50


def named(
    words: Sequence[str], *, root: Path, options: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[list[Domain], list[Path]]:
    """The domains that ``words`` name, and the images without masks and masks without images that are left out.

    A word is a domain such as ``camvid/0001TP``, or a folder whose layout is recognised.

    Raises:
        InputError: as `hardy.data.sources.domains`, and for a folder in which no dataset or two are recognised.
    """
    references = [word for word in words if word.partition("/")[0] in DATASETS or ":" in word]
    folders = [word for word in words if word not in references]
    domains: list[Domain] = []
    with unpaired_left_out() as unpaired:
        if references:
            domains += sources.domains(references, root=root, options=options)
        for word in folders:
            domains += found_in(Path(word), options=options)
    return domains, [*dict.fromkeys(unpaired)]


def found_in(folder: Path, *, options: Mapping[str, Mapping[str, Any]] | None = None) -> list[Domain]:
    """The domains of all datasets whose layout ``folder``, or a sub-folder with the dataset's usual name, has.

    Raises:
        InputError: if there is no such folder; if no layout fits (the message says what to do); if two layouts fit the
            same images; and what the dataset raises if only one layout fits.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: it is neither a folder nor a dataset; hardy list dataset shows the datasets")
    log = logging.getLogger("hardy")
    found: dict[str, list[Domain]] = {}
    refused: list[InputError] = []
    for name in (name for name in DATASETS if not DATASETS.get(name).drawn):  # type: ignore[attr-defined]
        quiet, log.disabled = log.disabled, True
        try:
            domains = sources.domains([name], root=folder, options=options)
            if domains:
                found[name] = domains
        except AbsentError:
            continue
        except InputError as error:
            refused.append(error)
        finally:
            log.disabled = quiet
    if not found and refused:
        raise refused[0]
    if not found:
        raise InputError(_unknown(folder))
    return [domain for domains in _apart(folder, found).values() for domain in domains]


def _apart(folder: Path, found: Mapping[str, list[Domain]]) -> dict[str, list[Domain]]:
    """``found`` without the dataset `folder` if another dataset has the same images.

    Raises:
        InputError: if two other datasets have the same images.
    """
    images = {
        name: {domain.dataset.name_of(item) for domain in own for item in domain.items()} for name, own in found.items()
    }
    kept = dict(found)
    for name in [*found]:
        twins = [other for other in kept if other != name and images[other] & images[name]]
        if twins and name == _OWN:
            del kept[name]
        elif twins and twins != [_OWN]:
            raise InputError(
                f"{folder}: it has the layouts of {name} and of {twins[0]}; name the right one: "
                f"hardy data check {name} --root {folder}"
            )
    return kept


def _unknown(folder: Path) -> str:
    """The message for a folder in which no layout is recognised."""
    images, masks = folder / "images", folder / "masks"
    if images.is_dir() and masks.is_dir():
        if lines := _classes(masks):
            return (
                f"{folder}/classes.yaml: there is no such file; it names the classes of the masks, which have "
                f"{lines}; write a line such as '- {{name: road, id: 0}}' for each"
            )
        return f"{folder}/classes.yaml: there is no such file; it names the classes of the masks"
    count = sum(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.rglob("*"))
    inside = sorted(path.name for path in folder.iterdir() if path.is_dir())[:6]
    holds = f"it holds {count} images" + (f" and the folders {', '.join(inside)}" if inside else "")
    return (
        f"{folder}: unknown layout ({holds}); put images into {folder}/images, masks of the same names into "
        f"{folder}/masks and the classes into {folder}/classes.yaml, or see hardy list dataset"
    )


def _classes(masks: Path) -> str:
    """The ids, or the number of colours, in the first masks."""
    ids: set[int] = set()
    for path in files(masks)[:_SAMPLE]:
        try:
            pixels = raw_mask(path).pixels
        except InputError:
            continue
        if pixels.ndim == 3:
            return "colours (give each class its colour)"
        ids |= {*map(int, set(pixels.ravel().tolist()))}
    shown = [str(one) for one in sorted(ids)]
    return f"the ids {', '.join(shown[:20])}{', ...' if len(shown) > 20 else ''}" if shown else ""
