"""Label spaces, raw maps and the declared maps between spaces, against values written out by hand."""

import subprocess
import sys

import numpy as np
import pytest

from hardy.data.label_spaces import CITYSCAPES_IDS, SPACES, LabelSpace, convert, find_label_space, read_classes
from hardy.data.rawmap import IGNORE, ColourMap, RawMap
from hardy.errors import InputError

CITY, CAMVID, IDD = SPACES["cityscapes19"], SPACES["camvid11"], SPACES["idd7"]


def test_ignore_is_the_same_number_everywhere():
    import hardy.types

    assert hardy.types.IGNORE == IGNORE


def test_labels_import_no_torch():
    code = "import sys, hardy.data.label_spaces; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("name", "count"), [("cityscapes19", 19), ("camvid11", 11), ("idd7", 7), ("pacs7", 7)])
def test_built_in_spaces(name, count):
    space = find_label_space(name)
    assert (space.name, len(space), len(set(space.colours))) == (name, count, count)
    assert find_label_space(space) is space
    assert LabelSpace.from_json(space.to_json()) == space


def test_orders_that_papers_and_files_rely_on():
    assert [CITY.index(c) for c in ("road", "vegetation", "sky", "person", "bicycle")] == [0, 8, 10, 11, 18]
    assert CITY.colours[13] == (0, 0, 142)
    assert CAMVID.classes[:4] == ("sky", "building", "pole", "road")
    assert SPACES["pacs7"].classes == tuple(sorted(SPACES["pacs7"].classes))


def test_an_unknown_class_or_space_gets_the_nearest():
    with pytest.raises(InputError, match="no class 'raod'; did you mean 'road'"):
        CITY.index("raod")
    with pytest.raises(InputError, match="no label space 'cityscape19'; did you mean 'cityscapes19'"):
        find_label_space("cityscape19")


@pytest.mark.parametrize(
    ("classes", "colours", "message"),
    [
        ((), (), "has 0 classes"),
        (("a", "a"), ((0, 0, 0), (1, 1, 1)), "two classes named 'a'"),
        (("a",), (), "0 colours for 1 classes"),
        (("a",), ((0, 0, 256),), "not three numbers"),
        (tuple(map(str, range(256))), ((0, 0, 0),) * 256, "has 256 classes"),
    ],
)
def test_impossible_spaces(classes, colours, message):
    with pytest.raises(InputError, match=message):
        LabelSpace("x", classes, colours)


def test_from_json_names_what_is_missing():
    with pytest.raises(InputError, match="it must have name, classes and colours"):
        LabelSpace.from_json({"name": "x", "classes": ["a"]})
    with pytest.raises(InputError, match="is not three numbers"):
        LabelSpace.from_json({"name": "x", "classes": ["a"], "colours": [[1, 2]]})


# The three maps of the specification, as lists of target ids in the order of the source.
MAPS = [
    (CITY, CAMVID, [3, 4, 1, 7, 7, 2, 6, 6, 5, 5, 0, 9, 10, 8, 8, 8, 8, 10, 10]),
    (CITY, IDD, [0, 1, 5, 4, 4, 4, 4, 4, 5, 1, 6, 2, 2, 3, 3, 3, 3, 3, 3]),
    (CAMVID, IDD, [6, 5, 4, 0, 1, 5, 4, 4, 3, 2, 2]),
]


@pytest.mark.parametrize(("source", "target", "expected"), MAPS)
def test_declared_maps(source, target, expected):
    table = convert(source, target)
    assert table.dtype == np.uint8
    assert table.tolist() == expected + [255] * (256 - len(expected))
    assert set(expected) == set(range(len(target)))  # many-to-one, and onto every class


def test_identity_none_and_a_space_that_borrows_a_name():
    assert convert(CITY, CITY)[:20].tolist() == [*range(19), 255]
    renamed = LabelSpace("mine", CITY.classes, CITY.colours)
    assert convert(renamed, CITY)[:20].tolist() == [*range(19), 255]
    assert convert(CAMVID, CITY) is None
    impostor = LabelSpace("cityscapes19", ("road",), ((0, 0, 0),))
    assert convert(impostor, CAMVID) is None


def test_cityscapes_raw_ids():
    raw = np.array([[7, 8, 11, 12, 13, 17, 19, 20, 21], [22, 23, 24, 25, 26, 27, 28, 31, 32]], dtype=np.uint8)
    assert CITYSCAPES_IDS.apply(raw, "x").ravel().tolist() == list(range(18))
    others = np.array([[0, 1, 6, 9, 10, 14, 15, 16, 18, 29, 30, 255, 33]], dtype=np.uint8)
    assert CITYSCAPES_IDS.apply(others, "x").tolist() == [[255] * 12 + [18]]


def test_an_id_outside_the_map_names_file_id_and_count():
    raw = np.zeros((4, 5), dtype=np.uint8)
    raw[1, :3], raw[2, 0] = 200, 240
    with pytest.raises(InputError, match=r"^town/a.png: id 200 on 3 pixels is outside the label map \(and 1 more\)"):
        RawMap.identity(3).apply(raw, "town/a.png")


def test_raw_map_of_16_bits():
    found = RawMap.of({1000: 0, 65535: 1}).apply(np.array([[1000, 65535, 255]], dtype=np.uint16), "x")
    assert found.tolist() == [[0, 1, 255]]
    assert found.dtype == np.uint8


def test_colours_and_a_foreign_colour():
    colours = ColourMap.of({(0, 0, 1): 0, (255, 255, 255): 1, (0, 1, 0): 255})
    rgb = np.array([[[255, 255, 255], [0, 0, 1], [0, 1, 0]]], dtype=np.uint8)
    assert colours.apply(rgb, "x").tolist() == [[1, 0, 255]]
    rgb[0, 1] = (9, 8, 7)
    with pytest.raises(InputError, match=r"^b.png: colour \(9, 8, 7\) on 1 pixel is outside"):
        colours.apply(rgb, "b.png")


def declare(folder, text):
    (folder / "classes.yaml").write_text(text)
    return folder / "classes.yaml"


def test_classes_yaml(tmp_path):
    text = """
    - {name: road, colour: [128, 64, 128], ids: [7, 6]}
    - {name: void, colour: [0, 0, 0], ids: [0, 1], ignore: true}
    - {name: sky, colour: [70, 130, 180], id: 300}
    - {name: tree}
    """
    found = read_classes(declare(tmp_path, text))
    assert found.space.classes == ("road", "sky", "tree")
    assert found.space.colours[:2] == ((128, 64, 128), (70, 130, 180))
    raw = np.array([[7, 6, 300, 2, 0, 1, 255]], dtype=np.uint16)
    assert found.ids.apply(raw, "x").tolist() == [[0, 0, 1, 2, 255, 255, 255]]
    rgb = np.array([[[0, 0, 0], [70, 130, 180]]], dtype=np.uint8)
    assert found.colours.apply(rgb, "x").tolist() == [[255, 1]]
    assert find_label_space(tmp_path) == find_label_space(str(tmp_path / "classes.yaml")) == found.space
    assert found.space.name == tmp_path.name


def test_classes_yaml_without_colours_shows_distinct_ones(tmp_path):
    found = read_classes(declare(tmp_path, "\n".join(f"- {{name: c{i}}}" for i in range(12))))
    assert found.colours is None
    assert len(set(found.space.colours)) == 12


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a list"),
        ("name: road", "must be a list"),
        ("- [road", "not YAML: "),
        ("- {colour: [1, 2, 3]}", r"entry 0 is .*; write it with a name, such as {name: road}"),
        ("- road", "entry 0 is 'road'; write it with a name"),
        ("- {name: road, colour: [true, 2, 3]}", r"colour \[True, 2, 3\] of class 'road'"),
        ("- {name: road, id: 1, ids: [2]}", "class 'road' has both id and ids"),
        ("- {name: void, ignore: 'no'}", "ignore 'no' of class 'void' is not true or false"),
        ("- {name: road, color: [1, 2, 3]}", "unknown key 'color'; did you mean 'colour'"),
        ("- {name: road, colour: [1, 2]}", r"colour \[1, 2\] of class 'road'"),
        ("- {name: road, id: 65536}", "id 65536 of class 'road'"),
        ("- {name: road, id: true}", "id True of class 'road'"),
        ("- {name: a, id: 4}\n- {name: b, id: 4}", "id 4 of class 'b' is already taken"),
        ("- {name: a, colour: [1, 1, 1]}\n- {name: b, colour: [1, 1, 1]}", "already taken"),
        ("- {name: a, ignore: true}", "has 0 classes"),
    ],
)
def test_bad_classes_yaml(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as error:
        read_classes(declare(tmp_path, text))
    assert "\n" not in str(error.value)
