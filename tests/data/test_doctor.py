"""The doctor of data finds what was broken on purpose, shows the fix, and finds nothing in data that are right."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from hardy.data.doctor import alignment, twins
from hardy.data.doctor.convert import convert
from hardy.data.doctor.examine import examine
from hardy.data.doctor.layout import named
from hardy.data.doctor.sheet import write
from hardy.data.label_spaces import SPACES
from hardy.errors import InputError


@pytest.fixture
def street(town, tmp_path):
    """A copy of the town, below a folder whose name has parts of the names of images."""
    return shutil.copytree(town, tmp_path / "night 11" / "street")


def checked(*words, root=".", options=None):
    domains, unpaired = named([str(word) for word in words], root=root, options=options)
    return examine(domains, unpaired)


def problems(street):
    """kind -> problem, of a folder in which each kind occurs once."""
    found = {}
    for one in checked(street).problems:
        assert one.kind not in found, (one, found)
        found[one.kind] = one
    return found


def mask(street, name="day/03"):
    return street / "masks" / f"{name}.png"


def test_counts_of_data_that_are_right(street):
    found = checked(street)
    assert not found.mistakes
    day, night = found.domains
    assert (day.domain.name, night.domain.name) == ("folder/day", "folder/night")
    report = json.loads(json.dumps(day.to_json()))
    assert report["splits"] == {"all": {"listed": 12, "images": 12, "labels": 12}}
    assert report["sizes"] == {"32x48": 12}
    assert report["ignored"] == 12 * 32 * 2
    assert sum(report["pixels"].values()) + report["ignored"] == 12 * 32 * 48
    assert report["pixels"]["road"] == sum(
        int((np.array(Image.open(f)) == 0).sum()) for f in street.glob("masks/day/*")
    )


def test_torn_files_and_files_without_counterpart_are_all_found(street):
    for name in ("images/day/01.png", "images/day/02.png", "masks/day/03.png", "masks/night/05.png"):
        whole = (street / name).read_bytes()
        (street / name).write_bytes(whole[: len(whole) // 2])
    (street / "images" / "day" / "07.png").write_bytes(b"")
    mask(street, "night/08").unlink()
    found = [*checked(street).problems]
    torn = {one.where: one for one in found if one.kind == "unreadable"}
    assert (torn["folder/day"].count, torn["folder/night"].count) == (4, 1)
    assert torn["folder/day"].files == [
        f"{street}/{n}.png" for n in ("images/day/01", "images/day/02", "masks/day/03", "images/day/07")
    ]
    assert "damaged or not an image" in torn["folder/day"].what
    assert torn["folder/day"].cases[-1] == f"{street}/images/day/07.png: damaged or not an image (the file is empty)"
    assert torn["folder/day"].fix == "fetch it again"
    (alone,) = (one for one in found if one.kind == "unpaired")
    assert alone.files == [f"{street}/images/night/08.png"]
    assert checked(street).mistakes == 3


def test_ids_outside_the_label_map(street):
    ids = np.array(Image.open(mask(street)))
    ids[0, :5], ids[1, :3] = 77, 9
    Image.fromarray(ids).save(mask(street))
    found = problems(street)["foreign"]
    assert found.what == f"{street}/images/day/03.png: ids without a class: 9 (3 pixels), 77 (5 pixels)"
    assert "classes.yaml" in found.fix
    assert found.level == "mistake"


COLOURS = np.array([[128, 64, 128], [70, 70, 70], [70, 130, 180]], dtype=np.uint8)


@pytest.fixture
def coloured(street):
    """The town with RGB masks."""
    text = "".join(f"- {{name: c{i}, colour: {colour.tolist()}}}\n" for i, colour in enumerate(COLOURS))
    (street / "classes.yaml").write_text(text + "- {name: void, colour: [0, 0, 0], ignore: true}\n")
    palette = np.concatenate([COLOURS, np.zeros((253, 3), dtype=np.uint8)])
    for file in street.glob("masks/*/*.png"):
        Image.fromarray(palette[np.array(Image.open(file))]).save(file)
    return street


def test_colours_that_jpeg_has_changed_are_distinguished_from_foreign_ones(coloured):
    assert not checked(coloured).mistakes
    damaged = io.BytesIO()
    Image.open(mask(coloured)).save(damaged, "JPEG", quality=85)
    Image.open(damaged).save(mask(coloured))
    found = problems(coloured)
    assert set(found) == {"blurred"}
    assert "JPEG" in found["blurred"].what
    rgb = np.array(Image.open(mask(coloured, "day/04")))
    rgb[:4] = (255, 255, 0)
    Image.fromarray(rgb).save(mask(coloured, "day/03"))
    assert "colours without a class: (255, 255, 0) on 192 pixels" in problems(coloured)["foreign"].what


def test_masks_of_another_size_and_the_crop_that_fits(street):
    for file in street.glob("masks/day/*.png"):
        ids = np.array(Image.open(file))
        wide = np.pad(ids, ((2, 0), (0, 3)), mode="edge")
        Image.fromarray(wide).save(file)
    found = problems(street)["size"]
    assert (found.count, found.what) == (12, "masks of 34x51 for images of 32x48 (height x width)")
    assert "mask[2:34, 0:48]" in found.fix
    Image.new("L", (32, 48)).save(mask(street, "night/02"))
    Image.new("L", (96, 64)).save(mask(street, "night/03"))
    fixes = [one.fix for one in checked(street).problems if one.where == "folder/night"]
    assert any("EXIF" in fix for fix in fixes)
    assert any("export the masks at the size of the images" in fix for fix in fixes)


@pytest.mark.slow
def test_the_crop_of_real_frames(real_data, tmp_path):
    """The frames of KITTI are the crop mask[5:375, 18:1242] of their masks."""
    frames = real_data / "kitti" / "data_semantics" / "training"
    if not frames.is_dir():
        pytest.skip("no KITTI frames")
    for kind, source in (("images", "image_2"), ("masks", "semantic")):
        shutil.copytree(frames / source, tmp_path / kind)
    (tmp_path / "classes.yaml").write_text(f"- {{name: all, ids: {[*range(34)]}}}\n")
    assert "mask[5:375, 18:1242] fits the images best" in problems(tmp_path)["size"].fix
    (cut,) = checked("kitti", root=real_data).problems
    assert (cut.kind, cut.level, cut.count) == ("cut", "note", 5)


def test_classes_that_never_occur(street):
    (street / "classes.yaml").write_text("- {name: road}\n- {name: wall}\n- {name: sky}\n- {name: tree}\n")
    for file in street.glob("masks/night/*.png"):
        ids = np.array(Image.open(file))
        Image.fromarray(np.where(ids == 1, 0, ids)).save(file)
    found = {one.what: (one.level, one.where) for one in checked(street).problems}
    assert found["no pixel is labelled tree"] == ("warning", "folder/day, folder/night")
    assert found["no pixel is labelled wall"] == ("note", "folder/night")


def test_empty_and_uniform_masks(street):
    Image.fromarray(np.full((32, 48), 255, dtype=np.uint8)).save(mask(street))
    Image.fromarray(np.full((32, 48), 2, dtype=np.uint8)).save(mask(street, "day/04"))
    found = problems(street)
    assert found["empty"].files == [f"{street}/images/day/03.png"]
    assert found["uniform"].what.endswith("its mask has only the class sky")


def test_an_image_in_two_splits(street):
    picture = Image.open(street / "images" / "day" / "05.png")
    picture.save(street / "images" / "night" / "05.png", compress_level=1)  # other bytes, the same pixels
    found = problems(street)["twice"]
    assert (found.level, found.where) == ("warning", "folder/day all and folder/night all")
    picture.save(street / "images" / "day" / "06.png")
    levels = {one.where: one.level for one in checked(street).problems if one.kind == "twice"}
    assert levels == {"folder/day all and folder/night all": "warning"}
    shutil.copy(street / "images" / "night" / "01.png", street / "images" / "night" / "05.png")
    levels = {one.where: one.level for one in checked(street).problems if one.kind == "twice"}
    assert levels == {"folder/day all": "note", "folder/night all": "note"}


def scene(seed, size=(96, 128)):
    """Rectangles of one class each on a textured ground: an image and its mask."""
    draw = np.random.default_rng(seed)
    label = np.zeros(size, dtype=np.uint8)
    for number in range(1, 9):
        top, left = draw.integers(10, size[0] - 36), draw.integers(10, size[1] - 40)
        label[top : top + draw.integers(8, 26), left : left + draw.integers(8, 30)] = number
    image = draw.integers(0, 256, (9, 3))[label] + draw.normal(0, 6, (*size, 3))
    return image.clip(0, 255).astype(np.uint8), label


def test_almost_the_same_image():
    light = np.linspace(0, 60, 128)[:, None] + np.linspace(0, 60, 96)[:, None, None]
    images = [(scene(seed)[0] // 2 + light).astype(np.uint8) for seed in range(6)]
    saved = io.BytesIO()
    Image.fromarray(images[2]).save(saved, "JPEG", quality=50)
    images.append(np.array(Image.open(saved)))
    prints = [twins.print_of(image, bytes([place])) for place, image in enumerate(images)]
    assert [*twins.almost_same(prints, [0, 1, 0, 1, 0, 1, 1])] == [(2, 6)]
    assert [*twins.almost_same(prints, [0] * 7)] == []
    flat = [twins.print_of(np.full((64, 64, 3), value, dtype=np.uint8), b"") for value in (3, 200)]
    assert [*twins.almost_same(flat, [0, 1])] == []


@pytest.mark.parametrize("moved", [(0, 0), (0, 9), (-7, 4)])
def test_a_shifted_mask(moved):
    image, label = scene(1)
    score = alignment.scores(image, np.roll(label, moved, (0, 1)))
    (down, across), ratio = alignment.offset(score)
    assert (down, across) == (-moved[0], -moved[1])
    assert (ratio >= alignment.LEAST_RATIO) == (moved != (0, 0))


def test_a_domain_whose_masks_are_all_shifted(tmp_path):
    (tmp_path / "classes.yaml").write_text("".join(f"- {{name: c{i}}}\n" for i in range(9)))
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for seed in range(4):
        image, label = scene(seed)
        Image.fromarray(image).save(tmp_path / "images" / f"{seed}.png")
        Image.fromarray(np.roll(label, (2, 0), (0, 1))).save(tmp_path / "masks" / f"{seed}.png")
    found = problems(tmp_path)
    assert "moved by 2 pixels up" in found["all shifted"].what
    assert "shifted" not in found


def test_layouts_that_are_found_and_those_that_are_not(town, tmp_path):
    assert [d.name for d in named([str(town)], root=tmp_path)[0]] == ["folder/day", "folder/night"]
    for kind in ("images", "masks"):
        shutil.copytree(town / kind, tmp_path / "bare" / kind)
    with pytest.raises(InputError, match=r"classes\.yaml: there is no such file; .* the ids 0, 1, 2, 255;"):
        named([str(tmp_path / "bare")], root=tmp_path)
    shutil.copytree(town / "images", tmp_path / "loose")
    with pytest.raises(InputError, match=r"unknown layout \(it holds 24 images and the folders day, night\)"):
        named([str(tmp_path / "loose")], root=tmp_path)
    with pytest.raises(InputError, match="neither a folder nor a dataset"):
        named([str(tmp_path / "gone")], root=tmp_path)


@pytest.mark.slow
def test_drawn_data_are_read_in_part():
    found = checked("streets/night", options={"streets": {"size": [32, 64], "train": 99, "val": 0, "test": 2}})
    assert [*found.domains[0].images.values()] == [16, 2]
    assert not found.mistakes


# ---------------------------------------------------------------------------------------------------- show, convert


@pytest.mark.parametrize("ending", ["png", "html"])
def test_a_sheet_shows_images_beside_their_masks(street, tmp_path, ending):
    file = street / "images" / "day" / "00.png"
    file.write_bytes(file.read_bytes()[:99])
    domains, _ = named([str(street)], root=tmp_path)
    to = tmp_path / f"sheet.{ending}"
    assert write(domains, to, images=3) == (6, 2)
    if ending == "html":
        page = to.read_text()
        assert page.count("<img ") == 6
        assert page.count("</i>ignored</li>") == 2
        assert "wall" in page
        assert "http" not in page
        assert write(domains, to, images=99, only="07") == (2, 2)
        return
    assert write(domains, to, images=99, only="night/") == (12, 1)
    assert write(domains, to, images=99, only=str(street / "images/day/03.png")) == (1, 1)
    assert write(domains, to, images=1, only="11") == (2, 2)
    sheet = np.array(Image.open(to))
    red, green, blue = domains[0].dataset.label_space.colours[2]
    sky = np.array(Image.open(street / "images" / "day" / "11.png"))[0, 0]
    mixed = (0.35 * sky + 0.65 * np.array((red, green, blue))).round()
    assert (np.abs(sheet.astype(int) - mixed).max(2) <= 3).any()


def test_a_sheet_that_cannot_be_made(street, tmp_path):
    domains, _ = named([str(street)], root=tmp_path)
    for more, line in (
        ({"images": 0}, "images 0: give 1 to 500"),
        ({"images": 4, "splits": ["test"]}, "split 'test': no domain has it; there are: all"),
        ({"images": 4, "only": "zebra"}, "has 'zebra' in its name"),
    ):
        with pytest.raises(InputError, match=line):
            write(domains, tmp_path / "x.png", **more)
    with pytest.raises(InputError, match=r"\.png or a \.html"):
        write(domains, tmp_path / "x.pdf", images=4)


@pytest.mark.slow
def test_converted_data_are_the_same_data(real_data, tmp_path):
    domains, _ = named(["kitti"], root=real_data)
    assert convert(domains, tmp_path / "own") == 5
    assert convert(domains, tmp_path / "idd", classes="idd7") == 5
    (own,), (idd,) = (named([str(tmp_path / name)], root=tmp_path)[0] for name in ("own", "idd"))
    assert (own.name, {split: len(items) for split, items in own.splits.items()}) == ("folder/karlsruhe", {"train": 5})
    for item, mine, theirs in zip(domains[0].items(), own.items(), idd.items(), strict=True):
        image, label = domains[0].dataset.read(item)
        copied, same = own.dataset.read(mine)
        assert np.array_equal(image, copied)
        assert np.array_equal(label, same)
        assert set(np.unique(idd.dataset.read_label(theirs))) <= {*range(7), 255}
    assert own.dataset.label_space.colours == domains[0].dataset.label_space.colours


def test_a_conversion_that_fails_leaves_nothing(street, tmp_path):
    file = mask(street, "night/11")
    file.write_bytes(file.read_bytes()[:60])
    domains, _ = named([str(street)], root=tmp_path)
    before = {*tmp_path.iterdir()}
    with pytest.raises(InputError, match=r"11\.png: damaged"):
        convert(domains, tmp_path / "new")
    with pytest.raises(InputError, match="from its classes 'street' onto 'idd7'; convert it without"):
        convert(domains, tmp_path / "new", classes="idd7")
    with pytest.raises(InputError, match="already exists"):
        convert(domains, street)
    assert {*tmp_path.iterdir()} == before


def test_a_conversion_without_a_map_names_the_spaces_that_have_one(tmp_path, monkeypatch):
    (streets,) = named(["streets/day"], root=tmp_path)[0]
    monkeypatch.setattr(streets.dataset, "label_space", SPACES["camvid11"])
    with pytest.raises(InputError, match=r"'camvid11' onto 'cityscapes19'; there is one onto idd7$"):
        convert([streets], tmp_path / "new", classes="cityscapes19")


def test_splits_of_a_folder(street):
    (street / "train.txt").write_text("day/00\nday/01\nnight/02\n")
    (street / "val.txt").write_text("day/05\n")
    domains, _ = named([str(street)], root=street)
    counts = {domain.name: {split: len(items) for split, items in domain.splits.items()} for domain in domains}
    assert counts == {"folder/day": {"train": 2, "val": 1}, "folder/night": {"train": 1}}
    (street / "val.txt").write_text("day/55\n")
    with pytest.raises(InputError, match=r"val\.txt: it names day/55, which is not in .*images \(1 such\)"):
        named([str(street)], root=street)
