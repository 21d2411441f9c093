"""Converts any dataset with masks to the dataset `folder`: images copied, masks as index PNGs, classes and splits as
text."""

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from hardy.data.base import Domain, Item
from hardy.data.label_spaces import SPACES, LabelSpace, find_label_space
from hardy.data.label_spaces import convert as table_of
from hardy.errors import InputError
from hardy.files import remove, temporary
from hardy.types import IGNORE

__all__ = ["convert"]


def convert(
    domains: Sequence[Domain],
    target: Path,
    *,
    classes: str | None = None,
    over: Callable[[Sequence[Item], str], Iterable[Item]] = lambda items, _: items,
) -> int:
    """Write ``domains`` into the folder ``target``; returns the number of images.

    A domain ``camvid/0001TP`` becomes ``0001TP``, or ``camvid/0001TP`` if the domains are from several datasets. The
    files ``train.txt``, ``val.txt`` and so on hold the splits. Everything is first written to a temporary folder.

    Args:
        domains: the domains to write; they have the same label space, or declared maps onto ``classes``.
        target: a folder that does not exist yet, or is empty.
        classes: the label space of the masks; None for that of the first domain.
        over: iterates over the items of a domain, for example with a progress bar.

    Raises:
        InputError: for a target that exists, labels that are not masks, a label space without a declared map, or a file
            that cannot be read or written. Then nothing is written.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target}: it already exists; give another folder")
    for domain in domains:
        if domain.dataset.image_level:
            raise InputError(f"{domain.name}: it has one class per image; only masks can be converted")
    label_space = domains[0].dataset.label_space if classes is None else find_label_space(classes)
    tables = [_table(domain, label_space) for domain in domains]
    waiting = temporary(target.absolute())
    remove(waiting)
    try:
        count = _write(domains, tables, label_space, waiting, over)
        if target.exists():
            target.rmdir()
        waiting.rename(target)
    except OSError as error:
        raise InputError(f"{target}: it cannot be written: {error.strerror or error}") from None
    finally:
        remove(waiting)
    return count


def _table(domain: Domain, label_space: LabelSpace) -> np.ndarray:
    own = domain.dataset.label_space
    table = table_of(own, label_space)
    if table is None:
        onto = [name for name, space in SPACES.items() if name != own.name and table_of(own, space) is not None]
        fix = (
            f"there is one onto {', '.join(onto)}"
            if onto
            else "convert it without --classes and merge ids in classes.yaml"
        )
        raise InputError(
            f"{domain.name}: no map is declared from its classes {own.name!r} onto {label_space.name!r}; {fix}"
        )
    return table


def _write(
    domains: Sequence[Domain],
    tables: Sequence[np.ndarray],
    label_space: LabelSpace,
    folder: Path,
    over: Callable[[Sequence[Item], str], Iterable[Item]],
) -> int:
    several = len({domain.name.partition("/")[0] for domain in domains}) > 1
    splits: dict[str, list[str]] = {}
    taken: set[str] = set()
    for domain, table in zip(domains, tables, strict=True):
        place = domain.name if several else domain.name.partition("/")[2]
        split_of = {item: split for split, items in domain.splits.items() for item in items}
        for item in over([*split_of], domain.name):
            image, label = domain.dataset.read(item)
            stem = Path(domain.dataset.name_of(item)).stem
            name = next(n for n in (f"{place}/{stem}{'-' * bool(i)}{i or ''}" for i in range(10**6)) if n not in taken)
            taken.add(name)
            _image(domain, item, image, folder / "images" / name)
            _mask(table[label], label_space, folder / "masks" / f"{name}.png")
            splits.setdefault(split_of[item], []).append(name)
    entries = [
        {"name": name, "colour": list(colour), "id": place}
        for place, (name, colour) in enumerate(zip(label_space.classes, label_space.colours, strict=True))
    ]
    text = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, default_flow_style=None)
    (folder / "classes.yaml").write_text(text, encoding="utf-8")
    if set(splits) != {"all"}:
        for split, names in splits.items():
            (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return len(taken)


def _image(domain: Domain, item: Item, pixels: np.ndarray, path: Path) -> None:
    """Copy the image's file, or write its pixels if it has no file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = item[0] if isinstance(item, tuple) and isinstance(item[0], Path) else None
    if source is not None:
        shutil.copyfile(source, path.with_name(f"{path.name}{source.suffix.lower()}"))
    else:
        Image.fromarray(pixels).save(path.with_name(f"{path.name}.png"))


def _mask(ids: np.ndarray, label_space: LabelSpace, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(ids)
    palette = np.zeros((IGNORE + 1, 3), dtype=np.uint8)
    palette[: len(label_space)] = label_space.colours
    mask.putpalette(palette.ravel().tolist())
    mask.save(path, format="PNG")
