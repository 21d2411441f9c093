"""``hardy data`` decodes everything and prints its tables or one error; names print as they are."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hardy


@pytest.fixture
def street(town, tmp_path) -> Path:
    """A copy of the town."""
    return shutil.copytree(town, tmp_path / "street")


def test_torn_images_surface_here_and_the_table_does_not(call, street):
    assert call("data", "folder", "--root", street).code == 0
    image = street / "images" / "night" / "07.png"
    whole = bytearray(image.read_bytes())
    place = whole.index(b"IDAT") + 20
    whole[place : place + 60] = bytes(60)  # the end of the file is as it should be
    image.write_bytes(whole)
    said = call("data", "folder", "--root", street)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"hardy: {image}: damaged or not an image")


def test_full_finds_before_the_first_step_what_a_sample_does_not(call, refused, recipe, street):
    image = street / "images" / "night" / "02.png"
    whole = bytearray(image.read_bytes())
    place = whole.index(b"IDAT") + 20
    whole[place : place + 60] = bytes(60)
    image.write_bytes(whole)
    file = recipe(data={"root": str(street), "unseen": ["folder/night"], "check": "full"})
    assert refused("train", file).startswith(f"{image}: damaged or not an image")
    assert "data.check" in refused("train", file, "data.check=fool")


def test_a_truncated_image_of_an_unseen_domain_is_found_before_the_first_step(refused, recipe, street):
    image = street / "images" / "night" / "02.png"
    image.write_bytes(image.read_bytes()[:-200])
    file = recipe(data={"root": str(street), "unseen": ["folder/night"]})
    assert refused("train", file).startswith(f"{image}: damaged or not an image")


@pytest.mark.costly
def test_a_class_without_a_pixel_is_named(call, recipe, street, tmp_path):
    (street / "classes.yaml").write_text("- {name: road}\n- {name: wall}\n- {name: sky}\n- {name: tree}\n")
    line = "no pixel is labelled tree; a class without labels does not count in the mIoU; 4.2 % of the pixels are"
    said = call("data", "folder", "--root", street)
    assert f"folder/day, folder/night: {line} ignored (255, or declared so in {street}/classes.yaml" in said.out
    file = recipe(
        network={"name": "tiny", "width": 16, "classes": str(street)}, data={"root": str(street)}, optim={"steps": 1}
    )
    said = call("train", file)
    assert (said.code, f"folder/day (training images): {line}" in said.err) == (0, True), said
    assert f"folder/day (training images): {line}" in (tmp_path / "run" / "train.log").read_text()


def test_binary_masks_of_0_and_255_do_not_pass_for_perfect_in_silence(call, street, tmp_path):
    (street / "classes.yaml").write_text("- {name: background}\n- {name: vessel}\n")
    for mask in (street / "masks").rglob("*.png"):
        Image.fromarray(np.where(np.array(Image.open(mask)) == 1, 255, 0).astype(np.uint8)).save(mask)
    network = hardy.create("tiny", street, width=16)
    network.state_dict()["head.bias"][1] = -1e9
    said = call("evaluate", hardy.save(network, tmp_path / "net"), "folder", "--root", street)
    assert "100.0" in said.out
    line = "folder/day, folder/night: the mIoU is over 1 of 2 classes; neither labels nor predictions contain vessel"
    assert line in said.out


def test_names_that_look_like_markup_print_as_they_are(call, town, tmp_path):
    street = tmp_path / "[bold]"
    shutil.copytree(town, street)
    (street / "images" / "day").rename(street / "images" / "[red]day")
    (street / "masks" / "day").rename(street / "masks" / "[red]day")
    (street / "classes.yaml").write_text("".join(f"- {{name: {name!a}}}\n" for name in ("[/x]", "[bold]road", "sky")))
    said = call("data", "folder", "--root", street)
    assert said.code == 0
    assert all(name in said.out for name in ("folder/[red]day", "[/x]", "[bold]road"))
    run = hardy.save(hardy.create("tiny", street, width=16), tmp_path / "net")
    said = call("evaluate", run, "folder/[red]day", "--root", street, "--per-class")
    assert said.code == 0
    assert all(name in said.out for name in ("folder/[red]day", "[/x]", "[bold]road"))


def test_control_characters_do_not_reach_the_terminal(call, street):
    (street / "classes.yaml").write_text('- {name: "\\e[31mred"}\n- {name: "a\\rb"}\n- {name: sky}\n')
    said = call("data", "folder", "--root", street)
    assert said.code == 0
    assert "\\x1b[31mred" in said.out
    assert "a\\rb" in said.out
    assert "\x1b" not in said.out


def test_names_that_are_no_unicode_print(call, street):
    for kind in ("images", "masks"):
        (street / kind / "day").rename(street / kind / "\udcff")
    said = call("data", "folder", "--root", street)
    assert (said.code, "folder/\\udcff" in said.out) == (0, True)


def test_options_of_a_data_set(call, refused, street):
    for mask in [*(street / "masks").rglob("*.png")]:
        mask.rename(mask.with_name(f"{mask.stem}_label.png"))
    assert refused("data", "folder", "--root", street).endswith("set data.datasets.folder.mask_ending=_label")
    assert call("data", "folder", "--root", street, "--dataset", "folder.mask_ending=_label").code == 0


def test_predict_writes_beside_a_folder_of_photographs(call, trained, street, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = call("predict", trained, "street/images/day", ".", "--window", "16x24")
    assert said.code == 0, said
    assert "wrote 12 masks to ." in said.out
    assert Image.open(tmp_path / "03.png").size == (48, 32)


def test_check_reports_everything_and_its_exit_code_shows_mistakes(call, street):
    said = call("data", "check", street)
    assert (said.code, said.err) == (0, "")
    assert "0 mistakes, " in said.out
    assert "road" in said.out
    whole = (street / "images" / "night" / "07.png").read_bytes()
    (street / "images" / "night" / "07.png").write_bytes(whole[:99])
    (street / "masks" / "day" / "03.png").unlink()
    said = call("data", "check", "folder", "--root", street)
    assert said.code == 1
    assert all(len(line) <= 80 for line in said.out.splitlines() if str(street) not in line)
    assert "2 mistakes, " in said.out
    report = json.loads(call("data", "check", street, "--json").out)
    assert [one["kind"] for one in report["problems"] if one["level"] == "mistake"] == ["unpaired", "unreadable"]
    assert report["domains"][0]["splits"]["all"]["images"] == 11


def test_check_tells_a_rare_class_from_an_absent_one_and_shows_each_reason(call, street):
    for number in range(12):
        ids = np.array(Image.open(street / "masks" / "night" / f"{number:02}.png"))
        ids[ids > 0] = 0
        ids[0, 0] = 1 if number == 5 else 0
        Image.fromarray(ids).save(street / "masks" / "night" / f"{number:02}.png")
    (street / "images" / "night" / "07.png").write_bytes(b"")
    (street / "masks" / "night" / "03.png").write_bytes((street / "masks" / "day" / "03.png").read_bytes()[:60])
    ids = Image.fromarray(np.ones((16, 24), dtype=np.uint8))
    ids.save(street / "masks" / "day" / "04.png")
    out = call("data", "check", street).out
    shares = {line.split("│")[1].strip(): line.split("│")[3].strip() for line in out.splitlines() if line[:1] == "│"}
    assert (shares["road"], shares["wall"], shares["sky"]) == ("100.0", "<0.1", "–")
    joined = " ".join(out.split())
    assert "mistake: folder/night (2 files): " in joined
    damaged = f"{street}/masks/night/03.png: damaged or not an image (image file is truncated)"
    assert f"{damaged} fix: fetch it again" in joined
    assert f"{street}/images/night/07.png: damaged or not an image (the file is empty)" in joined
    assert f"or reduce the images to the size of the masks {street}/images/day/04.png" in joined


def test_data_that_are_not_there(refused, street, tmp_path):
    assert refused("data", "check", tmp_path / "gone").startswith(
        f"{tmp_path}/gone: it is neither a folder nor a dataset"
    )
    assert refused("data", street) == f"{street}: it is a folder, not a domain; use: hardy data check {street}"
    assert refused("data", "convert", street, "--to", street).startswith(f"{street}: it already exists")


def test_show_and_convert(call, street, tmp_path):
    assert call("data", "show", street, "--to", tmp_path / "sheet.html", "--images", 2).code == 0
    assert "<figure>" in (tmp_path / "sheet.html").read_text()
    said = call("data", "show", street, "--to", tmp_path / "one.png", "--images", 1, "--only", "day/03")
    assert said.out == f"wrote 1 image of 1 domain to {tmp_path}/one.png\n"
    assert call("data", "convert", street, "--to", tmp_path / "new name").code == 0
    assert call("data", "check", tmp_path / "new name").code == 0
