"""What holds for every loss."""

import pytest
import torch

from hardy.errors import InputError
from hardy.registry import LOSSES
from hardy.types import IGNORE

K = 5


@pytest.fixture(params=LOSSES.names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def draw(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(shape[0], K, *shape[1:], generator=generator, dtype=torch.float64) * 3
    return logits.requires_grad_(), torch.randint(0, K, shape, generator=generator)


@pytest.mark.parametrize("shape", [(2, 6, 7), (8,)])
def test_is_a_finite_scalar_with_a_true_gradient(name: str, shape: tuple[int, ...]) -> None:
    logits, labels = draw(*shape)
    labels[0] = IGNORE
    loss = LOSSES.build(name, {"class_count": K})
    assert loss(logits, labels).shape == ()
    assert loss(logits, labels) > 0
    assert torch.autograd.gradcheck(lambda z: loss(z, labels), (logits,))


@pytest.mark.parametrize("shape", [(2, 6, 7), (8,)])
def test_ignored_pixels_count_nowhere(name: str, shape: tuple[int, ...]) -> None:
    logits, labels = draw(*shape)
    labels[1] = IGNORE
    loss = LOSSES.build(name, {"class_count": K})
    value = loss(logits, labels)
    value.backward()
    assert (logits.grad[1] == 0).all()
    assert (logits.grad[0] != 0).any()
    changed = logits.detach().clone()
    changed[1] = 100.0
    assert torch.equal(loss(changed, labels), value.detach())


@pytest.mark.parametrize("shape", [(2, 6, 7), (8,)])
@pytest.mark.parametrize("class_weights", [None, [1.0, 2.0, 0.5, 1.0, 3.0]])
def test_with_every_pixel_ignored_it_is_zero(name: str, shape: tuple[int, ...], class_weights: list[float]) -> None:
    logits, labels = draw(*shape)
    value = LOSSES.build(name, {"class_count": K}, class_weights=class_weights)(logits, torch.full_like(labels, IGNORE))
    value.backward()
    assert value == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_a_perfect_guess_costs_nothing(name: str) -> None:
    _, labels = draw(2, 6, 7)
    logits = 1e3 * torch.nn.functional.one_hot(labels, K).permute(0, 3, 1, 2).double()
    assert LOSSES.build(name, {"class_count": K})(logits, labels) == 0


def test_half_precision_logits_do_not_overflow(name: str) -> None:
    """The sums over a quarter of a million pixels are above the largest number of float16."""
    logits = torch.full((1, K, 512, 512), -6.0, dtype=torch.float16)
    logits[:, 1] = 6.0
    labels, loss = torch.zeros(1, 512, 512, dtype=torch.long), LOSSES.build(name, {"class_count": K})
    value = loss(logits, labels)
    assert value > 0
    assert value.item() == pytest.approx(loss(logits.double(), labels).item(), abs=1e-3)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 1.0, -1.0, 1.0, 1.0], [1.0, float("nan"), 1.0, 1.0, 1.0]])
def test_refuses_wrong_class_weights(name: str, weights: list[float]) -> None:
    with pytest.raises(InputError, match="class_weights"):
        LOSSES.build(name, {"class_count": K}, class_weights=weights)
