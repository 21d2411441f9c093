"""``hardy evaluate`` and `hardy.evaluate`: networks of one label space on data of their own and of another's."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import hardy
from hardy.commands import evaluate as command
from hardy.data.label_spaces import SPACES, convert
from hardy.errors import InputError
from hardy.recipe import from_values
from hardy.records import read as records_of

CITY, CAMVID, IDD = SPACES["cityscapes19"], SPACES["camvid11"], SPACES["idd7"]


def mask(number, classes):
    """Blocks of class ids (24, 32), the same for the same number."""
    blocks = np.random.default_rng(number).integers(0, classes, (3, 4), dtype=np.uint8)
    return blocks.repeat(8, 0).repeat(8, 1)


def save(path, ids, labels, void=None):
    """An image in the colours of its classes; with ``void`` a corner of the mask is not labelled."""
    for file in (path[0], path[1]):
        file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(labels.colours, dtype=np.uint8)[ids]).save(path[0], quality=100, subsampling=0)
    if void is not None:
        ids = ids.copy()
        ids[:3, :3] = void
    Image.fromarray(ids).save(path[1])


@pytest.fixture
def root(tmp_path):
    """CamVid and IDD in their own layouts, three images each."""
    for number, name in enumerate(("0001TP_1", "0001TP_2", "0016E5_1")):
        place = tmp_path / "data" / "camvid" / "CamVid"
        save((place / "val" / f"{name}.png", place / "valannot" / f"{name}.png"), mask(number, 11), CAMVID, 11)
    for number in range(3):
        place = tmp_path / "data" / "idd"
        file = place / "leftImg8bit" / "val" / "7" / f"0{number}_image.jpg"
        save((file, place / "gtFine" / "val" / "7" / f"0{number}_label.png"), mask(number, 7), IDD, 255)
    return tmp_path / "data"


class ByColour(nn.Module):
    """The class whose colour is nearest, in the order of ``answers``: answers[i] is the id said for colour i."""

    def __init__(self, label_space, answers, classes):
        super().__init__()
        self.classes = classes
        self.register_buffer("colours", torch.tensor(label_space.colours).float().view(1, -1, 3, 1, 1) / 255)
        self.register_buffer("answers", torch.as_tensor(answers))

    def forward(self, images):
        nearest = (images[:, None] - self.colours).square().sum(2).argmin(1)
        return nn.functional.one_hot(self.answers[nearest], self.classes).movedim(3, 1).float()


def says(network_labels, data_labels, answers):
    """A network of ``network_labels`` that answers a pixel of the data's class i with ``answers[i]``."""
    module = ByColour(data_labels, answers, len(network_labels))
    return hardy.wrap(module, network_labels, mean=(0, 0, 0), std=(1, 1, 1))


def one_of(source, target):
    """For each class of ``target`` the first class of ``source`` that is mapped onto it."""
    onto = convert(source, target)[: len(source)].tolist()
    return [onto.index(number) for number in range(len(target))]


# -------------------------------------------------------------------------------------------------- in Python


def test_a_wrapped_module_on_data_of_its_own_classes(root):
    table = hardy.evaluate(says(CAMVID, CAMVID, range(11)), ["camvid"], root=root)
    assert [(row.domain, row.group, row.images) for row in table.rows] == [
        ("camvid/0001TP", "unseen", 2),
        ("camvid/0016E5", "unseen", 1),
    ]
    assert (table.unseen, table.worst, table.intra) == (1.0, 1.0, None)
    assert all(row.scores.pixel_accuracy == 1.0 for row in table.rows)


def test_a_network_of_cityscapes_is_measured_on_camvid_in_camvids_classes(root):
    answers = one_of(CITY, CAMVID)
    right = hardy.evaluate(says(CITY, CAMVID, answers), ["camvid/0001TP"], root=root)
    assert right.classes == CAMVID.classes
    assert right.unseen == 1.0

    # Sky called car, by hand: every pixel of sky is a miss of sky and falls to car.
    sky, car = CAMVID.index("sky"), CAMVID.index("car")
    answers[sky] = CITY.index("truck")
    wrong = hardy.evaluate(says(CITY, CAMVID, answers), ["camvid/0001TP"], root=root).rows[0].scores
    masks = np.stack([mask(0, 11), mask(1, 11)])
    masks[:, :3, :3] = 255
    pixels = {number: int((masks == number).sum()) for number in range(11)}
    assert pixels[sky] > 0
    assert wrong.iou[sky] == 0.0
    assert wrong.iou[car] == pytest.approx(pixels[car] / (pixels[car] + pixels[sky]), abs=1e-12)
    assert wrong.pixel_accuracy == pytest.approx(1 - pixels[sky] / sum(pixels.values()), abs=1e-12)


@pytest.mark.parametrize("space", [CAMVID, CITY], ids=lambda space: space.name)
def test_networks_of_streets_are_measured_on_idd_in_idds_classes(root, space):
    table = hardy.evaluate(says(space, IDD, one_of(space, IDD)), ["idd"], root=root)
    assert table.classes == IDD.classes
    assert table.unseen == 1.0


def test_a_network_of_few_classes_is_measured_on_many(root):
    """Seven classes on CamVid: the labels are mapped onto the network's space."""
    onto = convert(CAMVID, IDD)[:11].tolist()
    table = hardy.evaluate(says(IDD, CAMVID, onto), ["camvid"], root=root)
    assert table.classes == IDD.classes
    assert table.unseen == 1.0


def test_scores_are_at_the_masks_own_size(root):
    """Images are made smaller, logits come back at 24x32: accuracy is a number of the masks' own pixels."""
    network = says(CAMVID, CAMVID, range(11))
    table = hardy.evaluate(network, ["camvid/0016E5"], root=root, size=(10, 14))
    labelled = 24 * 32 - 9
    accuracy = table.rows[0].scores.pixel_accuracy
    assert accuracy * labelled == pytest.approx(round(accuracy * labelled), abs=1e-9)
    assert 0.7 < accuracy < 1.0


@pytest.mark.parametrize("options", [{"flip": True}, {"window": (16, 16)}, {"batch": 2}, {"splits": ["val"]}], ids=str)
def test_views_batches_and_splits(root, options):
    network = says(CAMVID, CAMVID, range(11)).train()
    assert hardy.evaluate(network, ["camvid"], root=root, **options).unseen == 1.0
    assert network.training


def test_what_cannot_be_measured_is_refused(root, tmp_path):
    network = says(CAMVID, CAMVID, range(11))
    for wrong, said in (
        ({"data": []}, "no data named"),
        ({"data": ["camvd"]}, "there is no dataset 'camvd'; did you mean 'camvid'?"),
        ({"data": ["camvid/0001TQ"]}, "did you mean '0001TP'?"),
        ({"data": ["camvid"], "root": tmp_path / "nowhere"}, "no CamVid here"),
        ({"data": ["camvid"], "splits": ["vall"]}, "has no split 'vall'; did you mean 'val'?"),
        ({"data": ["camvid"], "size": (0, 16)}, "data.size.0"),
        ({"data": ["camvid"], "device": "cuda:77"}, "there is no device 'cuda:77' here"),
        ({"data": ["camvid", "idd"]}, "the domains of one table must share their classes"),
    ):
        with pytest.raises(InputError, match=re.escape(said)):
            hardy.evaluate(network, **{"root": root, **wrong})


# ------------------------------------------------------------------------------------------------- the command


def unloaded(record):
    """``record`` without the load of the machine, which changes from call to call."""
    return replace(record, versions={name: value for name, value in record.versions.items() if name != "load"})


def test_the_command_prints_and_records(root, tmp_path, capsys):
    folder = tmp_path / "run"
    recipe = from_values(
        {
            "network": {"name": "tiny", "width": 8},
            "data": {"sources": ["streets/day"], "size": [24, 32], "root": str(tmp_path)},
            "run": {"folder": str(folder), "seed": 4},
        }
    )
    torch.manual_seed(0)
    network = hardy.create("tiny", "cityscapes19", width=8)
    hardy.save(network, folder)
    recipe.write(folder / "recipe.yaml", {})
    for _ in range(2):
        command.run(folder, ["camvid"], size=None, per_class=True, root=root)
    shown = capsys.readouterr().out
    assert "camvid/0001TP" in shown
    assert "worst unseen" in shown
    assert "pedestrian" in shown

    found = records_of(folder / "records.jsonl")
    first, second = found[: len(found) // 2], found[len(found) // 2 :]
    assert [unloaded(one) for one in first] == [unloaded(one) for one in second], "appended, the same both times"
    table = hardy.evaluate(network, ["camvid"], root=root, size=(24, 32))
    values = {(r.target, r.metric): r.value for r in first}
    for row in table.rows:
        assert values[row.domain, "miou"] == row.scores.miou
        for name, iou in zip(CAMVID.classes, row.scores.iou, strict=True):
            assert values[row.domain, f"iou/{name}"] == (None if math.isnan(iou) else iou)
    assert values["worst", "miou"] == table.worst
    for record in found:
        assert (record.recipe, record.stage, record.sources, record.seed) == (
            recipe.digest(),
            "evaluate",
            ("streets/day",),
            4,
        )
        assert record.notes["domains"] == ["camvid"]
        assert record.notes["size"] == [24, 32]
        assert "torch" in record.versions


def test_a_run_is_measured_on_data_read_as_in_its_recipe(root, tmp_path, monkeypatch):
    """The root and the options of data sets come from the recipe; an option that is given replaces only itself."""
    monkeypatch.setenv("HARDY_DATA", str(tmp_path / "elsewhere"))
    drawn = {"size": [24, 32], "train": 1, "val": 1, "test": 3}
    recipe = from_values(
        {
            "network": {"name": "tiny", "width": 8},
            "data": {"sources": ["streets/sim"], "root": str(root), "datasets": {"streets": drawn, "camvid": {}}},
        }
    )
    network = hardy.create("tiny", "cityscapes19", width=8)
    folder = hardy.save(network, tmp_path / "run")
    recipe.write(folder / "recipe.yaml", {})
    for given, options in ((None, drawn), ({"streets": {"test": 2}}, {**drawn, "test": 2})):
        command.run(folder, ["streets/night"], size=None, per_class=False, datasets=given)
        table = hardy.evaluate(network, ["streets/night"], datasets={"streets": options})
        record = next(one for one in reversed(records_of(folder / "records.jsonl")) if one.metric == "miou")
        assert record.value == table.rows[0].scores.miou
        assert record.notes.get("options") == (given and {"datasets": given})
    command.run(folder, ["camvid/0016E5"], size=None, per_class=False)
    assert records_of(folder / "records.jsonl")[-1].notes["domains"] == ["camvid/0016E5"]


def test_a_saved_network_without_a_recipe_is_measured(root, tmp_path, capsys):
    folder = hardy.save(hardy.create("tiny", "camvid11", width=8), tmp_path / "bare")
    command.run(folder, ["camvid/0016E5"], size=(24, 32), per_class=False, root=root)
    assert "camvid/0016E5" in capsys.readouterr().out
    record = records_of(folder / "records.jsonl")[0]
    assert (record.recipe, record.sources, record.seed) == ("", (), 0)
