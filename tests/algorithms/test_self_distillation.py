"""Self-distillation by hand, at its limits, and what training does to the teacher: nothing."""

import copy
from itertools import count

import pytest
import torch
from torch.nn import functional as F

import hardy
from hardy.algorithms.erm import ERM
from hardy.algorithms.self_distillation import SelfDistillation
from hardy.engine.fit import Fit
from hardy.errors import InputError
from hardy.losses.cross_entropy import CrossEntropy
from hardy.networks.building.teacher import Teacher
from hardy.recipe import Optim, RunSection
from hardy.registry import ALGORITHMS
from hardy.types import Batch


@pytest.fixture
def teacher(scenes):
    """Another network for the scenes."""
    torch.manual_seed(9)
    other = copy.deepcopy(scenes)
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    return other


@pytest.mark.parametrize(("temperature", "weight"), [(1.0, 3.0), (4.0, 0.5)])
def test_its_terms_are_the_labels_loss_and_the_divergence(scenes, teacher, draw_batch, loss, temperature, weight):
    batch = draw_batch([0, 1, 1], size=(3, 4))
    terms = SelfDistillation(scenes, loss, Teacher(teacher), temperature=temperature, weight=weight)(batch)
    assert list(terms) == ["segmentation", "distillation"]
    assert terms["segmentation"].item() == ERM(scenes, loss)(batch)["segmentation"].item()
    labelled = batch.labels != 255
    assert 0 < int(labelled.sum()) < labelled.numel()
    taught, said = (net(batch.images).movedim(1, -1)[labelled] / temperature for net in (teacher, scenes))
    wanted = F.kl_div(F.log_softmax(said, 1), F.softmax(taught, 1), reduction="none").sum(1).mean()
    assert terms["distillation"].item() == pytest.approx(weight * temperature**2 * wanted.item(), rel=1e-11)


def test_a_teacher_that_says_the_same_adds_nothing(scenes, pictures, draw_batch, loss, total):
    for network, size in ((scenes, (2, 3)), (pictures, None)):
        batch = draw_batch([0, 1], size=size)
        terms = SelfDistillation(network, loss, Teacher(network), weight=1e6)(batch)
        assert terms["distillation"].item() == 0
        torch.stack(list(terms.values())).sum().backward()
        found = [parameter.grad.clone() for parameter in network.parameters()]
        network.zero_grad()
        ERM(network, loss)(batch)[next(iter(terms))].backward()
        for one, parameter in zip(found, network.parameters(), strict=True):
            torch.testing.assert_close(one, parameter.grad, rtol=1e-9, atol=1e-9)


def test_its_gradient_reaches_the_network_alone_and_is_that_of_its_value(scenes, teacher, draw_batch, loss):
    batch = draw_batch([0, 1], size=(2, 2))
    algorithm = SelfDistillation(scenes, loss, Teacher(teacher), temperature=2.0)

    def value(weight):
        with torch.no_grad():
            scenes.head.weight.copy_(weight)
        return algorithm(batch)["distillation"]

    start = scenes.head.weight.detach().clone()
    value(start).backward()
    direction = torch.randn_like(start)
    slope = (scenes.head.weight.grad * direction).sum().item()
    numeric = (value(start + 1e-6 * direction) - value(start - 1e-6 * direction)).item() / 2e-6
    assert slope == pytest.approx(numeric, rel=1e-6)
    assert all(parameter.grad is None for parameter in (*teacher.parameters(), *algorithm.teacher.network.parameters()))


def batches(start, rank, processes):
    for step in count(start):
        generator = torch.Generator().manual_seed(step)
        images = torch.rand(4, 3, 8, 8, generator=generator)
        yield Batch(images, images.argmax(1), torch.zeros(4, dtype=torch.long))


def fit(folder=None, seed=0):
    space = hardy.create("tiny", "camvid11", width=8).labels
    torch.manual_seed(seed)

    def built():
        layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 6, 3, padding=1), torch.nn.BatchNorm2d(6), torch.nn.Conv2d(6, 11, 1)
        )
        return hardy.wrap(layers, space).train()

    with torch.random.fork_rng():
        torch.manual_seed(5)
        teacher = built()
    algorithm = SelfDistillation(built(), CrossEntropy(11), Teacher(teacher))
    return Fit(
        algorithm, batches, Optim(name="adam", steps=4, lr=1e-2), RunSection(device="cpu"), folder=folder
    ), teacher


def test_training_leaves_the_teacher_and_a_resumed_run_has_the_same_bits(tmp_path):
    whole, teacher = fit()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    whole.run()
    kept = whole.algorithm.teacher.network
    for state in (teacher.state_dict(), kept.state_dict()):
        assert all(torch.equal(value, before[name]) for name, value in state.items())
    assert not kept.training
    assert all(name.startswith("network.") for name in whole.algorithm.state_dict())
    learnt = {id(p) for group in whole.optimiser.optimizer.param_groups for p in group["params"]}
    assert learnt == {id(parameter) for parameter in whole.algorithm.network.parameters()}
    first, _ = fit(tmp_path)
    first.run(2)
    first.save()
    second, _ = fit(tmp_path, seed=7)
    assert second.resume()
    second.run()
    wanted = whole.algorithm.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in second.algorithm.state_dict().items())


def test_it_draws_the_network_to_its_teacher():
    """With weight on the divergence alone, training lowers it."""
    loop, _ = fit()
    loop.algorithm.pixel_loss = lambda logits, labels: 0.0 * logits.sum()
    batch = next(batches(99, 0, 1))
    start = loop.algorithm(batch)["distillation"].item()
    loop.run()
    assert loop.algorithm(batch)["distillation"].item() < 0.9 * start


def test_what_a_constructor_names_before_the_star_is_known_without_an_import(scenes, loss, tmp_path, monkeypatch):
    assert ALGORITHMS.describe("self_distillation").supplied == ("network", "pixel_loss", "teacher")
    assert ALGORITHMS.describe("erm").supplied == ("network", "pixel_loss")
    text = (
        "from hardy.algorithms.erm import ERM\n\n\n"
        "class Asks(ERM):\n    def __init__(self, network, pixel_loss, oracle):\n        pass\n"
    )
    (tmp_path / "asking.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        InputError, match=r"'asking:Asks': its constructor has the argument 'oracle'; .* may be: network, labels"
    ):
        ALGORITHMS.build("asking:Asks", {"network": scenes, "pixel_loss": loss, "teacher": scenes})


def test_what_cannot_be_is_refused(scenes, pictures, teacher, loss):
    with pytest.raises(InputError, match=r"temperature: 0\.0 is out of range; it must be above 0"):
        SelfDistillation(scenes, loss, Teacher(teacher), temperature=0.0)
    with pytest.raises(InputError, match=r"SelfDistillation.weight: -1.0 is out of range"):
        SelfDistillation(scenes, loss, Teacher(teacher), weight=-1.0)
    with pytest.raises(InputError, match="both must predict the same classes"):
        SelfDistillation(scenes, loss, Teacher(pictures))
    supply = {"network": scenes, "pixel_loss": loss}
    with pytest.raises(InputError, match=r"self_distillation needs 'teacher', which is missing: .* teacher: {run"):
        ALGORITHMS.build("self_distillation", supply)
    built = ALGORITHMS.build("self_distillation", {**supply, "teacher": Teacher(teacher)}, weight=2.0)
    assert built.weight == 2.0
