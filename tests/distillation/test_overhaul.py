"""Overhaul: its margins against drawn numbers, the authors' sum, batch statistics, warm-up, and unlike networks."""

import math

import pytest
import torch
from distilled import draw
from torch import Tensor, nn

from hardy.distillation._matching import Matching, values_of
from hardy.distillation.base import PairedOutputs
from hardy.distillation.overhaul import Overhaul, margins
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.networks.building.teacher import Teacher
from hardy.seed import seeded


def norm(scale: float, shift: float) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(1)
    layer.weight.data.fill_(scale)
    layer.bias.data.fill_(shift)
    return layer


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.5, 0.3), (-2.0, 1.0), (1.0, -4.0), (0.7, 1.9)])
def test_the_margin_is_the_mean_of_negative_values(scale: float, shift: float) -> None:
    drawn = shift + abs(scale) * draw(4_000_000, seed=5)
    below = drawn[drawn < 0]
    deviation = (below.std() / len(below) ** 0.5).item()
    assert margins(norm(scale, shift)).item() == pytest.approx(below.mean().item(), abs=5 * deviation)


def test_margins_by_hand() -> None:
    assert margins(norm(1.0, 0.0)).item() == pytest.approx(-math.sqrt(2 / math.pi), rel=1e-6)
    assert margins(norm(0.5, 0.3)).item() == pytest.approx(-0.308, abs=5e-4)
    assert margins(norm(1.0, 3.2)).item() == -3  # fewer than one value in a thousand is negative
    assert margins(norm(1.0, 3.0)).item() == pytest.approx(-0.2831, abs=1e-4)


@pytest.mark.parametrize(("shift", "wanted"), [(-0.4, -0.4), (0.4, 0.0), (0.0, 0.0)])
def test_a_channel_without_scale_is_constant(shift: float, wanted: float) -> None:
    assert margins(norm(0.0, shift)).item() == pytest.approx(wanted, rel=1e-7, abs=1e-10)


def tiny(width: int, seed: int) -> Network:
    with seeded(seed, "network"):
        network = create("tiny", "camvid11", width=width)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
    return network


def seen(matching: Matching, images: Tensor) -> PairedOutputs:
    assert matching.teacher is not None
    with matching.recording() as recorded:
        said = matching.student.outputs(images)
        with torch.no_grad():
            taught = matching.teacher.outputs(images)
    every = torch.ones(len(images), 1, 1, dtype=torch.bool)
    return PairedOutputs(
        images, said.logits, taught.logits, every, None, values_of(said, recorded[0]), values_of(taught, recorded[1])
    )


def batch(count: int = 2, size: tuple[int, int] = (64, 96)) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(2))


def by_hand(loss: Overhaul, given: PairedOutputs, features: dict[str, Tensor]) -> float:
    """The sum of the authors' code, element by element in float64, of images of 64 x 96 pixels."""
    total = 0.0
    for place, pair in enumerate(loss.pairs):
        said, layer = given.student_features[pair.student.name], loss.aligners[place]
        x = torch.einsum("oi,bihw->bohw", layer.project.weight[..., 0, 0].double(), said.double())
        x = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
        teacher = features[pair.teacher.name].double()
        bn = loss.matching.teacher.get_submodule(pair.teacher.name)
        for channel in range(teacher.shape[1]):
            scale, shift = bn.weight[channel].abs().item(), bn.bias[channel].item()
            below = 0.5 * math.erfc(shift / scale / math.sqrt(2))
            density = math.exp(-((shift / scale) ** 2) / 2) / math.sqrt(2 * math.pi)
            margin = shift - scale * density / below if below > 0.001 else -3 * scale
            target = teacher[:, channel].clamp_min(margin)
            wrong = (x[:, channel] > target) | (target > 0)
            total += ((x[:, channel] - target).square() * wrong).sum().item() / 2 ** (len(loss.pairs) - 1 - place)
    return 1e-5 * total / len(given.images) * 512 * 512 / (64 * 96)


@pytest.mark.slow
def test_it_is_the_sum_of_the_authors_code() -> None:
    matching = Matching(tiny(8, 0), tiny(16, 1).eval())
    loss = Overhaul(matching)
    given = seen(matching, batch())
    assert [pair.teacher.name for pair in loss.pairs] == ["detail.2.depthwise.1", "context.2.1.1"]
    assert loss(given).item() == pytest.approx(by_hand(loss, given, dict(given.teacher_features)), rel=1e-5)
    half = Overhaul(matching, divisors=[4.0, 2.0])
    half.load_state_dict(loss.state_dict())
    assert half(given).item() == pytest.approx(loss(given).item() / 2, rel=1e-6)


@pytest.mark.costly
@pytest.mark.slow
def test_batch_statistics_leave_the_teacher_as_it_was() -> None:
    matching = Matching(tiny(8, 0), tiny(16, 1).eval())
    teacher = matching.teacher
    assert teacher is not None
    loss = Overhaul(matching, teacher_bn="batch")
    given = seen(matching, batch())
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    found = loss(given)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not any(module.training for module in teacher.modules())
    with matching.recording() as (_, recorded), torch.no_grad():
        teacher.train().outputs(given.images)
    assert found.item() == pytest.approx(by_hand(loss, given, recorded), rel=1e-5)
    running = Overhaul(matching)
    running.load_state_dict(loss.state_dict())
    assert running(given).item() != pytest.approx(found.item(), rel=1e-2)


def test_batch_statistics_come_from_the_images_that_the_teacher_sees() -> None:
    teacher = Teacher(tiny(16, 1), size=(16, 24))
    loss = Overhaul(Matching(tiny(8, 0), teacher.network), teacher, teacher_bn="batch")
    sides = []
    teacher.network.register_forward_pre_hook(lambda _, given: sides.append(tuple(given[0].shape[-2:])))
    outputs = teacher.network.outputs
    teacher.network.outputs = lambda images: sides.append(tuple(images.shape[-2:])) or outputs(images)  # type: ignore
    found = loss._with_batch_statistics(torch.rand(2, 3, 32, 48))
    assert set(sides) == {(16, 24)}
    whole = Overhaul(Matching(tiny(8, 0), tiny(16, 1)), teacher_bn="batch")._with_batch_statistics(
        torch.rand(2, 3, 32, 48)
    )
    assert {name: value.shape for name, value in found.items()} == {name: value.shape for name, value in whole.items()}


@pytest.mark.slow
def test_in_the_warm_up_only_the_regressors_learn() -> None:
    matching = Matching(tiny(8, 0), tiny(16, 1).eval())
    loss = Overhaul(matching, warm_up=2)
    learnt = []
    for step in range(1, 4):
        matching.student.zero_grad()
        loss.zero_grad()
        loss(seen(matching, batch())).backward()
        assert all(value.grad is not None and value.grad.any() for value in loss.parameters())
        learnt.append(any(value.grad is not None and value.grad.any() for value in matching.student.parameters()))
        loss.after_step(step)
    assert learnt == [False, False, True]
    assert loss.state_dict()["steps"] == 3


@pytest.mark.slow
def test_the_value_does_not_grow_with_the_image() -> None:
    matching = Matching(tiny(8, 0), tiny(16, 1).eval())
    loss = Overhaul(matching)
    given = seen(matching, batch())
    said, taught = (
        {name: value.repeat(1, 1, 2, 3) for name, value in values.items() if value.ndim == 4}
        for values in (given.student_features, given.teacher_features)
    )
    more = PairedOutputs(
        given.images.repeat(1, 1, 2, 3), given.student, given.teacher, given.counted, None, said, taught
    )
    assert loss(more).item() == pytest.approx(loss(given).item(), rel=1e-5)


@pytest.mark.costly
def test_unlike_networks_weigh_less_and_the_table_says_so() -> None:
    with seeded(0, "network"):
        residual = create("encoder_decoder", "camvid11", encoder="resnet10t")
    matching = Matching(tiny(8, 0), residual.eval())
    loss, full = Overhaul(matching), Overhaul(matching, unlike=1.0)
    full.load_state_dict(loss.state_dict())
    given = seen(matching, batch())
    assert loss(given).item() == pytest.approx(full(given).item() / 100, rel=1e-6)
    assert loss.aligner(loss.pairs[-1]).endswith("and batch norm; unlike networks, times 0.01")
    alike = Overhaul(Matching(tiny(8, 0), tiny(16, 1)))
    assert alike.aligner(alike.pairs[0]) == "1x1 convolution 16 to 32 and batch norm"


@pytest.mark.slow
def test_layers_may_be_named() -> None:
    matching = Matching(tiny(8, 0), tiny(16, 1).eval())
    loss = Overhaul(matching, taps=[["context.2.0", "detail.0.1"], "deepest"])
    assert [(pair.student.name, pair.teacher.name) for pair in loss.pairs] == [
        ("context.2.0", "detail.0.1"),
        ("context.2.1.1", "context.2.1.1"),
    ]
    assert loss(seen(matching, batch())).isfinite()


class Plain(nn.Module):
    """Without a batch norm; its features are at the places ``stage1`` and ``stage2``."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.second = nn.Conv2d(8, 8, 3, 2, 1)
        self.head = nn.Conv2d(8, 11, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x)))


def plain() -> Network:
    from hardy.networks.building.wrapped import wrap

    places = {"stage1": "first", "stage2": "second"}
    return wrap(Plain(), "camvid11", mean=(0.5,) * 3, std=(0.5,) * 3, features=places)


@pytest.mark.costly
def test_what_cannot_be_tapped_is_one_line() -> None:
    student, teacher = tiny(8, 0), tiny(16, 1)
    with pytest.raises(InputError, match=r"the teacher, Wrapped, has no layer before an activation after a batch norm"):
        Overhaul(Matching(student, plain()))
    kept = Overhaul(Matching(plain(), teacher))  # its second stage has no activation and is left out
    assert [pair.student.name for pair in kept.pairs] == ["module.first.0"]
    with pytest.raises(InputError, match=r"the student, Wrapped, has no layer before an activation in 'stage2'; name"):
        Overhaul(Matching(plain(), teacher), taps=["stage2"])
    with pytest.raises(InputError, match=r"the teacher's 'detail.0.0' is not the output of a batch norm"):
        Overhaul(Matching(student, teacher), taps=[["detail.0.1", "detail.0.0"]])
    with pytest.raises(InputError, match=r"Overhaul.divisors: \[1.0\] is not one number above 0 for each of 2 taps"):
        Overhaul(Matching(student, teacher), divisors=[1.0])
    with pytest.raises(InputError, match=r"Overhaul.warm_up: -1 is out of range"):
        Overhaul(Matching(student, teacher), warm_up=-1)


@pytest.mark.slow
def test_a_single_cell_has_no_statistics() -> None:
    matching = Matching(tiny(8, 0).eval(), tiny(16, 1).eval())
    loss = Overhaul(matching, taps=["deepest"])
    given = seen(matching, batch(1, (16, 16)))
    cell = {name: value[:, :, :1, :1] for name, value in given.student_features.items()}
    one = PairedOutputs(given.images, given.student, given.teacher, given.counted, None, cell, given.teacher_features)
    with pytest.raises(InputError, match=r"the batch norm after 'context.2.1.1' gets one image with a single cell"):
        loss(one)
