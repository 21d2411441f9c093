"""Files of a dataset are found, paired or named: none is left out in silence."""

import logging
import os
import unicodedata
from re import escape

import numpy as np
import pytest
from dataset_files import RGB, counts, refused, save

from hardy.data.datasets.camvid import CamVid
from hardy.data.datasets.cityscapes import Cityscapes
from hardy.data.datasets.folder import Folder
from hardy.data.finding import by_frame, by_name, files, pair
from hardy.data.sources import domains

IDS = np.array([[0, 1, 255]] * 2, dtype=np.uint8)


@pytest.fixture
def town(tmp_path):
    """A folder data set with one image in the domain ``day``."""
    root = tmp_path / "town"
    save(root / "images" / "day" / "a.png", RGB)
    save(root / "masks" / "day" / "a.png", IDS)
    (root / "classes.yaml").write_text("- {name: road}\n- {name: sky}\n")
    return root


# ---------------------------------------------------------------------------------------------------------- links


def test_a_linked_domain_is_a_domain(town, tmp_path):
    for kind in ("images", "masks"):
        save(tmp_path / "elsewhere" / kind / "b.png", RGB if kind == "images" else IDS)
        (town / kind / "night").symlink_to(tmp_path / "elsewhere" / kind)
    assert counts(Folder(town)) == {"day": {"all": 1}, "night": {"all": 1}}


def test_a_link_that_goes_round_is_named_and_not_followed(town, caplog):
    (town / "images" / "day" / "loop").symlink_to(town / "images")
    (town / "images" / "day" / "top").symlink_to(town)
    assert counts(Folder(town)) == {"day": {"all": 1}}
    assert [record.getMessage().split(": it links to ")[0] for record in caplog.records] == [
        f"{town}/images/day/loop",
        f"{town}/images/day/top",
    ]


def test_a_link_to_nothing_is_named(town):
    (town / "images" / "day" / "b.png").symlink_to("../annex/b.png")
    refused(r"images/day/b.png: it links to ../annex/b.png, which is missing; fetch it", Folder, town)


def test_a_folder_that_cannot_be_read_is_named(town, monkeypatch):
    scan = os.scandir

    def guarded(place):
        if str(place).endswith("images/night"):
            raise PermissionError(13, "Permission denied")
        return scan(place)

    (town / "images" / "night").mkdir()
    monkeypatch.setattr(os, "scandir", guarded)
    refused("images/night: it cannot be read: Permission denied; make it readable or remove it", Folder, town)


# ------------------------------------------------------------------------------------------------------ left out


def test_gifs_beside_other_images_are_found(town):
    save(town / "images" / "day" / "b.gif", RGB)
    refused("images/day/b.gif: image without mask", Folder, town)
    save(town / "masks" / "day" / "b.gif", IDS)
    assert counts(Folder(town)) == {"day": {"all": 2}}


def test_what_is_no_image_is_named(town, caplog):
    for name in ("b.heic", "c.mp4", ".hidden.txt", "Thumbs.db"):
        (town / "images" / "day" / name).write_bytes(b"x")
    os.mkfifo(town / "images" / "day" / "pipe.png")
    Folder(town)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(
        f"{town}/images: 3 files are left out, such as day/b.heic; images end in .png"
    )


def test_datasets_that_look_for_one_ending_name_nothing(town, caplog):
    (town / "images" / "day" / "b.txt").write_text("")
    assert len(files(town / "images", ".png")) == 1
    assert not caplog.records


# -------------------------------------------------------------------------------------------------------- accents


@pytest.mark.parametrize("other", ["NFC", "NFD"])
def test_names_with_accents_are_paired_however_they_are_encoded(town, other):
    mine = {"NFC": "NFD", "NFD": "NFC"}[other]
    for kind, form, pixels in (("images", mine, RGB), ("masks", other, IDS)):
        save(town / kind / unicodedata.normalize(form, "Köln") / unicodedata.normalize(form, "straße é.png"), pixels)
    assert counts(Folder(town)) == {"day": {"all": 1}, "Köln": {"all": 1}}
    for form in (mine, other):
        (found,) = domains([f"folder/{unicodedata.normalize(form, 'Köln')}"], root=town)
        assert len(found.items()) == 1


def test_two_names_that_look_the_same_are_refused(town):
    for form in ("NFC", "NFD"):
        save(town / "images" / unicodedata.normalize(form, "é.png"), RGB)
    save(town / "masks" / "é.png", IDS)
    refused("in the same folder has the same name; remove one of them", Folder, town)


def test_two_files_of_one_key_are_refused(tmp_path):
    for place in ("a", "b"):
        save(tmp_path / place / "x" / "1.png", RGB)
    refused("b/x/1.png: it has the same name as .*a/x/1.png", by_name, tmp_path, ".png")
    refused("b/x/1.png: it has the same name as .*a/x/1.png", by_frame, tmp_path, ".png")
    one, other = (tmp_path / place / "x" / "1.png" for place in ("a", "b"))
    with pytest.raises(ValueError, match="has the same name"):
        pair({"é": one, unicodedata.normalize("NFD", "é"): other}, {}, tmp_path, mask="{}.png")


# ------------------------------------------------------------------------------------------- which mask is missing


def test_the_name_that_was_looked_for_is_said(town):
    save(town / "images" / "day" / "b.jpg", RGB)
    refused(
        rf"day/b.jpg: image without mask \(1 such .*\): there is no {escape(str(town))}/masks/day/b\.\*; add it",
        Folder,
        town,
    )
    save(town / "masks" / "day" / "b_label.png", IDS)
    refused(r"; if its mask is .*/masks/day/b_label.png, set data.datasets.folder.mask_ending=_label$", Folder, town)
    (town / "masks" / "day" / "a.png").rename(town / "masks" / "day" / "a_label.png")
    assert counts(Folder(town, mask_ending="_label")) == {"day": {"all": 2}}
    (town / "masks" / "day" / "b_label.png").unlink()
    refused(
        rf"there is no {escape(str(town))}/masks/day/b_label\.\*; .*mask_ending is '_label'",
        lambda: Folder(town, mask_ending="_label"),
    )


def test_a_name_that_is_nearly_it_is_suggested(town):
    save(town / "images" / "day" / "street_01.png", RGB)
    save(town / "masks" / "day" / "strete_01.png", IDS)
    refused(r"there is no .*/day/street_01\.\*; did you mean 'day/strete_01'\?", Folder, town)


def test_a_mask_without_image_names_the_image_that_was_looked_for(town):
    save(town / "masks" / "day" / "b.png", IDS)
    refused(
        rf"masks/day/b.png: mask without image .* there is no {escape(str(town))}/images/day/b\.\*; add it or remove",
        Folder,
        town,
    )


def test_the_kind_of_label_is_part_of_the_name(tmp_path):
    ulm = tmp_path / "cityscapes" / "leftImg8bit" / "train" / "ulm"
    save(ulm / "ulm_0_1_leftImg8bit.png", RGB)
    truth = tmp_path / "cityscapes" / "gtFine" / "train" / "ulm"
    save(truth / "ulm_0_1_gtFine_color.png", RGB)
    refused(rf"there is no {escape(str(truth))}/ulm_0_1_gtFine_labelIds\.png; add it", Cityscapes, tmp_path)
    save(tmp_path / "train" / "0001TP_1.png", RGB)
    (tmp_path / "trainannot").mkdir()
    refused(rf"there is no {escape(str(tmp_path))}/trainannot/0001TP_1\.png; add it", CamVid, tmp_path)
