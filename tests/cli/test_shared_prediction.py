"""`hardy predict --address`: the files, the order, the messages and the exit code are those of one machine."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import hardy
from hardy.studies.cluster import cluster
from hardy.studies.shared_prediction import Settings, _Worker


@pytest.fixture(scope="module")
def ray() -> Iterator[object]:
    """Ray on this machine with one core."""
    pytest.importorskip("ray")
    pytest.importorskip("pyarrow", reason="Ray Data needs pyarrow: pip install 'hardy[bulk]'")
    with cluster(None, 1) as started:
        yield started


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network in ``run`` and 40 images in ``photos``, of which two are bad."""
    torch.manual_seed(0)
    hardy.save(hardy.create("tiny", "camvid11"), tmp_path / "run")
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    draw = np.random.default_rng(0)
    for number in range(40):
        name = f"{'sub/' if number % 3 else ''}{number:02}.png"
        Image.fromarray(draw.integers(0, 256, (32, 40, 3), dtype=np.uint8)).save(tmp_path / "photos" / name)
    for name in ("03.png", "sub/38.png"):
        (tmp_path / "photos" / name).write_text("no image")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.costly
@pytest.mark.timeout(900)
def test_a_cluster_writes_what_one_machine_writes(ray, call, place):
    words = ("predict", "run", "photos")
    options = ("--confidence", "--window", "24x24", "--device", "cpu", "--json")
    alone = call(*words, "alone", *options)
    first = call("predict", "run", "photos/*.png", "shared", *options)
    shared = call(*words, "shared", *options, "--address", "auto")
    assert (shared.code, shared.err) == (alone.code, alone.err)
    assert shared.code == 1
    assert files(place / "shared") == files(place / "alone")
    assert len(files(place / "shared")) == 2 * 38
    one, other = json.loads(alone.out), json.loads(shared.out)
    kept = len(json.loads(first.out)["masks"])
    assert other == {**one, "masks": [mask.replace("alone", "shared", 1) for mask in one["masks"]], "kept": kept}
    assert 0 < kept < 38


def test_a_worker_names_what_it_kept_skipped_and_could_not_write(place):
    settings = Settings(Path("run"), Path("out"), (), None, None, 2, "cpu", ())
    block = {"name": np.array(["00", "03", "06"]), "file": np.array([f"photos/{n}.png" for n in ("00", "03", "06")])}
    worker = _Worker(settings, str(place), "cpu")
    rows = worker(block)
    assert rows["name"] == ["00", "03", "06"]
    assert rows["kept"] == [False, False, False]
    assert [reason.partition(":")[0] for reason in rows["reason"]] == ["", "photos/03.png", ""]
    assert rows["broken"] == [""] * 3
    assert sorted(files(place / "out")) == ["00.png", "06.png"]
    assert worker(block)["kept"] == [True, False, True]
    (place / "taken").write_text("")
    taken = _Worker(replace(settings, target=Path("taken")), str(place), "cpu")
    assert taken(block)["broken"][0].startswith("taken/00.png: cannot be written")


def test_what_needs_an_order_or_one_machine_is_refused(refused, place):
    words = ("predict", "run", "photos", "out", "--address", "auto")
    assert refused(*words, "--watch") == (
        "--address: several machines predict, but --watch needs one; leave out one of the two"
    )
    assert "adapt needs one" in refused(*words, "adapt.name=source")
    assert "give auto, cpu or cuda" in refused(*words, "--device", "cuda:1")
    assert "predict trip.mp4 without it" in refused("predict", "run", "trip.mp4", "out", "--address", "auto")
    assert refused(*words, "--size", "8x8").startswith("size (8, 8): give")
