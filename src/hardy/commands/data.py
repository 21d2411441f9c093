"""``hardy data``: find mistakes in data before training, look at data, and convert data."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from hardy.commands.output.printing import bar, percent, say, show_rows
from hardy.data import check, sources
from hardy.data.doctor import convert as converting
from hardy.data.doctor import layout, sheet
from hardy.data.doctor.examine import Checked, Examined, examine
from hardy.data.doctor.problems import LEVELS, Problem
from hardy.errors import InputError
from hardy.registry import DATASETS
from hardy.types import IGNORE

__all__ = ["convert", "doctor", "run", "show"]

_WIDTH = 80
_MOST_DOMAINS = 4
_FILES = 3

Options = Mapping[str, Mapping[str, Any]] | None


def doctor(words: Sequence[str], *, root: str | None, datasets: Options = None, as_json: bool = False) -> int:
    """Read every image and label of ``words``; print their content and every problem with its fix.

    Args:
        words: domains such as ``camvid/0001TP``, or folders with a known layout.
        root: the folder of all datasets, for domains.
        datasets: dataset name -> its options.
        as_json: print one JSON object instead of tables.

    Returns:
        The exit code: 1 if there are mistakes, else 0.

    Raises:
        InputError: if a word is not the name of a domain, dataset or folder with data.
    """
    domains, unpaired = layout.named(words, root=sources.data_root(root), options=datasets)
    found = examine(domains, unpaired, over=bar)
    if as_json:
        print_json(found.to_json())
    else:
        _show(found)
    return 1 if found.mistakes else 0


def print_json(value: Mapping[str, Any]) -> None:
    """Print ``value`` as indented JSON, without colours or wrapping."""
    Console(highlight=False, soft_wrap=True, color_system=None).print(
        json.dumps(value, indent=1), markup=False, emoji=False
    )


def show(
    words: Sequence[str],
    to: Path,
    *,
    root: str | None,
    datasets: Options = None,
    images: int = 12,
    splits: Sequence[str] = (),
    only: str = "",
) -> None:
    """Write a contact sheet of ``words`` to the PNG or HTML file ``to``: images beside their coloured masks.

    Raises:
        InputError: if a word names no data, no image is left to show, or the file cannot be written.
    """
    domains, _ = layout.named(words, root=sources.data_root(root), options=datasets)
    images, shown = sheet.write(domains, to, images=images, splits=splits, only=only)
    say(f"wrote {images} image{'s' * (images != 1)} of {shown} domain{'s' * (shown != 1)} to {to}")


def convert(
    words: Sequence[str],
    target: Path,
    *,
    root: str | None,
    datasets: Options = None,
    classes: str | None = None,
) -> None:
    """Write the images and masks of ``words`` to ``target`` in the layout of the dataset `folder`.

    Raises:
        InputError: if a word names no data, a file cannot be read, no map to ``classes`` is declared, or the target
            exists; then nothing is written.
    """
    domains, unpaired = layout.named(words, root=sources.data_root(root), options=datasets)
    if unpaired:
        raise InputError(f"{unpaired[0]}: it has no mask or no image ({len(unpaired)} such); see hardy data check")
    count = converting.convert(domains, target, classes=classes, over=bar)
    say(f"wrote {count} images to {target}; check them: hardy data check {target}")


def run(domains: Sequence[str], *, root: str | None, datasets: Options = None) -> None:
    """Read every image and label of ``domains`` as training does; print images per split and shares of classes.

    Raises:
        InputError: for the first error in the data; the message names file, id and count, and nothing is printed.
    """
    for word in domains:
        if word.partition("/")[0] not in DATASETS and ":" not in word and Path(word).is_dir():
            raise InputError(f"{word}: it is a folder, not a domain; use: hardy data check {word}")
    chosen = sources.domains(domains, root=sources.data_root(root), options=datasets)
    label_space = chosen[0].dataset.label_space
    data = [(domain, domain.items()) for domain in chosen]
    counts = check.count_labels(data, label_space, decode="all", over=partial(bar, name="decoding"))
    rows = [
        [
            domain.name,
            ", ".join(f"{name} {len(items)}" for name, items in domain.splits.items()),
            domain.dataset.label_space.name,
        ]
        for domain in chosen
    ]
    show_rows("domains", ["domain", "images per split", "label space"], rows)
    total = counts.classes.sum()
    shares = [[name, percent(count / total)] for name, count in zip(label_space.classes, counts.classes, strict=True)]
    show_rows("every label was read: each id is in the map", ["class", "share of labelled pixels %"], shares)
    if missing := check.gaps(data, label_space, counts):
        say(missing)


def _show(found: Checked) -> None:
    """Print what was found: images, pixels per class, problems, and a summary line."""
    rows = []
    for one in found.domains:
        for split, items in one.domain.splits.items():
            sizes = f"{len(one.sizes)} sizes" if len(one.sizes) > 1 else "".join(f"{h}x{w}" for h, w in one.sizes)
            rows.append([one.domain.name, split, str(one.images[split]), str(one.masks[split]), str(len(items)), sizes])
    show_rows("what can be read", ["domain", "split", "images", "labels", "of", "size"], rows)
    spaces: dict[tuple[str, ...], list[Examined]] = {}
    for one in (one for one in found.domains if one.pixels[:IGNORE].any()):
        spaces.setdefault(one.domain.dataset.label_space.classes, []).append(one)
    for own in spaces.values():
        _show_classes(own)
    problems = [*found.problems]
    for one in problems:
        _show_problem(one)
    counts = [(sum(one.level == level for one in problems), level) for level in LEVELS]
    images = sum(sum(one.images.values()) for one in found.domains)
    what = ", ".join(f"{count} {level}{'' if count == 1 else 's'}" for count, level in counts)
    say(f"{what} in {images} images")


def _show_classes(own: Sequence[Examined]) -> None:
    """Print the share of each class in each domain of a label space; for many domains the smallest and the largest."""
    dataset = own[0].domain.dataset
    label_space, what = dataset.label_space, "images" if dataset.image_level else "labelled pixels"
    shares = [one.pixels[: len(label_space)] / max(1, one.pixels[: len(label_space)].sum()) for one in own]
    if len(own) <= _MOST_DOMAINS:
        columns = [one.domain.name.partition("/")[2] or one.domain.name for one in own]
        rows = [[name, *(_percent(share[place]) for share in shares)] for place, name in enumerate(label_space.classes)]
    else:
        columns = ["least", "most", "domains with it"]
        rows = [
            [
                name,
                _percent(min(share[place] for share in shares)),
                _percent(max(share[place] for share in shares)),
                str(sum(bool(share[place]) for share in shares)),
            ]
            for place, name in enumerate(label_space.classes)
        ]
    show_rows(f"{label_space.name}: share of {what} %", ["class", *columns], rows)


def _percent(share: float) -> str:
    """``share`` as a percentage; a dash for none at all, so that a rare class is not taken for an absent one."""
    return "–" if not share else "<0.1" if share < 5e-4 else percent(share)


def _show_problem(one: Problem) -> None:
    """Print a paragraph for one problem: where, how many, the first case, the fix, and the next cases or files."""
    many = f" ({one.count} files)" if one.count > 1 else ""
    _paragraph(f"{one.level}: {one.where}{many}: {one.what}", "")
    _paragraph(f"fix: {one.fix}", "  ")
    if len(one.cases) > 1:
        for case in one.cases[1:_FILES]:
            _paragraph(case, "  ")
    else:
        for name in one.files[:_FILES]:
            if name.partition(" = ")[0] not in one.what:
                say(f"  {name}")
    if one.count > _FILES and one.files:
        say(f"  and {one.count - _FILES} more; --json names up to 20")


def _paragraph(text: str, indent: str) -> None:
    lines = textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    say("\n".join(lines))
