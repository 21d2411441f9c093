"""Pictures on disk: the same bits, torn files count as absent, and never more bytes than allowed."""

import logging
import os
from multiprocessing import get_context

import numpy as np
import pytest

from hardy.data.datasets.streets import Streets
from hardy.data.disk_cache import OWN, DiskCache
from hardy.data.streets.domains import DOMAINS
from hardy.data.streets.version import version
from hardy.errors import InputError
from hardy.recipe import from_values

SIZE = (16, 24)
FILE = 16 * 24 * 4 + 34
"""Bytes of a picture of that size."""


def picture(number=0):
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8), rng.integers(0, 19, SIZE, dtype=np.uint8)


def same(one, other):
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


def taken(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.name != "bytes")


def test_a_picture_comes_back_as_it_was_and_may_be_changed(tmp_path):
    cache = DiskCache(tmp_path / "cache", "v1", "s", most=10**6)
    assert cache.read("sim/0") is None
    assert not (tmp_path / "cache").exists()
    cache.write("sim/0", picture())
    found = cache.read("sim/0")
    assert same(found, picture())
    found[0][:] = 0  # what transforms images in place
    found[1][:] = 0
    assert same(cache.read("sim/0"), picture())
    assert (tmp_path / "cache" / OWN / "v1" / "s" / "sim" / "0").stat().st_size == FILE


@pytest.mark.parametrize("other", [("v2", "s"), ("v1", "t")])
def test_another_version_or_setting_has_other_pictures(tmp_path, other):
    DiskCache(tmp_path, "v1", "s", most=10**6).write("sim/0", picture())
    assert DiskCache(tmp_path, *other, most=10**6).read("sim/0") is None


@pytest.mark.slow
def test_every_damaged_byte_and_every_cut_count_as_absent(tmp_path):
    cache = DiskCache(tmp_path, "v1", "s", most=10**6)
    cache.write("sim/0", picture())
    file = tmp_path / OWN / "v1" / "s" / "sim" / "0"
    data = file.read_bytes()
    for place in range(len(data)):
        file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert cache.read("sim/0") is None
    for end in (*range(40), len(data) - 1):
        file.write_bytes(data[:end])
        assert cache.read("sim/0") is None
    file.write_bytes(data + b"x")
    assert cache.read("sim/0") is None
    (file.parent / "1").write_bytes(data)  # a file under another picture's name
    assert cache.read("sim/1") is None
    cache.write("sim/0", picture())
    assert same(cache.read("sim/0"), picture())
    file.unlink()
    file.mkdir()
    assert cache.read("sim/0") is None


def test_it_never_takes_more_bytes_than_allowed(tmp_path, caplog):
    cache = DiskCache(tmp_path, "v1", "s", most=3 * FILE + 5)
    with caplog.at_level(logging.WARNING, logger="hardy"):
        for number in range(5):
            cache.write(f"sim/{number}", picture(number))
            cache.write(f"sim/{number}", picture(number))  # what is there already takes no more room
    assert [cache.read(f"sim/{number}") is not None for number in range(5)] == [True, True, True, False, False]
    assert taken(tmp_path) == 3 * FILE
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / OWN}: no more pictures are kept, because it has reached its limit of {3 * FILE + 5:,} bytes; "
        "the others are drawn each time"
    ]


def test_pictures_of_other_versions_give_way_where_it_is_full(tmp_path):
    (tmp_path / "mine").mkdir()
    for number in range(2):
        DiskCache(tmp_path, "old", "s", most=3 * FILE + 9).write(f"sim/{number}", picture(number))
    cache = DiskCache(tmp_path, "new", "s", most=3 * FILE + 9)
    cache.write("sim/0", picture())
    assert (tmp_path / OWN / "old").is_dir()
    cache.write("sim/1", picture(1))
    assert not (tmp_path / OWN / "old").exists()
    assert (tmp_path / "mine").is_dir()
    other = DiskCache(tmp_path, "new", "t", most=3 * FILE + 9)
    other.write("sim/0", picture())
    other.write("sim/1", picture(1))
    assert other.read("sim/1") is None
    assert same(cache.read("sim/1"), picture(1))


@pytest.mark.parametrize("said", ["", "many", "-1", "99999999999999999999"])
def test_bytes_are_counted_again_where_the_file_does_not_say_them(tmp_path, said):
    DiskCache(tmp_path, "v1", "s", most=10**6).write("sim/0", picture())
    (tmp_path / OWN / "bytes").write_text(said)
    cache = DiskCache(tmp_path, "v1", "s", most=2 * FILE + 100)
    for number in range(1, 4):
        cache.write(f"sim/{number}", picture(number))
    assert [cache.read(f"sim/{number}") is not None for number in range(4)] == [True, True, False, False]


def _fill(folder, first, barrier):
    cache = DiskCache(folder, "v1", "s", most=10 * FILE + 50)
    barrier.wait()
    for number in range(first, first + 8):
        cache.write(f"sim/{number}", picture(number))


def test_several_processes_stay_within_the_bytes_together(tmp_path):
    context = get_context("fork")
    barrier = context.Barrier(3)
    processes = [context.Process(target=_fill, args=(tmp_path, first, barrier)) for first in (0, 4, 8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    cache = DiskCache(tmp_path, "v1", "s", most=10 * FILE + 50)
    found = {number: cache.read(f"sim/{number}") for number in range(16)}
    assert sum(one is not None for one in found.values()) == 10
    assert all(same(one, picture(number)) for number, one in found.items() if one)
    assert taken(tmp_path) == 10 * FILE


def test_a_full_disk_keeps_nothing_and_says_so(tmp_path, monkeypatch, caplog):
    def full(self, data):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    cache = DiskCache(tmp_path, "v1", "s", most=10**6)
    with caplog.at_level(logging.WARNING, logger="hardy"):
        cache.write("sim/0", picture())
        cache.write("sim/1", picture())
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / OWN}: no more pictures are kept, because the disk is full; the others are drawn each time"
    ]


# -------------------------------------------------------------------------------------------------------- of streets


@pytest.mark.parametrize("domain", DOMAINS)
def test_streets_has_the_same_bits_with_and_without(tmp_path, domain):
    plain = Streets(size=SIZE, seed=3)
    caching = Streets(size=SIZE, seed=3, cache_folder=str(tmp_path))
    first, again = caching.read((domain, 7)), caching.read((domain, 7))
    assert (tmp_path / OWN / version() / "16x24-seed3" / domain / "7").is_file()
    assert same(first, plain.read((domain, 7)))
    assert same(again, first)
    assert np.array_equal(caching.read_label((domain, 7)), plain.read_label((domain, 7)))


def test_streets_reads_what_it_has_kept_and_draws_what_is_damaged(tmp_path, monkeypatch):
    drawn = []

    def draw(look, size, seed, place):
        drawn.append(place)
        return picture()

    monkeypatch.setattr("hardy.data.datasets.streets.photograph", draw)
    streets = Streets(size=SIZE, cache_folder=str(tmp_path))
    for _ in range(3):
        assert same(streets.read(("sim", 0)), picture())
    assert drawn == [("streets", "sim", 0)]
    (tmp_path / OWN / version() / "16x24-seed0" / "sim" / "0").write_bytes(b"torn")
    for _ in range(3):
        assert same(streets.read(("sim", 0)), picture())
    assert len(drawn) == 2
    for other in ({"size": (16, 25)}, {"seed": 1}):
        Streets(**{"size": SIZE, "cache_folder": str(tmp_path), **other}).read(("sim", 0))
    assert len(drawn) == 4


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a cache cannot be written there"):
        Streets(size=SIZE, cache_folder=str(tmp_path / "file")).read(("sim", 0))
    with pytest.raises(InputError, match="cache_mb"):
        Streets(size=SIZE, cache_folder=str(tmp_path), cache_mb=0)


def test_the_version_is_of_the_code_and_of_what_computes_with_it(monkeypatch):
    assert version() == version()
    assert len(version()) == 16
    monkeypatch.setattr(np, "__version__", "0")
    assert version.__wrapped__() != version()


DRAWS = '''"""A module."""

SUNS = 2
"""The number of suns."""


def light(hour):
    """Shade."""
    return SUNS * hour
'''


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        ('"""A module."""', '"""Another one."""', True),
        ('"""The number of suns."""', "# how many suns", True),
        ('    """Shade."""\n', "", True),
        ("SUNS * hour", "(SUNS\n            * hour)  # brighter later", True),
        ("SUNS = 2", "SUNS = 3", False),
        ("SUNS * hour", "SUNS + hour", False),
        ("return ", "", False),
    ],
)
def test_the_version_ignores_comments_and_docstrings_alone(tmp_path, monkeypatch, old, new, kept):
    monkeypatch.setattr("hardy.data.streets.version.files", lambda package: tmp_path)
    for name in ("light.py", "seed.py"):
        (tmp_path / name).write_text(DRAWS)
    first = version.__wrapped__()
    assert old in DRAWS
    (tmp_path / "light.py").write_text(DRAWS.replace(old, new))
    assert (version.__wrapped__() == first) == kept


def test_where_pictures_are_kept_does_not_make_another_run():
    def digest(**options):
        data = {"sources": ["streets/sim"], "datasets": {"streets": {"size": [96, 192], **options}}}
        return from_values({"network": "tiny", "data": data}).digest()

    assert digest() == digest(cache_folder="kept", cache_mb=10)
    assert digest() != digest(seed=1)
