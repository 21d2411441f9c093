"""FitNets: values by hand, the aligner, other sizes, and vectors."""

import pytest
import torch
from distilled import Given, draw, features
from torch.nn import functional as F

from hardy.distillation.fitnets import FitNets


def test_a_value_by_hand() -> None:
    """A = [[1, 2]] of (1, 3) is 7; the teacher says 4: (7 - 4)^2 = 9. The second pair adds (2 - 0)^2 / 2 places."""
    loss = FitNets(Given((2, 1), (1, 1))).double()
    loss.aligners[0].project.weight.data = torch.tensor([1.0, 2.0]).double().view(1, 2, 1, 1)
    loss.aligners[1].project.weight.data.fill_(1)
    first = torch.tensor([1.0, 3.0]).double().view(1, 2, 1, 1), torch.full((1, 1, 1, 1), 4.0).double()
    second = torch.tensor([2.0, 5.0]).double().view(1, 1, 1, 2), torch.tensor([0.0, 5.0]).double().view(1, 1, 1, 2)
    assert loss(features(first, second)).item() == pytest.approx(9 + 2, rel=1e-12)
    assert loss.weight == 10


@pytest.mark.parametrize(("inner", "outer"), [((4, 6), (8, 12)), ((8, 12), (4, 6)), ((5, 7), (5, 7))])
def test_the_students_map_gets_the_teachers_channels_and_size(inner, outer) -> None:
    loss = FitNets(Given((3, 5))).double()
    student, teacher = draw(2, 3, *inner), draw(2, 5, *outer, seed=1)
    projected = torch.einsum("oi,bihw->bohw", loss.aligners[0].project.weight[..., 0, 0], student)
    wanted = F.interpolate(projected, size=outer, mode="bilinear", align_corners=False)
    torch.testing.assert_close(loss(features((student, teacher))), (wanted - teacher).square().mean())
    assert loss.aligner(loss.pairs[0]) == "1x1 convolution 3 to 5"
    assert [name for name, _ in loss.named_parameters()] == ["aligners.0.project.weight"]  # no bias


def test_a_map_is_pooled_for_a_vector() -> None:
    loss = FitNets(Given((3, 5), stride=0)).double()
    student, teacher = draw(2, 3, 4, 6), draw(2, 5, seed=1)
    said = student.mean((2, 3)) @ loss.aligners[0].project.weight[..., 0, 0].T
    torch.testing.assert_close(loss(features((student, teacher))), (said - teacher).square().mean())


def test_a_student_that_says_the_same_is_perfect() -> None:
    loss = FitNets(Given((3, 6))).double()
    student = draw(2, 3, 4, 4)
    assert loss(features((student, loss.aligners[0].project(student).detach()))).item() == 0
