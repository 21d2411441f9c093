"""Counts per domain of anything that maps images to logits, and the table read from them."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import hardy
from hardy.data.base import Dataset, Domain
from hardy.data.label_spaces import SPACES, LabelSpace, convert
from hardy.engine import protocol
from hardy.engine.evaluate import ScoreTable, build_table, count, judged
from hardy.engine.protocol import Settings
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.recipe import Data, Evaluate, RunSection
from hardy.types import Batch, Outputs


def batch(images, labels):
    labels = torch.as_tensor(labels)
    return Batch(images, labels, torch.zeros(len(images), dtype=torch.int64))


def says(ids, classes):
    """A predictor that answers with these class ids (h, w), whatever the images."""
    logits = F.one_hot(torch.as_tensor(ids), classes).permute(2, 0, 1).float()
    return lambda images: logits.expand(len(images), -1, -1, -1)


# -------------------------------------------------------------------------------------------- counts by hand


def test_counts_by_hand_over_batches():
    predictor = says([[0, 1], [2, 2]], 3)
    batches = [
        batch(torch.rand(2, 3, 2, 2), [[[0, 0], [2, 255]], [[1, 1], [1, 1]]]),
        batch(torch.rand(1, 3, 2, 2), [[[0, 1], [2, 2]]]),
    ]
    counts, images = count(predictor, batches, 3)
    assert images == 3
    assert counts.dtype == torch.int64
    assert counts.tolist() == [[2, 1, 0, 0], [1, 2, 2, 0], [0, 0, 3, 0], [0, 0, 0, 0]]
    found = judged(counts)
    assert found.iou == (2 / 4, 2 / 6, 3 / 5)
    assert found.miou == pytest.approx((1 / 2 + 1 / 3 + 3 / 5) / 3, abs=1e-15)
    assert found.pixel_accuracy == 7 / 11


def test_labels_of_another_size_are_judged_at_their_own():
    """Logits are resized to the labels, never labels to the logits."""
    logits = torch.tensor([[4.0, 0.0], [0.0, 4.0]]).view(1, 2, 1, 2)  # left is class 0, right class 1
    labels = torch.tensor([[[0] * 5 + [1] * 3]])
    counts, _ = count(lambda images: logits, [batch(torch.rand(1, 3, 1, 2), labels)], 2)
    assert counts[:2, :2].tolist() == [[4, 1], [0, 3]]
    small, _ = count(lambda images: logits.repeat_interleave(4, -1), [batch(torch.rand(1, 3, 1, 8), [[[0, 1]]])], 2)
    assert small[:2, :2].tolist() == [[1, 0], [0, 1]]


def test_image_level_classes_are_counted_per_image():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0], [0.0, 3.0, 2.0]])
    counts, images = count(lambda given: logits, [batch(torch.rand(3, 3, 4, 4), [0, 2, 2])], 3)
    assert images == 3
    assert counts[:3, :3].tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 1]]


def test_predictions_are_mapped_and_those_without_counterpart_are_misses():
    onto = np.full(256, 255, dtype=np.uint8)
    onto[[0, 1, 2]] = [1, 1, 0]  # class 3 has no counterpart
    labels = [[[1, 1, 0, 0, 1, 255]]]
    counts, _ = count(says([[0, 1, 2, 3, 3, 3]], 4), [batch(torch.rand(1, 3, 1, 6), labels)], 2, onto=onto)
    assert counts.tolist() == [[1, 0, 1], [0, 2, 1], [0, 0, 0]]
    found = judged(counts)
    assert found.iou == (1 / 2, 2 / 3)
    assert found.miou == pytest.approx(7 / 12, abs=1e-15)
    assert found.pixel_accuracy == 3 / 5


def test_cityscapes_predictions_are_judged_on_camvid_labels():
    city, camvid = SPACES["cityscapes19"], SPACES["camvid11"]
    predicted = ["road", "terrain", "vegetation", "truck", "rider", "wall", "sky"]
    truth = ["road", "tree", "tree", "car", "pedestrian", "fence", "sky"]
    counts, _ = count(
        says([[city.index(name) for name in predicted]], 19),
        [batch(torch.rand(1, 3, 1, 7), [[[camvid.index(name) for name in truth]]])],
        len(camvid),
        onto=convert(city, camvid),
    )
    found = dict(zip(camvid.classes, judged(counts).iou, strict=True))
    assert {name for name, iou in found.items() if iou == 1.0} == {"road", "tree", "car", "fence", "sky"}
    assert found["pedestrian"] == found["bicyclist"] == 0.0
    assert math.isnan(found["building"])


def test_a_network_is_put_in_evaluation_mode_and_back():
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)).train()
    before = net[1].running_mean.clone()
    batches = [batch(torch.rand(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64))]
    counts, _ = count(net, batches, 2)
    assert net.training
    assert torch.equal(net[1].running_mean, before)
    assert torch.equal(count(net.eval(), batches, 2)[0], counts)
    assert not net.training


@pytest.mark.parametrize("seed", range(5))
def test_random_maps_agree_with_an_independent_reference(seed):
    """Reference: for every image its own logits, resized by numpy's nearest rule, and sets of pixels by hand."""
    draw = np.random.default_rng(seed)
    classes, batches, pairs = 5, [], []
    answers = []
    for size in (1, 3, 2):
        logits = draw.normal(size=(size, classes, 6, 8))
        labels = draw.integers(0, classes, (size, 6, 8))
        labels[draw.random(labels.shape) < 0.2] = 255
        answers.append(torch.from_numpy(logits))
        batches.append(batch(torch.rand(size, 3, 6, 8), labels))
        pairs.append((logits.argmax(1), labels))
    waiting = iter(answers)
    counts, images = count(lambda given: next(waiting), batches, classes)
    guess = np.concatenate([pair[0].ravel() for pair in pairs])
    truth = np.concatenate([pair[1].ravel() for pair in pairs])
    ious = []
    for label in range(classes):
        both = np.sum((guess == label) & (truth == label))
        either = np.sum(((guess == label) | (truth == label)) & (truth != 255))
        ious.append(both / either)
    found = judged(counts)
    assert images == 6
    np.testing.assert_allclose(found.iou, ious, rtol=1e-12)
    assert found.miou == pytest.approx(np.mean(ious), rel=1e-12)
    assert found.pixel_accuracy == pytest.approx(np.mean((guess == truth)[truth != 255]), rel=1e-12)


# ------------------------------------------------------------------------------------------------- the table


def counts_of(hits, misses):
    """Two classes with one IoU each: hits / (hits + misses)."""
    return torch.tensor([[hits, misses, 0], [0, hits, 0], [0, 0, 0]])


def test_the_table_by_hand():
    rows = [
        ("a/night", "unseen", counts_of(1, 1), 4),
        ("a/day", "source-val", counts_of(3, 1), 2),
        ("a/fog", "unseen", counts_of(2, 2), 5),
        ("a/snow", "unseen", counts_of(1, 3), 6),
    ]
    made = build_table(rows, ("x", "y"))
    assert [(row.domain, row.images) for row in made.rows] == [
        ("a/day", 2),
        ("a/night", 4),
        ("a/fog", 5),
        ("a/snow", 6),
    ]
    assert made.intra == pytest.approx(3 / 4, abs=1e-15)
    assert made.unseen == pytest.approx((1 / 2 + 1 / 2 + (1 / 4 + 1 / 4) / 2) / 3, abs=1e-15)
    assert made.worst == pytest.approx(1 / 4, abs=1e-15)
    assert made.gap == pytest.approx(made.intra - made.unseen, abs=1e-15)
    assert list(made.summary()) == ["intra", "unseen", "worst", "gap"]


def test_what_was_not_measured_is_none():
    only = build_table([("a/day", "source-val", counts_of(1, 1), 1)], ("x", "y"))
    assert (only.unseen, only.worst, only.gap) == (None, None, None)
    assert only.summary() == {"intra": only.intra}
    assert build_table([("a/fog", "unseen", counts_of(1, 1), 1)], ("x", "y")).intra is None
    assert ScoreTable((), ()).summary() == {}


def test_image_level_domains_are_judged_by_accuracy():
    counts = torch.tensor([[3, 1, 0], [0, 0, 0], [0, 0, 0]])
    made = build_table([("pacs/photo", "unseen", counts, 4)], ("x", "y"), image_level=True)
    assert made.unseen == made.worst == 3 / 4


def test_home_pictures_are_pooled_and_unseen_domains_weigh_alike():
    right, wrong = torch.tensor([[1, 0, 0], [0, 0, 0], [0, 0, 0]]), torch.tensor([[0, 3, 0], [0, 0, 0], [0, 0, 0]])
    rows = [
        (f"pacs/{i}", group, counts, int(counts.sum()))
        for i, (group, counts) in enumerate(
            [
                ("source-val", right),
                ("source-val", wrong),
                ("unseen", right),
                ("unseen", wrong),
            ]
        )
    ]
    made = build_table(rows, ("x", "y"), image_level=True)
    assert (made.intra, made.unseen) == (1 / 4, 1 / 2)


# ------------------------------------------------------------------------------------- networks, data and their spaces


class Painted(Dataset):
    """Three images whose red channel says the class of every pixel, five values apart, at 20x24 pixels."""

    def __init__(self, label_space):
        self.label_space = label_space

    def index(self):
        return {}

    def read(self, item):
        label = np.random.default_rng(item).integers(0, len(self.label_space), (20, 24), dtype=np.uint8)
        label[:2] = 255
        image = np.zeros((20, 24, 3), dtype=np.uint8)
        image[..., 0] = np.where(label == 255, 0, label) * 5
        return image, label


class Seeing(Network):
    """Reads the class from the red channel; in training mode it is one class wrong everywhere."""

    least_size = 1

    def outputs(self, images):
        ids = (images[:, 0] * 255 / 5).round().long() + int(self.training)
        return Outputs(F.one_hot(ids % len(self.label_space), len(self.label_space)).movedim(3, 1).float())


def measured(network, *labels, **options):
    parts = [
        ("unseen", (Domain(f"painted/{k}", Painted(each), {}), range(3 * k, 3 * k + 3)))
        for k, each in enumerate(labels)
    ]
    choice = Evaluate(**{"flip": False} | options)
    return protocol.measure(
        network, parts, Settings(Data(sources=("painted",)), evaluate=choice, run=RunSection(device="cpu", workers=0))
    )


@pytest.mark.parametrize(
    "options", [{}, {"batch": 2}, {"flip": True}, {"window": (8, 8)}, {"flip": True, "window": (8, 12)}], ids=str
)
def test_a_perfect_network_is_perfect_through_every_view(options):
    """A created network is in training mode: it is measured in evaluation mode, its views included."""
    network = Seeing(SPACES["camvid11"]).train()
    made = measured(network, SPACES["camvid11"], SPACES["camvid11"], **options)
    assert [row.scores.miou for row in made.rows] == [1.0, 1.0]
    assert [row.images for row in made.rows] == [3, 3]
    assert made.classes == SPACES["camvid11"].classes
    assert network.training


def test_labels_are_mapped_onto_the_networks_space():
    """IDD's seven classes have labels of cityscapes19 mapped onto them."""
    city, idd = SPACES["cityscapes19"], SPACES["idd7"]
    table_ = convert(city, idd)

    class Mapping(Seeing):
        def outputs(self, images):
            ids = (images[:, 0] * 255 / 5).round().long()
            return Outputs(F.one_hot(torch.from_numpy(table_).long()[ids], 7).movedim(3, 1).float())

    made = measured(Mapping(idd), city)
    assert made.classes == idd.classes
    assert made.unseen == 1.0


@pytest.mark.parametrize(
    ("trained", "data"), [("cityscapes19", "camvid11"), ("cityscapes19", "idd7"), ("camvid11", "idd7")]
)
def test_predictions_are_mapped_where_only_that_way_is_declared(trained, data):
    """The first of the classes that fall together stands for all; so every prediction is right."""
    source, target = SPACES[trained], SPACES[data]
    back = {int(t): i for i, t in reversed(list(enumerate(convert(source, target)[: len(source)])))}

    class Guessing(Seeing):
        def outputs(self, images):
            ids = (images[:, 0] * 255 / 5).round().long().apply_(lambda i: back[i])
            return Outputs(F.one_hot(ids, len(source)).movedim(3, 1).float())

    made = measured(Guessing(source), target)
    assert made.classes == target.classes
    assert made.unseen == 1.0


def test_spaces_without_a_map_are_refused(three):
    with pytest.raises(InputError, match=r"painted/0: no map is declared between its labels \(camvid11\) and"):
        measured(Seeing(three), SPACES["camvid11"])


def test_one_table_has_one_set_of_classes():
    with pytest.raises(InputError, match="must share their classes; measure them in two runs"):
        measured(Seeing(SPACES["cityscapes19"]), SPACES["camvid11"], SPACES["idd7"])


def test_a_wrapped_module_and_a_space_of_ones_own():
    own = LabelSpace("mine", ("dark", "light"), ((0, 0, 0), (9, 9, 9)))
    head = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        head.weight.zero_()
        head.weight[1, 0], head.bias[0], head.bias[1] = 255 / 5, 0.5, 0.0
    network = hardy.wrap(head, own, mean=(0, 0, 0), std=(1, 1, 1))
    assert measured(network, own).unseen == 1.0
