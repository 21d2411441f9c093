"""Images and masks that cannot be used: the file is named before the first step, and what is usable is taken."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def street(town, tmp_path) -> Path:
    """The town's day, to be damaged: ``images/day`` and ``masks/day`` with eight files each."""
    root = tmp_path / "street"
    for kind in ("images", "masks"):
        (root / kind / "day").mkdir(parents=True)
        for number in range(8):
            shutil.copy(town / kind / "day" / f"{number:02}.png", root / kind / "day")
    shutil.copy(town / "classes.yaml", root)
    return root


@pytest.fixture
def train(recipe, street):
    """The words that train on the street; every image is read in the first step."""

    def words(**data):
        return "train", recipe(data={"root": str(street), **data}, optim={"batch": 8})

    return words


def halve(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])


def test_data_that_are_not_there(refused, train, street, tmp_path):
    (tmp_path / "empty").mkdir()
    assert f"{tmp_path}/gone: there is no such folder" in refused(*train(root=str(tmp_path / "gone")))
    line = refused(*train(root=str(tmp_path / "empty")))
    assert line == f"{tmp_path}/empty/classes.yaml: there is no such file; it names the classes of the masks"
    for kind in ("images", "masks"):
        shutil.rmtree(street / kind / "day")
    assert refused(*train()) == f"{street}/images: it holds no images"
    assert refused("data", "folder", "--root", street) == f"{street}/images: it holds no images"


def test_an_image_without_mask_and_a_mask_without_image(refused, train, street):
    (street / "masks" / "day" / "03.png").unlink()
    line = (
        f"{street}/images/day/03.png: image without mask (1 such below {street}/images): there is no "
        f"{street}/masks/day/03.*; add it or remove the image"
    )
    assert refused(*train()) == line
    (street / "images" / "day" / "03.png").unlink()
    (street / "images" / "day" / "05.png").unlink()
    assert f"{street}/masks/day/05.png: mask without image" in refused(*train())


def test_a_mask_of_another_size(refused, train, street):
    Image.new("L", (47, 32)).save(street / "masks" / "day" / "03.png")
    image = street / "images" / "day" / "03.png"
    line = f"{street}/masks/day/03.png: mask is 32x47 but its image {image} is 32x48 (height x width); "
    assert refused(*train()) == line + "one of them belongs to another image"


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_truncated_png(refused, train, street, kind):
    halve(street / kind / "day" / "03.png")
    line = f"{street}/{kind}/day/03.png: damaged or not an image (image file is truncated)"
    assert refused(*train()).startswith(line)


def test_a_truncated_png_in_a_worker(refused, train, street):
    halve(street / "images" / "day" / "03.png")
    line = refused(*train(), "run.workers=1")
    assert line.startswith(f"{street}/images/day/03.png: damaged or not an image")


@pytest.mark.parametrize("check", [True, False], ids=["checked", "unchecked"])
def test_a_mask_with_a_foreign_id(refused, train, street, check):
    file = street / "masks" / "day" / "03.png"
    ids = np.array(Image.open(file))
    ids[0, :5] = 77
    Image.fromarray(ids).save(file)
    line = f"{file}: id 77 on 5 pixels is outside the label map; correct the mask or declare the id"
    assert refused(*train(check=check)) == line
    assert refused("data", "folder", "--root", street) == line


def test_a_foreign_id_of_an_unseen_domain_is_found_before_the_first_step(refused, train, street, town, tmp_path):
    for kind in ("images", "masks"):
        shutil.copytree(town / kind / "night", street / kind / "night")
    file = street / "masks" / "night" / "11.png"
    Image.fromarray(np.full((32, 48), 9, dtype=np.uint8)).save(file)
    assert refused(*train(unseen=["folder/night"])).startswith(f"{file}: id 9 on 1536 pixels is outside the label map")
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_masks_without_a_single_label(refused, train, street):
    for file in (street / "masks" / "day").iterdir():
        Image.fromarray(np.full((32, 48), 255, dtype=np.uint8)).save(file)
    line = "folder/day: every pixel of every label is ignored; check the masks and the label map"
    assert refused(*train()) == line


def test_a_data_set_of_one_image(refused, call, train, street):
    for kind in ("images", "masks"):
        for number in range(1, 8):
            (street / kind / "day" / f"{number:02}.png").unlink()
    assert refused(*train()) == "folder/day: it has 1 image, too few for training and validation; add images"
    assert call("data", "folder", "--root", street).code == 0


@pytest.mark.costly
def test_a_batch_of_one(call, recipe, town):
    one = {"optim": {"batch": 1, "steps": 1}, "data": {"crop": [32, 32]}}
    scnn = recipe(network={"name": "fast_scnn", "classes": str(town)}, **one)
    assert call("train", scnn).code == 0, "norms of Hardy's own take a single value"
    theirs = {"name": "encoder_decoder", "encoder": "mobilenetv2_035", "decoder": "linear", "classes": str(town)}
    file = recipe(network=theirs, run={"folder": str(Path(scnn).parent / "theirs")}, **one)
    line = "optim.batch: 1 image at a time is too few for the batch norm of EncoderDecoder's 1x1 map; use 2 or more"
    for words in ((file,), (file, "optim.batch=2", "optim.accumulate=2")):
        said = call("train", *words)
        assert (said.code, said.err.splitlines()[-1].startswith(f"hardy: {line}")) == (2, True), said


def resaved(file: Path, mode: str) -> None:
    """The image or mask ``file`` again, with the same content, in another mode of Pillow."""
    image = Image.open(file)
    if mode == "I;16":
        image = Image.fromarray(np.array(image.convert("L")).astype(np.uint16))
    elif mode == "P of ids":
        image.putpalette([value for _ in range(256) for value in (9, 9, 9)])
    else:
        image = image.convert(mode)
    image.save(file)


@pytest.mark.parametrize("mode", ["RGBA", "P", "L"])
def test_opaque_rgba_palette_and_grey_images_are_taken(call, train, street, mode):
    resaved(street / "images" / "day" / "03.png", mode)
    assert call(*train()).code == 0


@pytest.mark.parametrize("mode", ["I;16", "P of ids"])
def test_sixteen_bit_and_palette_masks_are_ids(call, train, street, mode):
    resaved(street / "masks" / "day" / "03.png", mode)
    assert call(*train()).code == 0


def test_what_would_be_changed_silently_is_refused(refused, train, street):
    image, mask = (street / kind / "day" / "03.png" for kind in ("images", "masks"))
    whole = image.read_bytes()
    resaved(image, "I;16")
    assert refused(*train()) == f"{image}: a grey image of more than 8 bits (mode I;16); save it with 8 bits"
    image.write_bytes(whole)
    glass = Image.open(image).convert("RGBA")
    glass.putpixel((3, 3), (0, 0, 0, 0))
    glass.save(image)
    assert refused(*train()) == f"{image}: it has transparent pixels; save it without transparency"
    image.write_bytes(whole)
    resaved(mask, "RGBA")
    assert refused(*train()).startswith(f"{mask}: an RGB mask, but its classes have no colours; declare colours")


def test_predict_skips_the_torn_image_and_its_exit_code_tells(call, refused, trained, street, tmp_path):
    halve(street / "images" / "day" / "03.png")
    said = call("predict", trained, street / "images" / "day", tmp_path / "masks")
    assert said.code == 1
    assert said.err.startswith(f"hardy: skipped: {street}/images/day/03.png: damaged or not an image")
    assert said.err.count("\n") == 1
    assert said.out == f"wrote 7 masks to {tmp_path}/masks; skipped 1\n"
    assert sorted(file.name for file in (tmp_path / "masks").iterdir()) == [f"{n:02}.png" for n in range(8) if n != 3]
    report = json.loads(call("predict", trained, street / "images" / "day", tmp_path / "masks", "--json").out)
    assert (len(report["masks"]), report["kept"], [*report["skipped"]]) == (7, 7, [f"{street}/images/day/03.png"])
    line = refused("predict", trained, street / "images" / "day" / "03.png", tmp_path / "none")
    assert line.startswith(f"{street}/images/day/03.png: damaged or not an image")
