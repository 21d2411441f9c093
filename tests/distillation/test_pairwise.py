"""Pair-wise similarity: the paper's sum in float64, the gradient of the cosine, and what a node is."""

import pytest
import torch
from feature_pairs import Given, draw, given, turned
from torch.nn import functional as F

from hardy.distillation._matching import Matching
from hardy.distillation.pairwise import Pairwise
from hardy.errors import InputError
from hardy.networks.building.create import create


def by_hand(student: torch.Tensor, teacher: torch.Tensor) -> float:
    """The sum over all pairs of nodes of maps (B, C, h, w), written out."""
    total = 0.0
    for own, taught in zip(student.flatten(2), teacher.flatten(2), strict=True):
        count = own.shape[1]
        for i in range(count):
            for j in range(count):
                cosines = (F.cosine_similarity(x[:, i], x[:, j], dim=0) for x in (own, taught))
                total += float(next(cosines) - next(cosines)) ** 2 / count**2
    return total / len(student)


@pytest.mark.parametrize("channels", [(2, 3), (40, 7)])  # more nodes than channels, and fewer
def test_it_is_the_papers_sum_over_squares_of_two_cells(channels: tuple[int, int]) -> None:
    student, teacher = draw(2, channels[0], 5, 6), draw(2, channels[1], 5, 6, seed=1)
    found = Pairwise(Given(*channels))(given(student, teacher))
    nodes = [F.avg_pool2d(x, 2, ceil_mode=True) for x in (student, teacher)]
    assert nodes[0].shape[-2:] == (3, 3)
    assert found.item() == pytest.approx(by_hand(*nodes), rel=1e-9)
    most = [F.max_pool2d(x, 3, ceil_mode=True) for x in (student, teacher)]
    found = Pairwise(Given(*channels), size=3, pooling="max")(given(student, teacher))
    assert found.item() == pytest.approx(by_hand(*most), rel=1e-9)


def test_a_value_by_hand() -> None:
    """Two nodes at a right angle for the student, alike for the teacher: two of four cosines differ by 1."""
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 2, 1, 2)
    teacher = torch.tensor([[3.0, 5.0]]).view(1, 1, 1, 2)
    assert Pairwise(Given(2, 1), size=1)(given(student, teacher)).item() == pytest.approx(0.5)


def test_only_cosines_matter() -> None:
    teacher = draw(2, 6, 4, 4)
    assert Pairwise(Given(6, 6), size=1)(given(turned(teacher), teacher)).item() == pytest.approx(0, abs=1e-12)
    assert Pairwise(Given(6, 6))(given(teacher, teacher)).item() == 0


def test_the_gradient_is_that_of_the_cosine() -> None:
    student, teacher = draw(1, 3, 3, 4).requires_grad_(), draw(1, 5, 3, 4, seed=1)
    loss = Pairwise(Given(3, 5), size=1)
    assert torch.autograd.gradcheck(lambda x: loss(given(x, teacher)), student)
    (slope,) = torch.autograd.grad(loss(given(student, teacher)), student)
    assert slope.abs().max() > 1e-3
    assert (slope * student).sum(1).abs().max() < 1e-12  # a longer vector has the same cosines


@pytest.mark.parametrize(
    ("options", "shape", "nodes"),
    [
        ({}, (64, 64), (32, 32)),
        ({"most_nodes": 100}, (64, 64), (10, 10)),
        ({"node": "fraction", "size": 0.5}, (64, 64), (2, 2)),
        ({"node": "fraction", "size": 0.5}, (65, 65), (2, 2)),
        ({"node": "fraction", "size": 0.333333333333}, (9, 2), (3, 2)),
        ({"node": "fraction", "size": 0.001}, (64, 128), (64, 64)),
        ({"node": "fraction", "size": 1.0}, (5, 5), (1, 1)),
    ],
)
def test_nodes_are_cells_or_fractions_and_never_too_many(options: dict, shape: tuple, nodes: tuple) -> None:
    assert Pairwise(Given(2, 2), **options)._nodes(draw(1, 2, *shape)).shape[-2:] == nodes


def test_the_teachers_map_is_resized_to_the_students() -> None:
    student, teacher = draw(2, 3, 4, 4), draw(2, 3, 8, 8, seed=1)
    smaller = F.interpolate(teacher, size=(4, 4), mode="bilinear")
    loss = Pairwise(Given(3, 3))
    torch.testing.assert_close(loss(given(student, teacher)), loss(given(student, smaller)))


@pytest.mark.slow
def test_it_reads_the_embedding_or_the_deepest_stage_of_a_classifier() -> None:
    scenes = Matching(create("tiny", "camvid11", width=8), create("tiny", "camvid11", width=16))
    assert [pair.student.name for pair in Pairwise(scenes).pairs] == ["embedding"]
    classifiers = [create("classifier", "pacs7", encoder="test_resnet") for _ in range(2)]
    pair = Pairwise(Matching(*classifiers)).pairs[0]
    assert pair.student.stride == 32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, r"Pairwise.size: 0 is not a whole number of cells"),
        ({"size": 1.5}, r"Pairwise.size: 1.5 is not a whole number of cells"),
        ({"node": "fraction"}, r"Pairwise.size: 2.0 is not a fraction"),
        ({"node": "fraction", "size": float("nan")}, r"Pairwise.size: nan is not a fraction"),
        ({"most_nodes": 0}, r"Pairwise.most_nodes: 0 is out of range"),
    ],
)
def test_sizes_that_cannot_be_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pairwise(Given(2, 2), **options)
