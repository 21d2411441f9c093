"""The kind of a file that is not an image, by its first bytes, and what to do about it."""

from pathlib import Path

__all__ = ["kind_of"]

_CONVERT = "convert it to PNG"
_FRAMES = "save its frames as PNG"
_REPLACE = "replace it by the image"

_KINDS = (
    (4, b"ftypavi", "an AVIF picture", _CONVERT),
    (4, b"ftyphe", "a HEIC picture", _CONVERT),
    (4, b"ftypmif1", "a HEIC picture", _CONVERT),
    (4, b"ftyp", "a video (MP4 or QuickTime)", _FRAMES),
    (4, b"moov", "a video (QuickTime)", _FRAMES),
    (0, b"\x1aE\xdf\xa3", "a video (Matroska or WebM)", _FRAMES),
    (8, b"AVI ", "a video (AVI)", _FRAMES),
    (8, b"WAVE", "a sound file (WAV)", _REPLACE),
    (0, b"\0\0\1\xba", "a video (MPEG)", _FRAMES),
    (0, b"FLV", "a video (Flash)", _FRAMES),
    (0, b"\0\0\0\x0cjP", "a JPEG 2000 picture", _CONVERT),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture", _CONVERT),
    (0, b"8BPS", "a Photoshop picture", _CONVERT),
    (0, b"%!PS", "a PostScript drawing", _CONVERT),
    (0, b"%PDF", "a PDF document", _CONVERT),
    (0, b"SIMPLE  =", "a FITS picture", _CONVERT),
    (0, b"\0\0\1\0", "an icon", _CONVERT),
    (128, b"DICM", "a DICOM picture", _CONVERT),
    (0, b"\x93NUMPY", "a NumPy array", "save it as PNG"),
    (0, b"\x89HDF", "an HDF5 file", "save its images as PNG"),
    (0, b"PK\3\4", "a ZIP archive", "unpack it"),
    (0, b"\x1f\x8b", "a gzip archive", "unpack it"),
    (0, b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not its file", "run git lfs pull"),
)
"""The offset of the bytes, the bytes, the kind of file that has them there, and the fix."""

_TEXTS = (
    (b"<svg", "an SVG drawing", _CONVERT),
    (b"<!doctype html", "a web page", "fetch the image itself"),
    (b"<html", "a web page", "fetch the image itself"),
    (b"<?xml", "an XML text", _REPLACE),
)
_HEAD = 512


def kind_of(path: Path) -> tuple[str, str] | None:
    """(the kind of file, the fix), such as ``("a video (AVI)", "save its frames as PNG")``; None if unknown."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    for place, start, name, way in _KINDS:
        if head[place : place + len(start)] == start:
            return name, way
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for start, name, way in _TEXTS:
        if text.startswith(start):
            return name, way
    printable = bool(head) and all(byte >= 32 or byte in b"\t\r\n" for byte in head)
    return ("a text file", _REPLACE) if printable and _is_utf8(head) else None


def _is_utf8(head: bytes) -> bool:
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > _HEAD - 4  # the last character may be cut
    return True
