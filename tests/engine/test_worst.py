"""The worst images of a domain are kept as pictures, and the curves of a run by step."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

import hardy
from hardy import curves, pictures
from hardy.commands import evaluate, train
from hardy.data.label_spaces import LabelSpace
from hardy.engine.worst import SIDE, Finder
from hardy.errors import InputError
from hardy.recipe import from_values

TWO = LabelSpace("two", ("wall", "sky"), ((10, 20, 30), (200, 0, 0)))


def pixels(data):
    return np.asarray(Image.open(BytesIO(data)).convert("RGB"))


def test_the_lowest_scores_are_kept_the_worst_first():
    finder = Finder(TWO, 2)
    truth, said = torch.tensor([[0, 255], [1, 1]]), torch.tensor([[1, 0], [1, 0]])
    for shade, score in enumerate((0.5, float("nan"), 0.2, 0.9, 0.2, 0.1)):
        finder.show(torch.full((3, 2, 2), shade / 10), truth, said, score)
    kept = finder.pictures(["a", "b", "c", "d", "e", "f"])
    assert [(one.name, one.score) for one in kept] == [("f", 0.1), ("c", 0.2)]  # of equal ones the first
    assert pixels(kept[0].files["truth"]).tolist() == [[[10, 20, 30], [0, 0, 0]], [[200, 0, 0], [200, 0, 0]]]
    assert pixels(kept[0].files["prediction"]).tolist() == [[[200, 0, 0], [10, 20, 30]], [[200, 0, 0], [10, 20, 30]]]
    assert np.abs(pixels(kept[0].files["image"]).astype(int) - 128).max() <= 3


def test_a_large_image_becomes_a_small_picture_of_the_same_shape():
    finder = Finder(TWO, 1)
    finder.show(torch.zeros(3, 8, 16), torch.zeros(600, 1200), torch.ones(600, 1200), 0.0)
    assert {pixels(data).shape for data in finder.pictures(["a"])[0].files.values()} == {(SIDE // 2, SIDE, 3)}


def test_pictures_are_read_as_written_and_older_ones_go(tmp_path):
    files = {"image": b"i", "truth": b"t", "prediction": b"p"}
    many = [pictures.Picture("b/c.png", 0.25, files), pictures.Picture("d", 0.5, files)]
    pictures.write(tmp_path, pictures.Worst({"x/y": many}, {"sky": (1, 2, 3)}))
    fewer = pictures.Worst({"x/y": many[:1]}, {"sky": (1, 2, 3)})
    pictures.write(tmp_path, fewer)
    assert pictures.read(tmp_path) == fewer
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "index.json",
        "x-y-1-image.jpg",
        "x-y-1-prediction.png",
        "x-y-1-truth.png",
    ]
    assert pictures.read(tmp_path / "none") == pictures.Worst({}, {})
    for index in ("[]", '{"colours": {"sky": [300, 0, 0]}, "domains": {}}', (tmp_path / "index.json").read_text()):
        (tmp_path / "index.json").write_text(index)
        (tmp_path / "x-y-1-truth.png").unlink(missing_ok=True)
        with pytest.raises(InputError, match="these pictures were not written by Hardy"):
            pictures.read(tmp_path)


def test_curves_the_latest_line_of_a_step_counts_and_a_torn_one_does_not(tmp_path):
    for step, loss in ((1, 3.0), (2, 2.0), (2, 1.5)):
        curves.append(tmp_path, "train", step, {"loss": loss, "other": float("inf")})
    curves.append(tmp_path, "recover", 1, {"loss": float("nan")})
    with (tmp_path / curves.FILE).open("a") as file:
        file.write('{"stage": "train", "step": 3, "val')
    assert curves.read(tmp_path) == {"train": {"loss": [(1, 3.0), (2, 1.5)]}}
    assert curves.read(tmp_path / "none") == {}


@pytest.mark.costly
def test_a_run_keeps_pictures_and_curves(town, tmp_path):
    recipe = from_values(
        {
            "network": {"name": "tiny", "width": 8, "classes": str(town)},
            "data": {
                "sources": ["folder/day"],
                "unseen": ["folder/night"],
                "crop": [32, 32],
                "holdout": 0.4,
                "datasets": {"folder": {"root": str(town)}},
            },
            "optim": {"steps": 4, "batch": 4, "lr": 0.05},
            "evaluate": {"keep_worst": 1, "every": 2},
            "run": {"folder": str(tmp_path / "run"), "device": "cpu", "workers": 0, "threads": 1, "log_every": 2},
        }
    )
    folder = train.run(recipe, show=False)
    found = pictures.read(folder / pictures.FOLDER)
    assert {domain: len(kept) for domain, kept in found.domains.items()} == {"folder/day": 1, "folder/night": 1}
    assert set(found.colours) == set(hardy.load(folder).label_space.classes)
    ran = curves.read(folder)["train"]
    assert {name: [step for step, _ in curve] for name, curve in ran.items()}["source validation"] == [2, 4]
    assert len(ran) > 1
    options = {"datasets": {"folder": {"root": str(town)}}, "device": "cpu", "size": None, "per_class": False}
    evaluate.run(folder, ["folder/night"], worst=2, **options)
    again = pictures.read(folder / pictures.FOLDER).domains["folder/night"]
    assert again[0] == found.domains["folder/night"][0]
    assert again[0].score <= again[1].score
