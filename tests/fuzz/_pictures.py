"""Odd and damaged image files for the kinds ``images`` and ``masks``."""

import io
import os
import struct
from pathlib import Path
from random import Random

import numpy as np
from _mutations import damaged
from PIL import Image

__all__ = ["put"]

FORMATS = {"png": {}, "jpg": {}, "webp": {"lossless": True}, "tif": {}, "gif": {}, "bmp": {}, "ppm": {}}
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F")
HEADS = (
    b"",
    b"\0" * 600,
    b"\0\0\0\x20ftypisom",
    b"%PDF-1.7",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    b"GIF89a",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"RIFF\xff\xff\xff\xffWEBPVP8X",
    b"II*\0\x08\0\0\0\xff\xff",
    b"<svg/>",
    b"MM\0*\xff\xff\xff\xff",
    b"BM",
    b"P6 99999999 99999999 255\n",
    b"P5 1 1 70000\n\0",
    b"version https://git-lfs",
)


def put(draw: Random, file: Path, sound: np.ndarray) -> tuple[str, bool]:
    """Put an odd or damaged image in place of ``file``: what it is, and whether its pixels may differ from ``sound``.

    Its name may get another ending.
    """
    how = draw.choice(
        ("bytes", "bytes", "bytes", "formats", "mode", "header", "turned", "size", "frames", "head", "place")
    )
    if how == "bytes":
        changed, note = damaged(file.read_bytes(), draw)
        file.write_bytes(changed)
        return note, False
    if how == "place":
        return _misplaced(draw, file), True
    file.unlink()
    if how == "head":
        head = draw.choice(HEADS)
        file.write_bytes(head + draw.randbytes(draw.choice((0, 3, 700))))
        return f"begins with {head[:12]!r}", True
    picture = Image.fromarray(sound)
    ending = draw.choice([*FORMATS]) if how in ("formats", "turned", "frames") else "png"
    options = dict(FORMATS[ending])
    if how == "mode":
        mode = draw.choice(MODES)
        picture, ending = (
            _in_mode(picture, mode),
            "png" if mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else "tif",
        )
        how = f"mode {mode}"
    elif how == "turned":
        exif = Image.Exif()
        exif[0x0112] = draw.randrange(12)
        options["exif"] = exif
    elif how == "size":
        picture = picture.resize((draw.choice((1, 2, 31, 33, 100)), draw.choice((1, 2, 31, 33, 100))))
    elif how == "frames" and ending not in ("jpg", "bmp", "ppm"):
        options |= {"save_all": True, "append_images": [picture.rotate(90)]}
    data = _saved(picture, ending, options)
    if how == "header":
        values = draw.choice(((2**31 - 1, 2**31 - 1), (60000, 60000), (0, 5), (5, 0), (16384, 16384)))
        data = data[:16] + struct.pack(">II", *values) + data[24:]
    elif how == "formats" and draw.random() < 0.6:
        data, what = damaged(data, draw)
        how = f"{how} {ending}: {what}"
    name = file.with_suffix(f".{ending}") if draw.random() < 0.7 else file
    name.write_bytes(data)
    return f"{how} as {name.name}", True


def _misplaced(draw: Random, file: Path) -> str:
    """Something that is no file of its own, or none at all."""
    how = draw.choice(("gone", "folder", "pipe", "loop", "broken link", "long name", "no unicode", "same folder"))
    data = file.read_bytes()
    file.unlink()
    if how == "folder":
        file.mkdir()
    elif how == "pipe":
        os.mkfifo(file)
    elif how == "loop":
        file.symlink_to(file)
    elif how == "broken link":
        file.symlink_to("nowhere.png")
    elif how == "long name":
        file.with_name("x" * 240 + ".png").write_bytes(data)
    elif how == "no unicode":
        file.with_name("\udcff.png").write_bytes(data)
    elif how == "same folder":
        (file.parent / "again").symlink_to(file.parent)
    return how


def _in_mode(picture: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.array(picture.convert("L")).astype(np.uint16) * 257)
    if mode == "LAB":
        return Image.new("LAB", picture.size)
    return picture.convert("L").convert(mode) if mode in ("I", "F", "PA") else picture.convert(mode)


def _saved(picture: Image.Image, ending: str, options: dict[str, object]) -> bytes:
    kind = {"jpg": "JPEG", "tif": "TIFF"}.get(ending, ending.upper())
    if kind in ("PPM", "BMP", "JPEG") and picture.mode not in ("L", "RGB"):
        picture = picture.convert("RGB")
    if kind in ("BMP", "PPM", "GIF"):
        options.pop("exif", None)
    buffer = io.BytesIO()
    try:
        picture.save(buffer, kind, **options)
    except (OSError, ValueError, KeyError):
        picture.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()
