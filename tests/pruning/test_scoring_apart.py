"""Scoring apart from training: which loss trains, what is scored, and that nothing changes."""

import copy

import pytest
import torch
from loops import trainer
from torch.nn import functional as F

from hardy.engine.memory_batches import MemoryBatches
from hardy.engine.protocol import Settings, Split
from hardy.engine.prune import prune, to_score
from hardy.engine.safeguards import DataView
from hardy.errors import InputError
from hardy.pruning.criteria.taylor import Taylor
from hardy.pruning.goal import Ratio
from hardy.pruning.restyled import restyled
from hardy.pruning.risk import domain_risks, per_image
from hardy.pruning.schedules.base import Apart, Work
from hardy.pruning.schedules.iterative import Iterative
from hardy.pruning.schedules.one_shot import OneShot
from hardy.pruning.schedules.soft import Soft
from hardy.pruning.scoring import score_without_training
from hardy.pruning.select import Limits
from hardy.pruning.units import find_units
from hardy.recipe import Prune


def of(network, pixel_loss, batches, apart, **more):
    units, limits = find_units(network), Limits(min_width=1)
    criterion = Taylor(network, units, pixel_loss)
    return Work(
        network, criterion, units, Ratio(units, 0.2, limits), limits, batches=iter(batches), apart=apart, **more
    )


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [Iterative(every=2, per_round=1000), Soft(every=2, rounds=1)])
def test_after_the_steps_other_batches_are_scored(toy, draw_batch, pixel_loss, schedule):
    """The scores are those of the trained network on the batches given; the mean risk trains it."""
    toy.train()
    trained = [draw_batch([0, 1, 2, 0], seed=s) for s in range(4)]
    scored = [draw_batch([1, 0], seed=20 + s) for s in range(4)]
    twin = copy.deepcopy(toy)
    done = schedule.run(of(toy, pixel_loss, scored, Apart(pixel_loss, batches=3), tune=trainer(toy, trained)))
    assert done.steps == 2 + 3
    tune = trainer(twin, trained)
    mean_risk = lambda batch: {"risk": domain_risks(twin, batch, pixel_loss)[0].mean()}  # noqa: E731
    tune(2, mean_risk, lambda: None, lambda: None)
    units = find_units(twin)
    expected = OneShot(batches=3).run(of(twin, pixel_loss, scored, None))
    assert done.removed == expected.removed
    for unit in units:
        torch.testing.assert_close(done.scores[unit.name], expected.scores[unit.name], rtol=1e-9, atol=1e-18)


@pytest.mark.slow
def test_running_norms(toy, draw_batch, pixel_loss):
    toy.train()
    batches = [draw_batch([0, 1, 2, 0], seed=s) for s in range(2)]
    frozen = copy.deepcopy(toy)
    for module in frozen.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    expected = OneShot(batches=2).run(of(frozen, pixel_loss, batches, None)).scores
    before = copy.deepcopy(toy.state_dict())
    work = of(toy, pixel_loss, batches, Apart(pixel_loss, batches=2, running=True), good=lambda removed: False)
    with pytest.raises(InputError, match="any removal lowers the score"):  # scored, and nothing is cut
        OneShot(batches=30).run(work)
    assert all(torch.equal(value, before[name]) for name, value in toy.state_dict().items())
    for name, values in work.criterion.scores().items():
        torch.testing.assert_close(values, expected[name])
    work = of(toy, pixel_loss, batches, Apart(pixel_loss, running=True))
    toy.mix_norm.running_mean = None
    with pytest.raises(InputError, match=r"prune\.scoring\.norms: running needs running statistics, and 'mix_norm'"):
        OneShot().run(work)


def test_per_image_by_hand():
    """Images with 4 and 1 labelled pixels: per pixel (4 a + b) / 5, per image (a + b) / 2; the third has none."""
    logits = torch.zeros(3, 2, 2, 2, dtype=torch.float64)
    logits[1, 1] = 3.0
    labels = torch.zeros(3, 2, 2, dtype=torch.int64)
    labels[1] = torch.tensor([[0, 255], [255, 255]])
    labels[2] = 255

    def loss(logits, labels):
        return F.cross_entropy(logits, labels, ignore_index=255)

    first, second = torch.log(torch.tensor(2.0)).double(), torch.log1p(torch.exp(torch.tensor(3.0))).double()
    torch.testing.assert_close(loss(logits, labels), (4 * first + second) / 5)
    torch.testing.assert_close(per_image(loss)(logits, labels), (first + second) / 2)
    scores, classes = logits[:, :, 0, 0], torch.tensor([0, 1, 1])
    torch.testing.assert_close(per_image(F.cross_entropy)(scores, classes), F.cross_entropy(scores, classes))


class Inverted(torch.nn.Module):
    """A style perturbation whose copy is the image's negative, plus a draw of its own."""

    def sample(self, count):
        return torch.rand(count, 1, 1, 1, dtype=torch.float64)

    def content(self, images):
        return 1 - images

    def redraw(self, content, epsilon, size):
        return content[..., : size[0], : size[1]] + epsilon


def test_restyled_copies_follow_their_batch(draw_batch):
    batches = [draw_batch([0, 1], seed=s) for s in range(2)]
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    found = list(restyled(batches, Inverted(), 2, seed=5))
    assert torch.equal(torch.random.get_rng_state(), state)
    for batch, both in zip(batches, found, strict=True):
        images, one, other = both.images.split(2)
        assert torch.equal(images, batch.images)
        assert torch.equal(both.domains, batch.domains.repeat(3))
        assert torch.equal(both.labels, batch.labels.repeat(3, 1, 1))
        shifts = torch.stack([one, other]) - (1 - batch.images)
        assert torch.allclose(shifts, shifts[..., :1, :1, :1].expand_as(shifts))
        assert len(shifts[..., 0, 0, 0].unique()) == 4, "each copy has a style of its own"
    again = list(restyled(batches, Inverted(), 2, seed=5))
    assert all(torch.equal(one.images, other.images) for one, other in zip(found, again, strict=True))


def test_scores_without_a_removal_are_those_of_pruning(toy, draw_batch, pixel_loss):
    """Only the scoring of `prune`: the same scores, and the network keeps every channel and value."""
    toy.train()
    view = DataView(Split((), (), ()), Settings(), MemoryBatches([draw_batch([0, 1, 0], seed=s) for s in range(3)]))
    choice = Prune(
        criterion="taylor", schedule="one_shot", ratio=0.2, min_width=1, round_to=1, reestimate=0, scoring={}
    )
    before = copy.deepcopy(toy.state_dict())
    work = to_score(toy, choice, view, pixel_loss=pixel_loss)
    scores = score_without_training(work, 3)
    assert all(torch.equal(value, before[name]) for name, value in toy.state_dict().items())
    expected = prune(copy.deepcopy(toy), choice, view, pixel_loss=pixel_loss).pruned.scores
    assert scores.keys() == expected.keys() == {unit.name for unit in work.units}
    assert all(torch.equal(scores[name], expected[name]) for name in scores)
    assert work.criterion.halves() is not None, "the batches were scored one by one"
