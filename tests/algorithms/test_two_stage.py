"""Two-stage distillation: the errors of the first stage by hand, what the second trains, and a resume in each."""

import copy
from itertools import count

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import hardy
from hardy.algorithms.erm import ERM
from hardy.algorithms.two_stage import TwoStage
from hardy.engine.fit import Fit
from hardy.errors import InputError
from hardy.losses.cross_entropy import CrossEntropy
from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.networks.building.teacher import Teacher
from hardy.recipe import Optim, RunSection
from hardy.seed import seed_all, seeded
from hardy.types import Batch, Outputs


class Branched(Network):
    """An encoder of stride 2 with a norm, a detail branch beside it, and a head on both."""

    least_size = 1

    def __init__(self, label_space, width=4):
        super().__init__(label_space, (0.2, 0.3, 0.4), (1.0, 1.0, 1.0))
        self.stem = nn.Conv2d(3, width, 1)
        self.deep = nn.Sequential(nn.Conv2d(width, width, 2, stride=2), nn.BatchNorm2d(width))
        self.detail = nn.Conv2d(3, width, 1)
        self.head = nn.Conv2d(width, len(label_space), 1)

    def outputs(self, images):
        x = self.normalise(images)
        deep = self.deep(torch.tanh(self.stem(x)))
        fused = self.detail(x) + deep.repeat_interleave(2, 2).repeat_interleave(2, 3)[..., : x.shape[2], : x.shape[3]]
        return Outputs(self.head(fused), {"deep": deep}, embedding=fused)


ENCODER = {"stem.weight", "stem.bias", "deep.0.weight", "deep.0.bias", "deep.1.weight", "deep.1.bias"}


@pytest.fixture
def network(scenes):
    torch.manual_seed(0)
    return Branched(scenes.label_space).double().train()


@pytest.fixture
def teacher(scenes):
    torch.manual_seed(1)
    return Teacher(Branched(scenes.label_space, width=6).double())


def built(network, loss, teacher, **options):
    torch.manual_seed(2)
    return TwoStage(network, loss, teacher, 10, **options).train().double()


def rebuilt(loss, student, teacher):
    """What the heads of ``loss`` make of maps (B, C, h, w): the student's version of the teacher's, (B, n, C')."""
    own, other = (value.flatten(2).transpose(1, 2) for value in (student, teacher))
    query, value = (head[0](own) for head in (loss.queries, loss.values))
    weights = torch.einsum("bic,bjc->bij", query, other).softmax(2)
    return torch.einsum("bij,bjc->bic", weights, value), other


# ------------------------------------------------------------------------------------------------ features


def test_the_three_errors_are_those_of_their_heads(network, teacher, draw_batch, loss):
    batch = draw_batch([0, 1], size=(4, 6))
    algorithm = built(network, loss, teacher, weight=2.0)
    seed_all(0, "step")
    terms = algorithm(batch)
    assert list(terms) == ["image", "positions", "masked"]
    own, other = network.outputs(batch.images).features["deep"], teacher.outputs(batch.images).features["deep"]
    made, wanted = rebuilt(algorithm.whole, own, other)
    assert terms["positions"].item() == pytest.approx(2 * F.mse_loss(made, wanted).item(), rel=1e-9)
    image = F.mse_loss(algorithm.whole.wholes[0](own.mean((2, 3))), other.mean((2, 3)))
    assert terms["image"].item() == pytest.approx(2 * image.item(), rel=1e-9)
    seed_all(0, "step")
    mask = algorithm._drawn(batch.images)
    view = batch.images.clone()
    view.movedim(1, -1)[mask] = torch.tensor([0.2, 0.3, 0.4], dtype=torch.float64)
    made, wanted = rebuilt(algorithm.hidden, network.outputs(view).features["deep"], other)
    places = mask[:, ::2, ::2].flatten(1)
    assert terms["masked"].item() == pytest.approx(2 * F.mse_loss(made[places], wanted[places]).item(), rel=1e-6)


def test_the_mask_covers_its_share_of_whole_patches(network, teacher, draw_batch, loss):
    images = draw_batch([0] * 50, size=(8, 11)).images
    for share, patch, cells in ((0.5, 0, 24), (0.25, 4, 6), (0.001, 4, 6), (1.0, 4, 6)):
        algorithm = built(network, loss, teacher, masked=share, patch=patch)
        side = patch or 2
        mask = algorithm._drawn(images)
        assert mask.shape == (50, 8, 11)
        corners = mask[:, ::side, ::side]
        assert torch.equal(corners.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, :8, :11], mask)
        assert corners.flatten(1).sum(1).tolist() == [max(1, round(share * cells))] * 50
        assert share == 1 or corners.any(0).all(), "each patch has its turn"


def test_a_patch_is_less_than_the_image(network, teacher, draw_batch, loss):
    images = draw_batch([0, 0], size=(2, 2)).images
    mask = built(network, loss, teacher)._drawn(images)
    assert mask.flatten(1).sum(1).tolist() == [2, 2], "the stride of 2 would mask all; half of the image does not"
    with pytest.raises(InputError, match=r"^TwoStage\.patch: 4 pixels cover all of the images of 2x2, so .*masked: 0"):
        built(network, loss, teacher, patch=4)._drawn(images)
    assert built(network, loss, teacher, patch=4, masked=1.0)._drawn(images).all(), "as was asked"


def test_labels_do_not_matter_at_first_and_the_head_learns_nothing(network, teacher, draw_batch, loss):
    batch = draw_batch([0, 1], size=(4, 6))
    unlabelled = Batch(batch.images, torch.full_like(batch.labels, 255), torch.tensor([-1, -1]))
    algorithm = built(network, loss, teacher, masked=0.0)
    terms = algorithm(batch)
    assert list(terms) == ["image", "positions"]
    assert all(torch.equal(value, terms[name]) for name, value in algorithm(unlabelled).items())
    torch.stack(list(terms.values())).sum().backward()
    assert {name for name, value in network.named_parameters() if value.grad is not None} == ENCODER


def test_the_masked_view_leaves_the_running_statistics(network, teacher, draw_batch, loss):
    batch = draw_batch([0, 1], size=(4, 6))
    found = []
    for masked in (0.0, 0.5):
        student = copy.deepcopy(network)
        built(student, loss, teacher, masked=masked)(batch)
        found.append(student.deep[1].running_mean)
    assert torch.equal(*found)


# ------------------------------------------------------------------------------------------------ the task


def later(algorithm):
    """``algorithm`` after its first stage of 5 steps."""
    algorithm.after_step(5)
    return algorithm


def test_the_encoder_is_frozen_with_its_norms(network, teacher, draw_batch, loss):
    batch = draw_batch([0, 1], size=(4, 6))
    algorithm = later(built(network, loss, teacher))
    statistics = network.deep[1].running_mean.clone()
    terms = algorithm(batch)
    assert list(terms) == ["segmentation"]
    terms["segmentation"].backward()
    reached = {name for name, value in network.named_parameters() if value.grad is not None}
    assert reached == {name for name, _ in network.named_parameters()} - ENCODER
    assert torch.equal(network.deep[1].running_mean, statistics)
    assert network.deep[1].training
    assert all(value.requires_grad for value in network.parameters()), "afterwards it is as before"
    in_use = copy.deepcopy(network)
    in_use.deep.eval()
    assert terms["segmentation"].item() == ERM(in_use, loss)(batch)["segmentation"].item()


def test_only_images_with_labels_are_used_then(network, teacher, draw_batch, loss):
    batch = draw_batch([0, 1, 1], size=(4, 6))
    batch.labels[1], batch.domains[1] = 255, -1
    algorithm = later(built(network, loss, teacher, encoder_rate=1.0))
    wanted = ERM(copy.deepcopy(network), loss)(batch.where(batch.domains >= 0))
    assert algorithm(batch)["segmentation"].item() == wanted["segmentation"].item()
    nothing = algorithm(batch.where(batch.domains < 0))
    assert nothing["segmentation"].item() == 0
    assert nothing["segmentation"].requires_grad


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_a_slow_encoder_moves_by_its_share_of_the_rate(name, network, teacher, draw_batch, loss):
    """Three steps equal those of an optimiser with two rates."""
    batch = draw_batch([0, 1], size=(4, 6))

    def batches(start, rank, processes):
        while True:
            yield batch

    section = Optim(name=name, lr=0.05, steps=3, schedule="constant")
    algorithm = TwoStage(copy.deepcopy(network), loss, teacher, 3, feature_share=0.0, encoder_rate=0.1)
    loop = Fit(algorithm, batches, section, RunSection(device="cpu"))
    loop.run()
    other = Fit(ERM(network, loss), batches, section, RunSection(device="cpu"))
    groups, inside = [], {id(value) for key, value in network.named_parameters() if key in ENCODER}
    for group in other.optimiser.optimizer.param_groups:
        for slow in (False, True):
            chosen = [value for value in group["params"] if (id(value) in inside) == slow]
            groups.append({**group, "params": chosen, "base_lr": group["base_lr"] * (0.1 if slow else 1)})
    other.optimiser.optimizer.param_groups[:] = groups
    other.run()
    for key, value in network.state_dict().items():
        torch.testing.assert_close(algorithm.network.state_dict()[key], value, rtol=1e-9, atol=1e-9, msg=key)


@pytest.mark.slow
def test_the_moments_are_reset_at_the_change(network, teacher, loss):
    assert [step for step in range(1, 11) if built(network, loss, teacher).restarts(step)] == [6]
    assert not any(built(network, loss, teacher, feature_share=0.0).restarts(step) for step in range(1, 11))


# ------------------------------------------------------------------------------------------------ training


def images(step, kind):
    generator = torch.Generator().manual_seed(step)
    drawn = torch.rand(4, 3, 32, 48, generator=generator)
    domains = torch.tensor([0, 1, -1, -1])
    labels = drawn.argmax(1) if kind == "scenes" else torch.arange(4) % 3
    labels[2:] = 255
    return Batch(drawn, labels, domains)


def run_of(kind, folder=None, **options):
    def batches(start, rank, processes):
        for step in count(start):
            yield images(step, kind)

    with seeded(0, "network"):
        if kind == "scenes":
            network, teacher = create("tiny", "camvid11", width=8), create("classifier", "pacs7", encoder="test_resnet")
        else:
            network, teacher = (create("classifier", "pacs7", encoder="test_resnet") for _ in range(2))
    seed_all(0, "algorithm")
    algorithm = TwoStage(network, CrossEntropy(len(network.label_space)), Teacher(teacher), 6, **options)
    optim = Optim(name="adam", lr=1e-2, steps=6)
    return Fit(algorithm, batches, optim, RunSection(device="cpu"), folder=folder)


@pytest.mark.costly
@pytest.mark.parametrize("kind", ["scenes", "pictures"])
@pytest.mark.parametrize("stopped", [1, 3, 4])
@pytest.mark.parametrize("encoder_rate", [0.0, 0.1])
def test_a_run_resumed_in_either_stage_has_the_same_bits(kind, stopped, encoder_rate, tmp_path):
    whole = run_of(kind, encoder_rate=encoder_rate)
    whole.run()
    first = run_of(kind, tmp_path, encoder_rate=encoder_rate)
    first.run(stopped)
    first.save()
    second = run_of(kind, tmp_path, encoder_rate=encoder_rate)
    assert second.resume()
    second.run()
    wanted = whole.algorithm.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in second.algorithm.state_dict().items())


@pytest.mark.costly
def test_each_stage_trains_its_part():
    """A teacher of image-level classes, of other classes than the network's, will do."""
    loop = run_of("scenes")
    network = loop.algorithm.network
    states = [copy.deepcopy(network.state_dict())]
    for _ in range(2):
        loop.run(3)
        states.append(copy.deepcopy(network.state_dict()))
    start, middle, end = states
    moved = [{name for name in a if not torch.equal(a[name], b[name])} for a, b in ((start, middle), (middle, end))]
    parts = [{name.split(".")[0] for name in names if "num_batches" not in name} for names in moved]
    assert {"detail", "context"} <= parts[0]
    assert "head.weight" not in moved[0]
    assert parts[1] == {"narrow", "smooth", "head"}
    batch = images(99, "scenes")
    trained, fresh = loop.algorithm, run_of("scenes").algorithm
    for algorithm in (trained, fresh):
        algorithm.steps.fill_(0)
        seed_all(0, "step")
    assert sum(trained(batch).values()).item() < 0.9 * sum(fresh(batch).values()).item()


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"feature_share": 1.5}, "TwoStage.feature_share: 1.5 is out of range; it must be from 0 to 1"),
        ({"masked": -0.5}, "TwoStage.masked: -0.5 is out of range"),
        ({"encoder_rate": 2.0}, "TwoStage.encoder_rate: 2.0 is out of range"),
        ({"patch": -1}, "TwoStage.patch: -1 is out of range"),
        ({"taps": ["depe"]}, "has no 'depe'; did you mean 'deep'"),
        ({"taps": ["deepst"]}, "has no 'deepst'; did you mean 'deepest'"),
        ({"taps": "deepest"}, "taps: 'deepest' is not a list; write [deepest]"),
    ],
)
def test_what_cannot_be_is_refused(network, teacher, loss, options, said):
    with pytest.raises(InputError) as caught:
        TwoStage(network, loss, teacher, 10, **options)
    assert said in str(caught.value)


def test_a_teacher_that_overflows_is_named(network, teacher, loss, draw_batch):
    teacher.network.deep[0].weight.data.fill_(1e308)
    with pytest.raises(InputError, match="teacher: its features are not finite on a batch; check its weights"):
        built(network, loss, teacher)(draw_batch([0, 1], size=(4, 6)))


def test_a_teacher_without_features_is_refused(network, loss, scenes):
    module = nn.Conv2d(3, 3, 1)
    with pytest.raises(InputError, match="lists no features"):
        TwoStage(network, loss, Teacher(hardy.wrap(module, scenes.label_space)), 10)


def test_it_is_trained_in_one_process(network, teacher, loss, monkeypatch):
    from accelerate import Accelerator

    algorithm = TwoStage(network, loss, teacher, 10)
    monkeypatch.setattr(Accelerator, "num_processes", 2)
    with pytest.raises(InputError, match="TwoStage does not train all weights in each step; train it in one process"):
        Fit(algorithm, lambda *_: iter(()), Optim(steps=1), RunSection(device="cpu"))
