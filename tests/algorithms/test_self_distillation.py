"""Self-distillation: the average by its rule, the heads and the stages by hand, and a resume of each."""

import copy
from itertools import count

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hardy.algorithms.erm import ERM
from hardy.algorithms.self_distillation import SelfDistillation
from hardy.engine.fit import Fit
from hardy.errors import InputError
from hardy.losses.cross_entropy import CrossEntropy
from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.recipe import Optim, RunSection
from hardy.registry import ALGORITHMS
from hardy.seed import seed_all, seeded
from hardy.types import Batch, Outputs


class Deep(Network):
    """Two stages of equal size, an auxiliary head on the first in training, and the main head on the second."""

    least_size = 1

    def __init__(self, label_space):
        super().__init__(label_space, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1)
        self.aux, self.head = nn.Conv2d(4, 3, 1), nn.Conv2d(6, 3, 1)

    def outputs(self, images):
        first = torch.tanh(self.first(self.normalise(images)))
        second = torch.tanh(self.second(first))
        extras = {"aux_first": self.aux(first), "boundary": first[:, :1]} if self.training else {}
        logits = self.head(second)
        return Outputs(logits, {"first": first, "second": second}, extras, coarse=logits, embedding=second)


@pytest.fixture
def deep(scenes):
    torch.manual_seed(3)
    return Deep(scenes.label_space).double().train()


def divergence(taught, said, counted, temperature):
    """The mean over the pixels that count, by torch's own divergence."""
    taught, said = (value.movedim(1, -1)[counted] / temperature for value in (taught, said))
    each = F.kl_div(F.log_softmax(said, 1), F.softmax(taught, 1), reduction="none").sum(1)
    return temperature**2 * each.mean().item()


# ------------------------------------------------------------------------------------------------ a moving average


def test_the_average_follows_by_its_rule_and_its_buffers_are_copies(pictures, loss):
    class Normed(type(pictures)):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

    torch.manual_seed(0)
    network = Normed().train()
    algorithm = SelfDistillation(network, loss, 100, decay=0.4).train()
    assert not any(module.training for module in algorithm.average.modules())
    assert not any(value.requires_grad for value in algorithm.average.parameters())
    wanted = network.head.weight.detach().clone()
    for step, decay in ((1, 0.1), (2, 2 / 11), (1000, 0.4)):
        with torch.no_grad():
            network.head.weight.add_(step)
            network.norm.running_mean.add_(1)
            network.norm.num_batches_tracked.add_(1)
        algorithm.after_step(step)
        wanted = decay * wanted + (1 - decay) * network.head.weight.detach()
        torch.testing.assert_close(algorithm.average.head.weight, wanted)
    assert torch.equal(algorithm.average.norm.running_mean, network.norm.running_mean)
    assert int(algorithm.average.norm.num_batches_tracked) == 3


def test_the_divergence_counts_by_the_share_of_confident_pixels(scenes, draw_batch, loss):
    batch = draw_batch([0, 1, 1], size=(3, 4))
    algorithm = SelfDistillation(scenes, loss, 10, confidence=0.4)
    with torch.no_grad():
        algorithm.average.head.weight.mul_(-3)
    terms = algorithm(batch)
    assert list(terms) == ["segmentation", "kl"]
    assert terms["segmentation"].item() == ERM(scenes, loss)(batch)["segmentation"].item()
    taught = algorithm.average(batch.images)
    share = (taught.softmax(1).amax(1) > 0.4).double().mean().item()
    assert 0 < share < 1
    whole = divergence(taught, scenes(batch.images), batch.labels != 255, 1.0)
    assert terms["kl"].item() == pytest.approx(share * whole, rel=1e-6)
    algorithm.confidence = 0.0
    assert algorithm(batch)["kl"].item() == pytest.approx(whole, rel=1e-9)
    algorithm.confidence = 1.0
    assert algorithm(batch)["kl"].item() == 0


def test_a_network_that_is_its_average_learns_from_the_labels_alone(scenes, draw_batch, loss):
    terms = SelfDistillation(scenes, loss, 10, confidence=0.0)(draw_batch([0, 1], size=(2, 3)))
    assert terms["kl"].item() == 0


# ------------------------------------------------------------------------------------------------ deep supervision


def test_the_main_head_teaches_the_auxiliary_heads(deep, draw_batch, loss):
    batch = draw_batch([0, 1], size=(3, 4))
    algorithm = SelfDistillation(deep, loss, 10, by="deep", alpha=0.25, hint=0.5).train().double()
    terms = algorithm(batch)
    assert list(terms) == ["segmentation", "aux_first", "aux_first_kl", "fitnets"]
    plain = ERM(deep, loss)(batch)
    assert terms["segmentation"].item() == plain["segmentation"].item()
    assert terms["aux_first"].item() == pytest.approx(0.75 * plain["aux_first"].item(), rel=1e-12)
    outputs = deep.outputs(batch.images)
    said = divergence(outputs.logits, outputs.extras["aux_first"], batch.labels != 255, 3.0)
    assert terms["aux_first_kl"].item() == pytest.approx(0.25 * 0.4 * said, rel=1e-9)
    align = algorithm.hints.losses["fitnets"].aligners[0].project.weight
    seen = torch.einsum("oc,bchw->bohw", align[:, :, 0, 0], outputs.features["first"])
    wanted = 0.5 * (seen - outputs.features["second"]).square().mean()
    assert terms["fitnets"].item() == pytest.approx(wanted.item(), rel=1e-9)


def test_each_head_has_its_own_weight(deep, draw_batch, loss, monkeypatch):
    """As ICNet's heads, of which one has 0.16."""
    monkeypatch.setattr(Deep, "weight_of", lambda network, head: {"aux_first": 0.16}[head])
    batch = draw_batch([0, 1], size=(3, 4))
    terms = SelfDistillation(deep, loss, 10, by="deep", alpha=0.25).train().double()(batch)
    outputs = deep.outputs(batch.images)
    logits = outputs.extras["aux_first"]
    assert terms["aux_first"].item() == pytest.approx(0.75 * 0.16 * loss(logits, batch.labels).item(), rel=1e-9)
    said = divergence(outputs.logits, logits, batch.labels != 255, 3.0)
    assert terms["aux_first_kl"].item() == pytest.approx(0.25 * 0.16 * said, rel=1e-9)


def test_no_gradient_reaches_what_teaches(deep, draw_batch, loss):
    batch = draw_batch([0, 1], size=(3, 4))
    algorithm = SelfDistillation(deep, loss, 10, by="deep").train().double()
    terms = algorithm(batch)
    (terms["aux_first_kl"] + terms["fitnets"]).backward()
    reached = {name for name, value in deep.named_parameters() if value.grad is not None and value.grad.any()}
    assert reached == {"first.weight", "first.bias", "aux.weight", "aux.bias"}


@pytest.mark.costly
@pytest.mark.slow
def test_without_a_hint_or_a_map_of_its_name_only_logits_are_compared(deep, loss, draw_batch):
    algorithm = SelfDistillation(deep, loss, 10, by="deep", hint=0.0).train()
    assert algorithm.hints is None
    network = create("fast_scnn", "camvid11", aux=True)
    assert SelfDistillation(network, CrossEntropy(11), 10, by="deep").hints is not None
    network = create("encoder_decoder", "camvid11", encoder="test_resnet", decoder="linear", aux=True)
    assert SelfDistillation(network, CrossEntropy(11), 10, by="deep").hints is None, "its head has no feature's name"


# ------------------------------------------------------------------------------------------------ attention


def test_each_stage_looks_where_the_next_looks_after_the_start(deep, draw_batch, loss):
    batch = draw_batch([0, 1], size=(3, 4))
    losses = {"attention_transfer": {"weight": 7.0}}
    algorithm = SelfDistillation(deep, loss, 10, by="attention", losses=losses, start=0.5)
    assert list(algorithm(batch)) == ["segmentation", "aux_first"]
    algorithm.after_step(4)
    assert list(algorithm(batch)) == ["segmentation", "aux_first"]
    algorithm.after_step(5)
    terms = algorithm(batch)
    assert list(terms) == ["segmentation", "aux_first", "attention_transfer"]
    features = deep.outputs(batch.images).features
    maps = [F.normalize(value.square().mean(1).flatten(1)) for value in features.values()]
    wanted = 7 * (maps[0] - maps[1]).square().mean()
    assert terms["attention_transfer"].item() == pytest.approx(wanted.item(), rel=1e-9)
    terms["attention_transfer"].backward()
    assert deep.first.weight.grad.any()
    assert deep.second.weight.grad is None


# ------------------------------------------------------------------------------------------------ training


@pytest.mark.costly
@pytest.mark.slow
@pytest.mark.parametrize("by", ["ema", "deep", "attention"])
def test_a_resumed_run_has_the_same_bits(by, tmp_path):
    def batches(start, rank, processes):
        for step in count(start):
            generator = torch.Generator().manual_seed(step)
            images = torch.rand(2, 3, 32, 48, generator=generator)
            domains = torch.tensor([0, -1])
            labels = torch.where(domains[:, None, None] < 0, 255, images.argmax(1))
            yield Batch(images, labels, domains)

    def fit(folder):
        with seeded(0, "network"):
            network = create("tiny", "camvid11", width=8, aux=True)
        seed_all(0, "algorithm")
        options = {"confidence": 0.05} if by == "ema" else {}
        algorithm = SelfDistillation(network, CrossEntropy(11), 4, by=by, **options)
        optim = Optim(name="adam", lr=1e-2, steps=4)
        return Fit(algorithm, batches, optim, RunSection(device="cpu"), folder=folder)

    whole = fit(None)
    whole.run()
    first = fit(tmp_path)
    first.run(2)
    first.save()
    second = fit(tmp_path)
    assert second.resume()
    second.run()
    wanted = whole.algorithm.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in second.algorithm.state_dict().items())
    if by == "ema":
        learnt = {id(p) for group in whole.optimiser.optimizer.param_groups for p in group["params"]}
        assert learnt == {id(parameter) for parameter in whole.algorithm.network.parameters()}
        assert not torch.equal(wanted["average.head.weight"], wanted["network.head.weight"])


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"decay": 1.5}, "SelfDistillation.decay: 1.5 is out of range; it must be from 0 to 1"),
        ({"alpha": 0.5}, "SelfDistillation.alpha: 0.5 has no effect with by: ema, which uses decay, confidence"),
        ({"by": "attention", "decay": 0.9}, "decay: 0.9 has no effect with by: attention, which uses start"),
        ({"by": "deep"}, "by: deep needs auxiliary heads, and Cells has none; create it with aux: true"),
        ({"by": "deep", "losses": {"fitnets": {"taps": ["first"]}}}, "losses.fitnets: deep compares the logits"),
    ],
)
def test_what_cannot_be_is_refused(scenes, loss, options, said):
    with pytest.raises(InputError) as caught:
        SelfDistillation(scenes, loss, 10, **options)
    assert said in str(caught.value)


def test_one_stage_has_no_next(pictures, loss):
    with pytest.raises(InputError, match="by: attention compares stages, and Colours has 1; use ema"):
        SelfDistillation(pictures, loss, 10, by="attention")


def test_its_old_options_are_refused_with_the_new_ones(scenes, loss):
    supply = {"network": scenes, "pixel_loss": loss, "steps": 10}
    for option in ("temperature", "weight"):
        with pytest.raises(InputError, match=f"SelfDistillation has no option '{option}'.*; it has: by, losses, decay"):
            ALGORITHMS.build("self_distillation", supply, **{option: 2.0})


def test_a_copy_is_taken_not_the_network(scenes, loss):
    before = copy.deepcopy(scenes.state_dict())
    algorithm = SelfDistillation(scenes, loss, 10)
    algorithm.after_step(5)
    assert algorithm.average is not scenes
    assert all(torch.equal(value, before[name]) for name, value in scenes.state_dict().items())
