"""One file at a time: upright, whole, not lossy, within a bound; what is no image is called what it is."""

import io
import struct
import zlib

import numpy as np
import pytest
from dataset_files import GREY, RGB, refused, save
from PIL import Image

from hardy.data import decoding
from hardy.data.containers import ends_whole
from hardy.data.decoding import image_size, read_image, read_mask

TALL = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}
"""What each EXIF orientation asks for (TIFF 6.0, tag 274)."""


def oriented(path, pixels, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(path, header, rows, *between):
    body = chunk(b"IHDR", struct.pack(">IIBBBBB", *header)) + b"".join(between) + chunk(b"IDAT", zlib.compress(rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b""))
    return path


# ------------------------------------------------------------------------------------------------ EXIF orientation


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
def test_images_and_masks_are_turned_upright(tmp_path, ending, orientation):
    options = {"lossless": True} if ending == "webp" else {}
    path = tmp_path / f"a.{ending}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(TALL).save(path, exif=exif, **options)
    expected = TURNS[orientation](TALL)
    np.testing.assert_array_equal(read_image(path), expected)
    np.testing.assert_array_equal(read_mask(path), expected)
    assert image_size(path) == expected.shape[:2]


def test_a_photograph_is_turned_upright(tmp_path):
    path = oriented(tmp_path / "a.jpg", TALL, 6)
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_image(path), TURNS[6](np.array(image)))
    assert image_size(path) == (8, 5)


def test_an_orientation_behind_the_pixels_counts_for_size_and_pixels(tmp_path):
    path = oriented(tmp_path / "a.png", TALL, 6)
    whole = path.read_bytes()
    start = whole.index(b"eXIf") - 4
    length = struct.unpack(">I", whole[start : start + 4])[0] + 12
    exif, rest = whole[start : start + length], whole[:start] + whole[start + length :]
    path.write_bytes(rest[:-12] + exif + rest[-12:])
    np.testing.assert_array_equal(read_image(path), TURNS[6](TALL))
    assert image_size(path) == (8, 5)


def test_damaged_exif_turns_nothing(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(TALL).save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")
    np.testing.assert_array_equal(read_image(path), TALL)
    assert image_size(path) == (5, 8)


# --------------------------------------------------------------------------------------------------- lossy masks


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("a.jpg", {"quality": 100}, "a mask saved as JPEG"),
        ("a.webp", {"quality": 100}, "a mask saved as lossy WebP"),
        ("a.tif", {"compression": "jpeg"}, "a mask saved as TIFF with jpeg compression"),
    ],
)
def test_lossy_masks_are_refused(tmp_path, name, options, said):
    path = tmp_path / name
    Image.fromarray(TALL).save(path, **options)
    refused(f"{name}: {said}, whose lossy compression changes ids and colours; make it again as PNG", read_mask, path)
    assert read_image(path).shape == TALL.shape


def test_a_jpeg_named_png_is_still_a_lossy_mask(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png", format="JPEG")
    refused("a mask saved as JPEG", read_mask, tmp_path / "a.png")


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.webp", {"lossless": True}), ("a.tif", {"compression": "tiff_lzw"}), ("a.bmp", {}), ("a.ppm", {})],
)
def test_masks_of_lossless_formats_are_read(tmp_path, name, options):
    Image.fromarray(TALL).save(tmp_path / name, **options)
    np.testing.assert_array_equal(read_mask(tmp_path / name), TALL)


def test_gif_masks_and_images_are_read(tmp_path):
    ids = np.array([[0, 1, 2], [2, 1, 0]], dtype=np.uint8)
    image = Image.fromarray(ids)
    image.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    image.save(tmp_path / "a.gif", optimize=False)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.gif"), ids)
    assert read_image(tmp_path / "a.gif")[0, 1].tolist() == [200, 0, 0]


# --------------------------------------------------------------------------------- what would be changed silently


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_sixteen_bits_per_channel_are_said(tmp_path, colour, channels):
    path = png(tmp_path / "a.png", (1, 1, 16, colour, 0, 0, 0), b"\0" + b"\xff\xff" * channels)
    refused("a.png: an image of 16 bits per channel; save it with 8 bits per channel", read_image, path)


def test_sixteen_bit_colours_of_a_tiff_are_said(tmp_path):
    tags = (
        (256, 3, 1, 1),
        (257, 3, 1, 1),
        (258, 3, 3, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 14),
        (277, 3, 1, 3),
        (278, 3, 1, 1),
        (279, 4, 1, 6),
    )
    head = b"II*\0" + struct.pack("<I", 20) + struct.pack("<HHH", 16, 16, 16) + struct.pack("<HHH", 1, 2, 3)
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    path = tmp_path / "a.tif"
    path.write_bytes(head + struct.pack("<H", len(tags)) + entries + bytes(4))
    refused("16 bits per channel", read_image, path)
    refused("8-bit RGB image", read_mask, path)


def test_a_palette_image_without_its_palette(tmp_path):
    path = png(tmp_path / "a.png", (3, 1, 8, 3, 0, 0, 0), b"\0\1\2\3")
    refused("a.png: a palette image without its palette", read_image, path)
    assert read_mask(path).tolist() == [[1, 2, 3]]


def test_colours_that_pillow_cannot_turn_into_rgb(tmp_path):
    Image.new("LAB", (3, 2)).save(tmp_path / "a.tif")
    refused("a.tif: colours of mode LAB; save it as RGB", read_image, tmp_path / "a.tif")


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tif"])
def test_animations_and_pages_are_refused(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(RGB).save(path, save_all=True, append_images=[Image.fromarray(RGB[::-1])])
    for read in (read_image, read_mask):
        refused("holds 2 images; save the right one as PNG", read, path)


# -------------------------------------------------------------------------------------------------------- bounds


def test_more_pixels_than_pillow_allows_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    path = save(tmp_path / "a.png", RGB)
    np.testing.assert_array_equal(read_image(path), RGB)
    assert Image.MAX_IMAGE_PIXELS == 2


def test_the_bound_and_the_way_out_are_said(tmp_path):
    path = png(tmp_path / "a.png", (30000, 20000, 8, 0, 0, 0, 0), b"")
    for read in (read_image, read_mask, image_size):
        refused(
            "a.png: 20000x30000 pixels are more than the 268 megapixels that are decoded at once; cut it", read, path
        )


def test_memory_that_is_not_there(tmp_path, monkeypatch):
    def short(*_):
        raise MemoryError

    monkeypatch.setattr(decoding, "_upright", short)
    refused("does not fit into memory", read_image, save(tmp_path / "a.png", RGB))


# ------------------------------------------------------------------------------------------------- kinds of files

KINDS = {
    "a video .MP4 or QuickTime.; save its frames": b"\0\0\0\x20ftypisom\0\0\2\0isomiso2mp41",
    "a video .Matroska or WebM.": b"\x1aE\xdf\xa3\x9fB\x86\x81\1",
    "a video .AVI.": b"RIFF\0\1\0\0AVI LIST",
    "a HEIC picture; convert it to PNG": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "an AVIF picture; convert": b"\0\0\0\x20ftypavif\0\0\0\0avifmif1",
    "a PDF document": b"%PDF-1.7\n",
    "a PostScript drawing": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "a NumPy array; save it as PNG": b"\x93NUMPY\1\0v\0{'descr'",
    "a ZIP archive; unpack it": b"PK\3\4\x14\0\0\0",
    "a web page; fetch the image itself": b"<!DOCTYPE html><html>404",
    "an SVG drawing": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "a Git LFS pointer, not its file; run git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
    "a DICOM picture": bytes(128) + b"DICM\2\0",
    "a text file; replace it by the image": "größe\n".encode(),
}


@pytest.mark.parametrize("said", KINDS)
def test_what_is_no_image_is_called_what_it_is(tmp_path, said):
    path = tmp_path / "a.png"
    path.write_bytes(KINDS[said])
    for read in (read_image, read_mask, image_size):
        refused(f"a.png: it is {said}", read, path)


def test_what_cannot_be_opened(tmp_path, monkeypatch):
    (tmp_path / "a.png").mkdir()
    refused("a.png: it is a folder; give an image file", read_image, tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"\x00\x01\x02\x83" * 9)
    refused(r"b.png: damaged or not an image \(unknown format\)", read_image, tmp_path / "b.png")

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    path = save(tmp_path / "c.png", RGB)
    monkeypatch.setattr(Image, "open", denied)
    refused("c.png: it cannot be read: Permission denied$", read_image, path)


# ------------------------------------------------------------------------------------------------------- torn ends


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_the_end_shows_that_something_was_cut_off(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(TALL).save(path)
    assert ends_whole(path)
    path.write_bytes(path.read_bytes()[:-30])
    assert not ends_whole(path)
    assert not ends_whole(tmp_path / "none.png")


def test_pixels_that_do_not_match_their_checksum_are_refused(tmp_path):
    path = save(tmp_path / "a.png", TALL)
    whole = bytearray(path.read_bytes())
    stored = zlib.compress(zlib.decompress(whole[whole.index(b"IDAT") + 4 : whole.index(b"IEND") - 8]), 0)
    header = whole[: whole.index(b"IDAT") - 4]
    sound = bytes(header) + chunk(b"IDAT", stored) + chunk(b"IEND", b"")
    path.write_bytes(sound)
    np.testing.assert_array_equal(read_mask(path), TALL)
    path.write_bytes(sound[:-30] + bytes([sound[-30] ^ 1]) + sound[-29:])
    for read in (read_image, read_mask):
        refused(r"a.png: damaged or not an image \(.*checksum|broken", read, path)


def test_other_formats_are_known_complete_by_decoding_only(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(TALL).save(buffer, "TIFF")
    (tmp_path / "a.tif").write_bytes(buffer.getvalue())
    assert not ends_whole(tmp_path / "a.tif")
