"""NFD: 2 for independent noise, 0 for equal patterns, 4 for opposite ones; constant channels; the default taps."""

import pytest
import torch
from distilled import Given, draw, features

from hardy.distillation._matching import Matching
from hardy.distillation.nfd import NFD
from hardy.networks.building.create import create
from hardy.networks.building.wrapped import wrap


def same(channels: int) -> NFD:
    """The loss with an aligner that changes nothing."""
    loss = NFD(Given((channels, channels))).double()
    loss.aligners[0].project.weight.data = torch.eye(channels).double()[..., None, None]
    return loss


def test_independent_noise_is_two() -> None:
    found = same(64)(features((draw(8, 64, 64, 64), draw(8, 64, 64, 64, seed=1))))
    assert found.item() == pytest.approx(2, abs=0.003)  # 2 (1 - r); the mean r of 512 channels has a deviation of 7e-4


def test_a_value_by_hand_is_two_minus_twice_the_correlation() -> None:
    """(0, 0, 3, 3) and (0, 1, 0, 1): r = 0, so 2. (0, 1, 2, 3) and (0, 0, 1, 1): r = 2 / sqrt 5."""
    ramp, step = torch.tensor([0.0, 1, 2, 3]).double(), torch.tensor([0.0, 0, 1, 1]).double()
    other = torch.tensor([0.0, 1, 0, 1]).double()
    loss = same(1)

    def value(student: torch.Tensor, teacher: torch.Tensor) -> float:
        return loss(features((student.view(1, 1, 2, 2), teacher.view(1, 1, 2, 2)))).item()

    assert value(3 * step, other) == pytest.approx(2, rel=1e-5)
    assert value(ramp, step) == pytest.approx(2 - 4 / 5**0.5, rel=1e-5)
    assert value(ramp, 5 * ramp - 9) == pytest.approx(0, abs=1e-10)
    assert value(-ramp, ramp) == pytest.approx(4, rel=1e-5)


def test_it_is_the_papers_equation() -> None:
    loss = NFD(Given((3, 5))).double()
    student, teacher = draw(2, 3, 4, 6), 2 + 3 * draw(2, 5, 4, 6, seed=1)
    projected = loss.aligners[0].project(student)

    def normalised(x: torch.Tensor) -> torch.Tensor:
        return (x - x.mean((2, 3), keepdim=True)) / (x.std((2, 3), correction=0, keepdim=True) + 1e-6)

    wanted = (normalised(projected) - normalised(teacher)).square().mean()
    torch.testing.assert_close(loss(features((student, teacher))), wanted)


@pytest.mark.parametrize("constant", [0.0, 1000.1, -12345.67])
def test_constant_channels_do_not_blow_up(constant: float) -> None:
    """The mean of a constant is rounded, so that the difference to it is not 0."""
    loss = same(2).float()
    student = torch.full((1, 2, 13, 17), constant).requires_grad_()
    teacher = draw(1, 2, 13, 17).float()
    teacher[:, 0] = constant
    value = loss(features((student, teacher)))
    value.backward()
    assert value.item() == pytest.approx(0.5, rel=1e-4)  # of the channel that varies in the teacher: r = 0, half of 2
    assert student.grad is not None
    assert not student.grad.any()


def test_its_default_taps_are_the_deepest_stage_and_the_embedding() -> None:
    student, teacher = create("tiny", "camvid11", width=8), create("tiny", "camvid11", width=16)
    named = [(pair.student.name, pair.teacher.name) for pair in NFD(Matching(student, teacher)).pairs]
    assert named == [("context", "context"), ("embedding", "embedding")]


def test_a_network_without_a_named_embedding_compares_the_deepest_stage() -> None:
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 11, 1))
    student = wrap(layers, "camvid11", mean=(0.5,) * 3, std=(0.5,) * 3, features={"stage1": "1"})
    teacher = create("tiny", "camvid11", width=8)
    assert [pair.student.name for pair in NFD(Matching(student, teacher)).pairs] == ["stage1"]
