"""Contact sheets as PNG or HTML: images of each domain, each beside the same image in the colours of its classes."""

import base64
import html
import io
import textwrap
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hardy.data.base import Dataset, Domain, Item, names_of
from hardy.errors import InputError
from hardy.files import replacing
from hardy.types import IGNORE

__all__ = ["write"]

_TILE = 240
_GAP = 8
_LINE = 18
_COLUMNS = 2
_MOST = 500
_DARK = (0, 0, 0)

_STYLE = """
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem}
.key{display:flex;flex-wrap:wrap;gap:.3rem 1rem;padding:0;list-style:none}.key i{display:inline-block;width:1em;
height:1em;margin-right:.4em;border-radius:3px;vertical-align:-.12em;border:1px solid #8886}
.sheet{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(26rem,100%),1fr));gap:1rem}
.classed{grid-template-columns:repeat(auto-fill,minmax(10rem,1fr))}figure{margin:0}
figure img{width:100%;height:auto;border-radius:6px;display:block}figcaption{font-size:.8em;overflow-wrap:anywhere;
opacity:.8}
"""


@dataclass(frozen=True)
class _Tile:
    """One image: its name, and a picture of it beside its label, or a picture with an error message."""

    name: str
    picture: Image.Image


def write(
    domains: Sequence[Domain], file: Path, *, images: int, splits: Sequence[str] = (), only: str = ""
) -> tuple[int, int]:
    """Write a sheet of up to ``images`` evenly spaced images of each domain; return (images, domains) shown.

    Args:
        domains: the domains to show.
        file: ends in ``.png`` or ``.html``.
        images: the largest number of images of a domain, 1 to 500.
        splits: show only images of these splits; empty for all.
        only: show only images whose names, from the folder that holds all of the dataset's images, contain this text,
            or whose paths end with it.

    Raises:
        InputError: for another ending, a number of images out of range, a split that no domain has, or if no image is
            left.
    """
    if file.suffix.lower() not in (".png", ".html"):
        raise InputError(f"{file}: a sheet is a .png or a .html file; give such a name")
    if not 1 <= images <= _MOST:
        raise InputError(f"images {images}: give 1 to {_MOST} for each domain")
    known = {split for domain in domains for split in domain.splits}
    if wrong := [split for split in splits if split not in known]:
        raise InputError(f"split {wrong[0]!r}: no domain has it; there are: {', '.join(sorted(known))}")
    named = _by_name(domains, only)
    chosen = [(domain, _chosen(domain, images, splits, named)) for domain in domains]
    if not any(items for _, items in chosen):
        raise InputError(
            f"no image of {', '.join(d.name for d in domains)} has {only!r} in its name; give another part"
        )
    shown = [(domain, [_tile(domain, item) for item in items]) for domain, items in chosen if items]
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as waiting:
        if file.suffix.lower() == ".png":
            _drawn(shown).save(waiting, format="PNG")
        else:
            waiting.write_text(_page(shown), encoding="utf-8")
    return sum(len(tiles) for _, tiles in shown), len(shown)


def _by_name(domains: Sequence[Domain], only: str) -> set[tuple[Dataset, Item]]:
    """The items of ``domains`` that `write` shows for ``only``; folders above a dataset do not count."""
    items: dict[Dataset, list[Item]] = {}
    for domain in domains:
        items.setdefault(domain.dataset, []).extend(domain.items())
    return {
        (dataset, item)
        for dataset, own in items.items()
        for item, name in zip(own, names_of(dataset, own), strict=True)
        if only in name or dataset.name_of(item).endswith(only)
    }


def _chosen(domain: Domain, images: int, splits: Sequence[str], shown: Container[tuple[Dataset, Item]]) -> list[Item]:
    items = domain.items(*(split for split in splits if split in domain.splits)) if splits else domain.items()
    if splits and not set(splits) & set(domain.splits):
        return []
    named = [item for item in items if (domain.dataset, item) in shown]
    return [named[place] for place in np.linspace(0, len(named) - 1, min(images, len(named))).astype(int)]


def _tile(domain: Domain, item: Item) -> _Tile:
    """An image beside its label, or its error message."""
    dataset = domain.dataset
    name = Path(dataset.name_of(item)).name
    try:
        image, label = dataset.read(item)
    except InputError as error:
        picture = Image.new("RGB", (2 * _TILE, _TILE // 2), (120, 30, 30))
        text = str(error).replace(dataset.name_of(item), name)
        lines = textwrap.wrap(_printable(text), 66, max_lines=6, break_on_hyphens=False)
        ImageDraw.Draw(picture).multiline_text((6, 6), "\n".join(lines), fill=(255, 255, 255), font=_font(12))
        return _Tile(name, picture)
    small = _small(Image.fromarray(image), Image.Resampling.BOX)
    if not label.ndim:
        return _Tile(
            f"{dataset.label_space.classes[int(label)]} · {name}" if label < len(dataset.label_space) else name, small
        )
    palette = np.full((256, 3), 0, dtype=np.uint8)
    palette[: len(dataset.label_space)] = dataset.label_space.colours
    ids = np.asarray(_small(Image.fromarray(label), Image.Resampling.NEAREST))
    mixed = np.asarray(small).astype(np.float32) * 0.35 + palette[ids].astype(np.float32) * 0.65
    mixed[ids == IGNORE] = np.asarray(small)[ids == IGNORE] * 0.25
    both = Image.new("RGB", (2 * small.width, small.height))
    both.paste(small, (0, 0))
    both.paste(Image.fromarray(mixed.astype(np.uint8)), (small.width, 0))
    return _Tile(name, both)


def _small(image: Image.Image, how: Image.Resampling) -> Image.Image:
    """``image`` resized to the width of a tile; very tall images to twice the tile's height."""
    by = min(_TILE / image.width, 2 * _TILE / image.height)
    return image.resize((max(1, round(by * image.width)), max(1, round(by * image.height))), how)


def _printable(name: str) -> str:
    """``name``, with replacement characters for bytes that are not text."""
    return name.encode("utf-8", "replace").decode()


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


# ------------------------------------------------------------------------------------------------------------- PNG


def _drawn(shown: Sequence[tuple[Domain, list[_Tile]]]) -> Image.Image:
    """All domains, one below the other, each with its name, the key of its classes, and its tiles."""
    parts = [_domain(domain, tiles) for domain, tiles in shown]
    whole = Image.new("RGB", (max(p.width for p in parts), sum(p.height + 2 * _GAP for p in parts)), (255, 255, 255))
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height + 2 * _GAP
    return whole


def _domain(domain: Domain, tiles: Sequence[_Tile]) -> Image.Image:
    wide = max(tile.picture.width for tile in tiles)
    columns = min(len(tiles), _COLUMNS * max(1, 2 * _TILE // wide))
    width = max(columns * (wide + _GAP) + _GAP, 2 * (2 * _TILE + _GAP))
    key, heading = _key(domain, width), _LINE + 2 * _GAP
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [max(tile.picture.height for tile in row) + _LINE + _GAP for row in rows]
    sheet = Image.new("RGB", (width, heading + key.height + _GAP + sum(heights)), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), _printable(domain.name), fill=(0, 0, 0), font=_font(18))
    sheet.paste(key, (0, heading))
    top = heading + key.height + _GAP
    for row, height in zip(rows, heights, strict=True):
        for place, tile in enumerate(row):
            left = _GAP + place * (wide + _GAP)
            sheet.paste(tile.picture, (left, top))
            draw.text(
                (left, top + tile.picture.height + 2),
                _printable(tile.name)[: wide // 7],
                fill=(90, 90, 90),
                font=_font(12),
            )
        top += height
    return sheet


def _named(domain: Domain) -> list[tuple[str, tuple[int, int, int]]]:
    """The names and colours in the masks of a domain: its classes, and ignored pixels; empty without masks."""
    label_space = domain.dataset.label_space
    if domain.dataset.image_level:
        return []
    return [*zip(label_space.classes, label_space.colours, strict=True), ("ignored", _DARK)]


def _key(domain: Domain, width: int) -> Image.Image:
    """The classes with their colours, in as many lines as fit into ``width``."""
    font, places, left, top = _font(13), [], _GAP, 0
    named = _named(domain)
    if not named:
        return Image.new("RGB", (width, 1), (255, 255, 255))
    for name, _ in named:
        wide = 20 + int(font.getlength(name)) + 14
        if left + wide > width and left > _GAP:
            left, top = _GAP, top + _LINE + 2
        places.append((left, top))
        left += wide
    key = Image.new("RGB", (width, top + _LINE + 2), (255, 255, 255))
    draw = ImageDraw.Draw(key)
    for (name, colour), (left, top) in zip(named, places, strict=True):
        draw.rectangle((left, top + 3, left + 13, top + 16), fill=colour, outline=(120, 120, 120))
        draw.text((left + 19, top + 1), name, fill=(40, 40, 40), font=font)
    return key


# ------------------------------------------------------------------------------------------------------------ HTML


def _page(shown: Sequence[tuple[Domain, list[_Tile]]]) -> str:
    """A self-contained HTML page."""
    parts = []
    for domain, tiles in shown:
        key = "".join(
            f'<li><i style="background:rgb{colour}"></i>{html.escape(name)}</li>' for name, colour in _named(domain)
        )
        figures = "".join(_figure(tile) for tile in tiles)
        title = html.escape(domain.name)
        listed = f'<ul class="key">{key}</ul>' if key else ""
        sheet = "sheet classed" if domain.dataset.image_level else "sheet"
        parts.append(f'<h2>{title}</h2>{listed}<div class="{sheet}">{figures}</div>')
    return (
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Data</title>'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<style>{_STYLE}</style></head><body><main><h1>Data</h1>{''.join(parts)}</main></body></html>\n"
        )
        .encode("utf-8", "replace")
        .decode()
    )


def _figure(tile: _Tile) -> str:
    file = io.BytesIO()
    tile.picture.save(file, format="JPEG", quality=88)
    name = html.escape(tile.name)
    data = base64.b64encode(file.getvalue()).decode()
    return (
        f'<figure><img loading="lazy" width="{tile.picture.width}" height="{tile.picture.height}" '
        f'alt="{name} and its label" src="data:image/jpeg;base64,{data}"><figcaption>{name}</figcaption></figure>'
    )
