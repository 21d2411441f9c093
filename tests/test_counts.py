"""Counts per image come back as they were written, and nothing else is read."""

import gzip
import json

import numpy as np
import pytest
from safetensors.numpy import load, save

from hardy import counts
from hardy.counts import FILE, Counts, read, write
from hardy.errors import InputError

ONE = Counts(
    ("b.png", "a.png"),
    np.array([[[5, 1], [0, 300]], [[0, 0], [0, 70000]]]),
    ("background", "vessel"),
    "source-val",
)
OTHER = Counts(
    ("x", "y", "z"),
    np.arange(27).reshape(3, 3, 3) * 2**40,
    ("k", "l", "m"),
    "unseen",
    np.array([[0, 0, 0], [0, 0, 0], [0, 9, 0]]),
)


def same(one, other):
    fields = (one.names, one.classes, one.split) == (other.names, other.classes, other.split)
    arrays = (one.matrices, other.matrices), (one.unmatched, other.unmatched)
    return fields and all(a.dtype == b.dtype == np.int64 and np.array_equal(a, b) for a, b in arrays)


def test_what_is_written_is_read_back(tmp_path):
    write(tmp_path / "run", {"retina/drive": ONE, "other/x": OTHER})
    found = read(tmp_path / "run")
    assert list(found) == ["retina/drive", "other/x"]
    assert same(found["retina/drive"], ONE)
    assert same(found["other/x"], OTHER)
    assert ONE.unmatched.tolist() == [[0, 0], [0, 0]]
    assert [path.name for path in (tmp_path / "run").iterdir()] == [FILE]


def test_the_same_counts_are_the_same_bytes_and_later_ones_replace_them(tmp_path):
    write(tmp_path, {"a": ONE})
    first = (tmp_path / FILE).read_bytes()
    write(tmp_path, {"a": OTHER})
    assert list(read(tmp_path)) == ["a"]
    assert same(read(tmp_path)["a"], OTHER)
    write(tmp_path, {"a": ONE})
    assert (tmp_path / FILE).read_bytes() == first


def test_no_image_and_no_domain_are_counts_too(tmp_path):
    write(tmp_path, {"a": Counts((), np.zeros((0, 2, 2), np.int64), ("k", "l"), "unseen")})
    assert read(tmp_path)["a"].matrices.shape == (0, 2, 2)
    write(tmp_path, {})
    assert read(tmp_path) == {}


def test_counts_are_small(tmp_path):
    """1,000 images of 19 classes, 40 pairs of classes in each: dense int64 would take 2.9 MB."""
    rng = np.random.default_rng(0)
    matrices = np.zeros((1000, 19 * 19), np.int64)
    for row in matrices:
        row[rng.choice(361, 40, replace=False)] = rng.integers(1, 20000, 40)
    names = tuple(f"val/{n:05}.png" for n in range(1000))
    write(tmp_path, {"a": Counts(names, matrices.reshape(-1, 19, 19), tuple(map(str, range(19))), "unseen")})
    assert (tmp_path / FILE).stat().st_size < 40 * 1000 * 4


def test_shapes_and_signs_are_checked():
    with pytest.raises(ValueError, match="for 1 images of 2 classes"):
        Counts(("a",), np.zeros((1, 3, 3), np.int64), ("k", "l"), "unseen")
    with pytest.raises(ValueError, match="below 0"):
        Counts(("a",), np.full((1, 1, 1), -1), ("k",), "unseen")


def test_every_flipped_byte_is_seen_or_harmless(tmp_path):
    write(tmp_path, {"a": ONE, "b": OTHER})
    data = (tmp_path / FILE).read_bytes()
    seen = 0
    for place in range(len(data)):
        (tmp_path / FILE).write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        try:
            found = read(tmp_path)
        except InputError:
            seen += 1
        else:
            assert all(same(found[name], wanted) for name, wanted in (("a", ONE), ("b", OTHER)))
    assert seen > len(data) - 8  # the time and the system in a gzip's header say nothing
    for end in range(0, len(data), 7):
        (tmp_path / FILE).write_bytes(data[:end])
        with pytest.raises(InputError, match="damaged"):
            read(tmp_path)


def rewrite(file, about=None, **changed):
    """Write ``file`` again with some of its parts, and of what its header says, in place of others."""
    data = gzip.decompress(file.read_bytes())
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    said = json.dumps({**json.loads(header["__metadata__"]["about"]), **(about or {})})
    file.write_bytes(gzip.compress(save({**load(data), **changed}, {"about": said})))


@pytest.mark.parametrize(
    ("about", "change", "reason"),
    [
        ({}, {"values": np.array([1, 2, 3, 9], np.uint8)}, "checksum"),
        ({"format": "hardy-counts/2"}, {}, "hardy-counts/2"),
        ({"domains": [{"domain": 1}]}, {}, "classes"),
        ({"domains": [{"domain": 1, "split": "", "classes": [], "names": []}]}, {}, "are texts"),
        ({"domains": 3}, {}, "not iterable"),
        ({}, {"places": np.zeros((2, 2), np.uint8)}, "its parts are not"),
        ({}, {"places": np.zeros(4)}, "its parts are not"),
        ({}, {"more": np.zeros(4, np.uint8)}, "its parts are not"),
    ],
)
def test_other_contents_are_refused(tmp_path, about, change, reason):
    write(tmp_path, {"a": ONE})
    rewrite(tmp_path / FILE, about, **change)
    with pytest.raises(InputError, match=reason):
        read(tmp_path)


def test_a_checksum_that_is_right_does_not_hide_a_place_outside_the_matrix(tmp_path):
    write(tmp_path, {"a": ONE})
    data = gzip.decompress((tmp_path / FILE).read_bytes())
    said = [{"domain": "a", "split": "unseen", "classes": ["k", "l"], "names": ["x", "y"]}]
    arrays = {**load(data), "places": np.array([0, 1, 4, 6], np.uint8)}
    rewrite(tmp_path / FILE, {"domains": said, "sha256": counts._checksum(said, arrays)}, **arrays)
    with pytest.raises(InputError, match="outside of the matrix"):
        read(tmp_path)


def test_nothing_endless_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(counts, "MOST_BYTES", 1000)
    (tmp_path / FILE).write_bytes(gzip.compress(bytes(100_000)))
    assert (tmp_path / FILE).stat().st_size < 1000
    with pytest.raises(InputError, match="more than"):
        read(tmp_path)
    with pytest.raises(InputError, match="would have more than"):
        write(tmp_path, {"a": Counts(("x" * 1000,), ONE.matrices[:1], ONE.classes, "unseen")})


def test_where_there_are_none_the_key_is_named(tmp_path):
    with pytest.raises(InputError, match=r"evaluate\.keep_counts"):
        read(tmp_path)
