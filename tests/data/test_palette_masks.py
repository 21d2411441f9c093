"""A palette mask says its classes twice, by ids and by colours: the two must agree, or somebody says which counts."""

import numpy as np
import pytest
from dataset_files import RGB, only_item, refused, save
from PIL import Image

from hardy.data.datasets.folder import Folder
from hardy.errors import InputError

ROAD, SKY, VOID = (128, 64, 128), (70, 130, 180), (0, 0, 0)
IDS = np.array([[0, 1, 2]] * 2, dtype=np.uint8)


@pytest.fixture
def street(tmp_path):
    """``street([colour, ...], **options)``: a folder data set whose one mask has this palette and the ids 0, 1, 2."""
    (tmp_path / "classes.yaml").write_text(
        f"- {{name: road, colour: {[*ROAD]}}}\n- {{name: sky, colour: {[*SKY]}}}\n"
        f"- {{name: void, id: 2, ignore: true, colour: {[*VOID]}}}\n"
    )
    save(tmp_path / "images" / "a.jpg", RGB)
    (tmp_path / "masks").mkdir()

    def build(colours, **options):
        mask = Image.fromarray(IDS)
        mask.putpalette([part for colour in colours for part in colour])
        mask.save(tmp_path / "masks" / "a.png")
        dataset = Folder(tmp_path, **options)
        return lambda: [*map(int, dataset.read(only_item(dataset))[1][0])]

    return build


def test_ids_count_where_colours_agree_or_say_nothing(street):
    assert street([ROAD, SKY, VOID])() == [0, 1, 255]
    assert street([(1, 1, 1), (2, 2, 2), (3, 3, 3)])() == [0, 1, 255]
    assert street([(1, 1, 1), SKY, (3, 3, 3)])() == [0, 1, 255]


def test_unused_entries_say_nothing(street):
    assert street([ROAD, SKY, VOID, ROAD])() == [0, 1, 255]


def test_a_palette_in_another_order_is_refused(street):
    line = (
        r"masks/a.png: id 0 is class 'road', but its palette colour \(70, 130, 180\) is that of class 'sky'; "
        "choose one: data.datasets.folder.palette=colours or =ids"
    )
    refused(line, street([SKY, ROAD, VOID]))
    refused(r"id 1 is class 'sky', but .* is that of ignored", street([ROAD, VOID, SKY]))


def test_somebody_says_which_counts(street):
    assert street([SKY, ROAD, VOID], palette="colours")() == [1, 0, 255]
    assert street([SKY, ROAD, VOID], palette="ids")() == [0, 1, 255]
    refused(
        r"colour \(3, 3, 3\) on 2 pixels is outside the label map", street([SKY, ROAD, (3, 3, 3)], palette="colours")
    )
    with pytest.raises(InputError, match=r"Folder\.palette is 'both'; it is one of: agree, ids, colours"):
        street([SKY, ROAD, VOID], palette="both")
