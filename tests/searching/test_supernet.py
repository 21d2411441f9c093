"""Shared weights: a part of them is a FasterSeg, exactly; and what the sandwich rule trains."""

from random import Random

import pytest
import torch

from hardy.data.label_spaces import find_label_space
from hardy.losses.cross_entropy import CrossEntropy
from hardy.networks.architectures.multipath import Architecture
from hardy.ops.divergence import divergence
from hardy.searching.sandwich import Sandwich
from hardy.searching.space import Space
from hardy.searching.supernet import Supernet
from hardy.types import IGNORE, Batch

SPACE = Space(2, 4, 3)
LABEL_SPACE = find_label_space("camvid11")


@pytest.fixture
def supernet() -> Supernet:
    torch.manual_seed(0)
    made = Supernet(LABEL_SPACE, space=SPACE)
    with torch.no_grad():
        for name, value in made.named_parameters():
            if ".scales." in name or ".shifts." in name:
                value.add_(0.3 * torch.randn_like(value))
    return made


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(1)
    labels = torch.randint(0, 11, (2, 64, 96))
    labels[:, :5] = IGNORE
    return Batch(torch.rand(2, 3, 64, 96), labels, torch.zeros(2, dtype=torch.int64))


def some() -> list[Architecture]:
    rng = Random(0)
    return [SPACE.largest(), SPACE.smallest(), *(SPACE.draw(rng) for _ in range(4))]


@pytest.mark.parametrize("architecture", some(), ids=range(6))
def test_a_part_is_a_network_of_its_own(supernet: Supernet, batch: Batch, architecture: Architecture) -> None:
    state = torch.random.get_rng_state()
    alone = supernet.network(architecture)
    assert torch.equal(torch.random.get_rng_state(), state)
    weights = supernet.weights(architecture)
    assert set(weights) == {name for name, _ in alone.named_parameters()}
    assert all(torch.equal(value, weights[name]) for name, value in alone.named_parameters())
    assert torch.equal(supernet.logits(architecture, batch.images), alone.train()(batch.images))
    with torch.no_grad():
        next(alone.parameters()).zero_()
    assert bool(next(iter(supernet.weights(architecture).values())).any())  # a copy


def test_the_network_itself_is_the_largest(supernet: Supernet, batch: Batch) -> None:
    assert torch.equal(supernet(batch.images), supernet.logits(SPACE.largest(), batch.images))


def test_only_what_is_used_learns(supernet: Supernet, batch: Batch) -> None:
    supernet.logits(SPACE.smallest(), batch.images).sum().backward()
    kernel = supernet.slims.get_submodule("down0.0").conv.weight
    made, given = round(16 * 2 * 4 / 12), round(8 * 2 * 4 / 12)
    assert bool(kernel.grad[:made, :given].any())
    assert not bool(kernel.grad[made:].any())
    assert not bool(kernel.grad[:, given:].any())
    learned = {name for name, value in supernet.named_parameters() if value.grad is not None}
    assert f"slims.down0.0.scales.{made}" in learned
    assert f"slims.down0.0.scales.{2 * 16}" not in learned
    assert not any(name.startswith("slims.down0.1") for name in learned)  # one convolution alone


def test_the_sandwich_by_hand(supernet: Supernet, batch: Batch) -> None:
    loss = CrossEntropy(11)
    algorithm = Sandwich(supernet, loss, temperature=2.0)
    torch.manual_seed(7)
    terms = algorithm(batch)
    torch.manual_seed(7)
    rng = Random(int(torch.randint(2**62, ())))
    taught = supernet.logits(SPACE.largest(), batch.images)
    wanted = {"largest": loss(taught, batch.labels)}
    for name, each in (("smallest", SPACE.smallest()), ("first", SPACE.draw(rng)), ("second", SPACE.draw(rng))):
        wanted[name] = divergence(taught, supernet.logits(each, batch.images), batch.labels != IGNORE, 2.0)
    assert list(terms) == list(wanted)
    assert all(torch.equal(terms[name], wanted[name]) for name in terms)
    assert min(float(term.detach()) for term in terms.values()) > 0


def test_students_do_not_change_their_teacher(supernet: Supernet, batch: Batch) -> None:
    terms = Sandwich(supernet, CrossEntropy(11))(batch)
    terms["smallest"].backward()
    assert supernet.slims.get_submodule("keep2_1.1").conv.weight.grad is None  # a layer that only the deep ones have
    assert supernet.slims.get_submodule("down0.0").conv.weight.grad is not None
