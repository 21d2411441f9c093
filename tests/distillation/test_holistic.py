"""Holistic: the penalty by hand, a critic that learns by itself and by nobody else, and what it is shown."""

import pytest
import torch
from torch import nn

from hardy.algorithms.distillation import Distillation
from hardy.distillation._critic import Critic, gradient_penalty
from hardy.distillation.base import PairedOutputs
from hardy.distillation.holistic import Holistic
from hardy.engine import optimiser
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.networks.building.teacher import Teacher
from hardy.recipe import Optim
from hardy.registry import LOSSES
from hardy.seed import seed_all
from hardy.types import Batch


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def paired(student: torch.Tensor, teacher: torch.Tensor, images: torch.Tensor | None = None) -> PairedOutputs:
    counted = torch.ones(len(student), *student.shape[-2:], dtype=torch.bool)
    images = torch.rand(len(student), 3, 32, 48) if images is None else images
    return PairedOutputs(images, student, teacher, counted)


def built(**options: object) -> Holistic:
    torch.manual_seed(0)
    return Holistic(create("tiny", "camvid11", width=8), 3, **{"size": 16, **options}).train()


def test_the_penalty_of_a_linear_critic_is_that_of_its_slope() -> None:
    """D(x) = w . x has the slope w everywhere, and |w| = 5 for w = (3, 4, 0, 0): (5 - 1)^2 = 16."""
    w = torch.tensor([3.0, 4.0, 0.0, 0.0]).view(1, 1, 2, 2)
    assert gradient_penalty(lambda x: (w * x).sum((1, 2, 3)), draw(5, 1, 2, 2), draw(5, 1, 2, 2)).item() == 16
    steep = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)  # slopes of length 1 and 3: (0 + 4) / 2
    found = gradient_penalty(lambda x: (steep * x).sum((1, 2, 3)), draw(2, 1, 1, 1), draw(2, 1, 1, 1))
    assert found.item() == 2


def test_the_penalty_is_taken_between_the_two_maps() -> None:
    """D(x) = |x|^2 / 2 has the slope x, so the penalty shows where it was taken; its own gradient reaches D."""
    real, fake, factor = draw(4, 2, 3, 3), draw(4, 2, 3, 3, seed=1), torch.ones((), requires_grad=True)
    torch.manual_seed(3)
    found = gradient_penalty(lambda x: factor * x.square().sum((1, 2, 3)) / 2, real, fake)
    torch.manual_seed(3)
    share = torch.rand(4, 1, 1, 1)
    length = (share * real + (1 - share) * fake).flatten(1).norm(dim=1)
    torch.testing.assert_close(found, (length - 1).square().mean())
    (slope,) = torch.autograd.grad(found, factor)
    torch.testing.assert_close(slope, (2 * (length - 1) * length).mean())


@pytest.mark.parametrize("size", [16, 33, 65])
def test_the_critic_judges_each_map_by_itself(size: int) -> None:
    torch.manual_seed(0)
    critic = Critic(3, size)
    maps = draw(3, 3, size, size)
    together = critic.train()(maps)
    assert together.shape == (3,)
    critic.eval()
    torch.testing.assert_close(critic(maps[:1]), critic(maps)[:1])


@pytest.mark.costly
@pytest.mark.slow
def test_four_convolutions_have_a_spectral_norm_of_one_and_attention_starts_at_nothing() -> None:
    torch.manual_seed(0)
    critic = Critic(3, 16).train()
    for _ in range(50):
        critic(draw(1, 3, 16, 16))
    convolutions = [module for module in critic.layers if isinstance(module, nn.Conv2d)]
    norms = [torch.linalg.matrix_norm(one.weight.flatten(1), 2).item() for one in convolutions]
    assert norms[:4] == pytest.approx([1] * 4, abs=0.02)
    attention = [module for module in critic.layers if "Attention" in type(module).__name__]
    x = draw(2, 256, 2, 2)
    assert len(attention) == 2
    assert torch.equal(attention[0](x), x)
    attention[0].gamma.data.fill_(1.0)
    weights = (attention[0].query(x).flatten(2).mT @ attention[0].key(x).flatten(2)).softmax(2)
    wanted = torch.stack([(weights[0, 0] * attention[0].value(x).flatten(2)[0, c]).sum() for c in range(256)])
    torch.testing.assert_close(attention[0](x)[0, :, 0, 0], x[0, :, 0, 0] + wanted)


def test_it_steps_the_critic_once_and_returns_its_judgement_of_the_student() -> None:
    loss, before = built(), built().critic.state_dict()
    student, teacher = draw(4, 3, 16, 16).requires_grad_(), 1 + draw(4, 3, 16, 16, seed=1)
    value = loss(paired(student, teacher))
    value.backward()
    assert student.grad is not None
    assert student.grad.any()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in loss.critic.parameters())
    assert any(not torch.equal(now, before[name]) for name, now in loss.critic.state_dict().items())
    torch.testing.assert_close(value, -loss.critic.eval()(student).mean())
    both = torch.cat([teacher, student.detach()])
    mean = both.mean((0, 2, 3))
    torch.testing.assert_close(loss.critic.norm.running_mean, 0.1 * mean)  # one update, of both, from 0
    kept = {name: now.clone() for name, now in loss.critic.state_dict().items()}
    loss.eval()(paired(student, teacher))
    assert all(torch.equal(now, kept[name]) for name, now in loss.critic.state_dict().items())


@pytest.mark.costly
def test_the_critic_learns_to_distinguish_the_two_and_the_student_to_pass() -> None:
    loss = built(critic_lr=0.05)
    student, teacher = draw(2, 3, 16, 16), 1 + draw(2, 3, 16, 16, seed=1)

    def gap() -> float:
        loss.critic.eval()
        return float((loss.critic(teacher) - loss.critic(student)).mean().detach())

    start = gap()
    for _ in range(12):
        loss(paired(student, teacher))
    assert gap() > start + 0.2
    moved = student.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss.eval()(paired(moved, teacher)), moved)
    assert (slope * (teacher - student)).sum() < 0  # toward the teacher's maps the loss falls


def test_a_critic_that_is_too_steep_makes_a_bounded_step() -> None:
    """SGD's first step is the rate times the gradient, of a norm of at most 1, and the decay of the weights."""
    loss = built(critic_lr=0.5)
    loss.critic.layers[-1].weight.data *= 1000
    before = [value.detach().clone() for value in loss.critic.parameters()]
    loss(paired(draw(2, 3, 16, 16), draw(2, 3, 16, 16, seed=1)))
    moves = [(new.detach() - old) / 0.5 + 1e-4 * old for new, old in zip(loss.critic.parameters(), before, strict=True)]
    assert torch.stack([move.norm() for move in moves]).norm().item() == pytest.approx(1, rel=1e-3)


def test_no_other_optimiser_steps_the_critic() -> None:
    seed_all(0, "algorithm")
    student, teacher = create("tiny", "camvid11", width=8), create("tiny", "camvid11", width=16)
    pixel_loss = LOSSES.build("cross_entropy", {"class_count": 11})
    algorithm = Distillation(student, pixel_loss, Teacher(teacher), losses={"holistic": {"size": 16}}).train()
    assert list(algorithm.optimisers()) == ["holistic/critic"]
    loss = algorithm.distilled.losses["holistic"]
    own = {id(parameter) for parameter in loss.parameters()}
    assert own
    assert not own & {id(parameter) for parameter in optimiser.trained(algorithm)}
    outer = optimiser.build(algorithm, Optim(name="sgd", lr=0.1, weight_decay=0.1, steps=1))
    labels = torch.zeros(2, 32, 48, dtype=torch.int64)
    terms = algorithm(Batch(torch.rand(2, 3, 32, 48), labels, torch.zeros(2, dtype=torch.int64)))
    torch.stack(list(terms.values())).sum().backward()
    before = {name: value.clone() for name, value in algorithm.state_dict().items()}
    outer.step()
    changed = {name for name, value in algorithm.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("network.") for name in changed)


def test_autocast_changes_nothing() -> None:
    student, teacher = draw(2, 3, 16, 16), draw(2, 3, 16, 16, seed=1)
    values, critics = [], []
    for enabled in (False, True):
        loss = built()
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            values.append(loss(paired(student, teacher)))
        critics.append(loss.critic.state_dict())
    assert torch.equal(*values)
    assert all(torch.equal(value, critics[1][name]) for name, value in critics[0].items())


def test_the_rate_of_the_critic_falls_where_asked() -> None:
    loss = built(critic_lr=0.01, decay_steps=100)
    loss.after_step(75)
    loss(paired(draw(2, 3, 16, 16), draw(2, 3, 16, 16, seed=1)))
    assert loss.optimiser.param_groups[0]["lr"] == pytest.approx(0.01 * 0.25**0.9)
    loss.after_step(100)
    kept = [value.clone() for value in loss.critic.parameters()]
    loss(paired(draw(2, 3, 16, 16), draw(2, 3, 16, 16, seed=1)))
    assert all(torch.equal(now, old) for now, old in zip(loss.critic.parameters(), kept, strict=True))


@pytest.mark.slow
def test_the_image_is_shown_where_asked() -> None:
    student, teacher = draw(2, 3, 16, 16), draw(2, 3, 16, 16, seed=1)
    for shown in (False, True):
        loss = built(condition_on_image=shown)
        assert loss.critic.norm.num_features == (6 if shown else 3)
        loss(paired(student, teacher, torch.rand(2, 3, 32, 48)))
        loss.eval()
        dark, light = (loss(paired(student, teacher, torch.full((2, 3, 32, 48), grey))) for grey in (0.0, 1.0))
        assert (dark.item() == light.item()) is not shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 15}, r"Holistic.size: 15 is out of range"),
        ({"penalty": -1.0}, r"Holistic.penalty: -1.0 is out of range"),
        ({"critic_lr": 0.0}, r"Holistic.critic_lr: 0.0 is out of range"),
        ({"decay_steps": -1}, r"Holistic.decay_steps: -1 is out of range"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        built(**options)
