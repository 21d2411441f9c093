"""Distillation by hand, its balance and its limits, and what training does to the teacher: nothing."""

import copy
import logging
from itertools import count

import pytest
import torch
from torch.nn import functional as F

import hardy
from hardy.algorithms.distillation import Distillation, gradient_norm
from hardy.algorithms.erm import ERM
from hardy.engine.fit import Fit
from hardy.errors import InputError
from hardy.losses.cross_entropy import CrossEntropy
from hardy.networks.building.teacher import Teacher
from hardy.recipe import Optim, RunSection
from hardy.registry import ALGORITHMS
from hardy.types import Batch

FIXED = {"balance": "fixed"}


def kl(weight=3.0, **options):
    return {"losses": {"kl": {"weight": weight, **options}}}


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
    options = kl(weight, temperature=temperature) | FIXED
    terms = Distillation(scenes, loss, Teacher(teacher), **options)(batch)
    assert list(terms) == ["segmentation", "kl"]
    assert terms["segmentation"].item() == ERM(scenes, loss)(batch)["segmentation"].item()
    labelled = batch.labels != 255
    assert 0 < int(labelled.sum()) < labelled.numel()
    taught, said = (net(batch.images).movedim(1, -1)[labelled] / temperature for net in (teacher, scenes))
    wanted = F.kl_div(F.log_softmax(said, 1), F.softmax(taught, 1), reduction="none").sum(1).mean()
    assert terms["kl"].item() == pytest.approx(weight * temperature**2 * wanted.item(), rel=1e-11)


def test_without_losses_it_has_the_usual_ones(scenes, pictures, teacher, draw_batch, loss):
    assert list(Distillation(scenes, loss, Teacher(teacher)).distilled.losses) == ["kl", "cwd"]
    found = Distillation(pictures, loss, Teacher(pictures))
    assert list(found.distilled.losses) == ["kl"]
    assert list(found(draw_batch([0, 1]))) == ["classification", "kl"]


def test_a_teacher_that_says_the_same_adds_nothing(scenes, pictures, draw_batch, loss):
    for network, size in ((scenes, (2, 3)), (pictures, None)):
        batch = draw_batch([0, 1], size=size)
        algorithm = Distillation(network, loss, Teacher(network), **kl(1e6))
        terms = algorithm(batch)
        assert terms["kl"].item() == 0
        assert algorithm.scale.item() == 1
        torch.stack(list(terms.values())).sum().backward()
        found = [parameter.grad.clone() for parameter in network.parameters()]
        network.zero_grad()
        ERM(network, loss)(batch)[next(iter(terms))].backward()
        for one, parameter in zip(found, network.parameters(), strict=True):
            torch.testing.assert_close(one, parameter.grad, rtol=1e-9, atol=1e-9)


def test_its_gradient_reaches_the_network_alone_and_is_that_of_its_value(scenes, teacher, draw_batch, loss):
    batch = draw_batch([0, 1], size=(2, 2))
    algorithm = Distillation(scenes, loss, Teacher(teacher), **kl(temperature=2.0), **FIXED)

    def value(weight):
        with torch.no_grad():
            scenes.head.weight.copy_(weight)
        return algorithm(batch)["kl"]

    start = scenes.head.weight.detach().clone()
    value(start).backward()
    direction = torch.randn_like(start)
    slope = (scenes.head.weight.grad * direction).sum().item()
    numeric = (value(start + 1e-6 * direction) - value(start - 1e-6 * direction)).item() / 2e-6
    assert slope == pytest.approx(numeric, rel=1e-6)
    assert all(parameter.grad is None for parameter in (*teacher.parameters(), *algorithm.teacher.network.parameters()))


# ---------------------------------------------------------------------------------------------------- the balance


def norms(network, teacher, batch, loss, weight):
    """The gradient norms of the labels' loss and of the weighted divergence, one backward pass each."""
    found = []
    for name in ("segmentation", "kl"):
        network.zero_grad()
        Distillation(network, loss, Teacher(teacher), **kl(weight), **FIXED)(batch)[name].backward()
        found.append(sum(value.grad.square().sum().item() for value in network.parameters()) ** 0.5)
    network.zero_grad()
    return found


def test_the_scale_brings_the_gradient_down_to_that_of_the_labels(scenes, teacher, draw_batch, loss, caplog):
    batch = draw_batch([0, 1], size=(3, 4))
    task, teaching = norms(scenes, teacher, batch, loss, 50.0)
    assert teaching > 2 * task
    plain = Distillation(scenes, loss, Teacher(teacher), **kl(50.0), **FIXED)(batch)
    for limit in (1.0, 0.25):
        algorithm = Distillation(scenes, loss, Teacher(teacher), **kl(50.0), limit=limit)
        with caplog.at_level(logging.INFO, "hardy"):
            terms = algorithm(batch)
        assert algorithm.scale.item() == pytest.approx(limit * task / teaching, rel=1e-5)
        assert terms["kl"].item() == pytest.approx(algorithm.scale.item() * plain["kl"].item(), rel=1e-5)
        assert terms["segmentation"].item() == plain["segmentation"].item()
        assert f"step 1: distillation is scaled by {algorithm.scale.item():.4g} (gradient norms: labels" in caplog.text
    small = Distillation(scenes, loss, Teacher(teacher), **kl(50.0 * task / teaching / 3))
    small(batch)
    assert small.scale.item() == 1, "it is never enlarged"


def test_it_is_measured_now_and_then_and_smoothed_by_half(scenes, teacher, draw_batch, loss):
    algorithm = Distillation(scenes, loss, Teacher(teacher), **kl(50.0), balance_every=2).train()
    first, other = (draw_batch([0, 1], seed, size=(3, 4)) for seed in (0, 1))
    ratios = [task / teaching for task, teaching in (norms(scenes, teacher, b, loss, 50.0) for b in (first, other))]
    algorithm(first)
    algorithm(other)  # a second part of the same step
    assert algorithm.scale.item() == pytest.approx(ratios[0], rel=1e-5)
    algorithm.after_step(1)
    algorithm(other)
    assert algorithm.scale.item() == pytest.approx(ratios[0], rel=1e-5)
    algorithm.after_step(2)
    algorithm(other)
    assert algorithm.scale.item() == pytest.approx((ratios[0] + ratios[1]) / 2, rel=1e-5)
    algorithm.after_step(4)
    algorithm.eval()
    algorithm(first)
    assert algorithm.scale.item() == pytest.approx((ratios[0] + ratios[1]) / 2, rel=1e-5), "only training measures"


def test_it_is_measured_over_what_is_trained(scenes, teacher, draw_batch, loss):
    scenes.hidden.requires_grad_(False)
    batch = draw_batch([0, 1], size=(3, 4))
    algorithm = Distillation(scenes, loss, Teacher(teacher), **kl(50.0))
    algorithm(batch)
    plain = Distillation(scenes, loss, Teacher(teacher), **kl(50.0), **FIXED)
    sizes = []
    for name in ("segmentation", "kl"):
        found = torch.autograd.grad(plain(batch)[name], list(scenes.head.parameters()))
        sizes.append(sum(value.square().sum().item() for value in found) ** 0.5)
    assert algorithm.scale.item() == pytest.approx(sizes[0] / sizes[1], rel=1e-5)
    scenes.requires_grad_(False)
    frozen = Distillation(scenes, loss, Teacher(teacher), **kl(50.0))
    frozen(batch)
    assert (frozen.scale.item(), frozen.measured.item()) == (1, -1)


@pytest.mark.costly
@pytest.mark.slow
@pytest.mark.parametrize("losses", [{"overhaul": {"warm_up": 3}}, {"knowledge_adaptation": {"autoencoder_steps": 3}}])
def test_a_first_stage_in_which_nothing_is_taught_is_no_measurement(losses):
    torch.manual_seed(3)
    student, teacher = (hardy.create("tiny", "camvid11", width=width) for width in (8, 16))
    options = {name: {**given, "weight": 1e4} for name, given in losses.items()}
    algorithm = Distillation(student, CrossEntropy(11), Teacher(teacher), losses=options, limit=0.5).train()
    images = torch.rand(2, 3, 64, 96)
    batch = Batch(images, torch.randint(0, 11, (2, 64, 96)), torch.zeros(2, dtype=torch.long))
    for step in (1, 2, 3):
        terms = algorithm(batch)
        assert (algorithm.scale.item(), algorithm.measured.item()) == (1, -1)
        assert gradient_norm({name: value for name, value in terms.items() if name != "segmentation"}, student) == 0
        algorithm.after_step(step)
    terms = algorithm(batch)
    assert algorithm.measured.item() == 3
    assert 0 < algorithm.scale.item() < 1
    labels = {name: terms.pop(name) for name in list(terms) if "overhaul" not in name and "adaptation" not in name}
    assert gradient_norm(terms, student) == pytest.approx(0.5 * gradient_norm(labels, student), rel=1e-4)


def test_when_a_loss_begins_the_gradients_are_measured_again():
    torch.manual_seed(3)
    student, teacher = (hardy.create("tiny", "camvid11", width=width) for width in (8, 16))
    losses = {"kl": {"weight": 0.1}, "overhaul": {"warm_up": 2, "weight": 1e4}}
    algorithm = Distillation(student, CrossEntropy(11), Teacher(teacher), losses=losses).train()
    images = torch.rand(2, 3, 32, 32)
    batch = Batch(images, torch.randint(0, 11, (2, 32, 32)), torch.zeros(2, dtype=torch.long))
    for step, measured in ((1, 0), (2, 0), (3, 2)):
        terms = algorithm(batch)
        assert algorithm.measured.item() == measured, "not only every 50 steps"
        algorithm.after_step(step)
    taught = {name: terms.pop(name) for name in ("kl", "overhaul")}
    assert gradient_norm(taught, student) == pytest.approx(gradient_norm(terms, student), rel=1e-4)


@pytest.mark.slow
@pytest.mark.costly
def test_a_run_that_ends_in_the_first_stage_of_a_loss_is_refused():
    student, teacher = (hardy.create("tiny", "camvid11", width=width) for width in (8, 16))
    for losses, name, option in (
        ({"knowledge_adaptation": {"autoencoder_steps": 10}}, "knowledge_adaptation", "autoencoder_steps"),
        ({"kl": {}, "overhaul": {"warm_up": 10}}, "overhaul", "warm_up"),
    ):
        said = rf"^losses\.{name}: it does not train .* in its first 10 steps \({option}\), and the run has 10; train"
        with pytest.raises(InputError, match=said):
            Distillation(student, CrossEntropy(11), Teacher(teacher), 10, losses=losses)
        assert Distillation(student, CrossEntropy(11), Teacher(teacher), 11, losses=losses)
    with pytest.raises(
        InputError, match=r"knowledge_adaptation: .* 400 steps \(autoencoder_steps\), and the run has 60"
    ):
        ALGORITHMS.build(
            "distillation",
            {"network": student, "pixel_loss": CrossEntropy(11), "teacher": Teacher(teacher), "steps": 60},
            losses={"knowledge_adaptation": {}},
        )


def test_terms_that_do_not_reach_the_network_have_no_norm(scenes):
    free = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    assert gradient_norm({"aligner": free.sum()}, scenes) == 0
    assert gradient_norm({}, scenes) == 0
    assert gradient_norm({"bias": 3 * scenes.head.bias.sum()}, scenes) == pytest.approx(3 * 3**0.5, rel=1e-6)


@pytest.mark.parametrize("weight", [1e-6, 1.0, 1e5])
def test_half_precision_neither_overflows_nor_vanishes(scenes, weight):
    network = scenes.half()
    terms = {"bias": (network.head.bias * weight).sum()}
    assert gradient_norm(terms, network) == pytest.approx(weight * 3**0.5, rel=0.1)


def test_autocast_measures_nearly_the_same(teacher, scenes, draw_batch, loss):
    values = []
    for enabled in (False, True):
        network, other = copy.deepcopy(scenes).float(), copy.deepcopy(teacher).float()
        algorithm = Distillation(network, loss, Teacher(other), **kl(50.0))
        batch = draw_batch([0, 1], size=(3, 4))
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            algorithm(Batch(batch.images.float(), batch.labels, batch.domains))
        values.append(algorithm.scale.item())
    assert values[0] < 1
    assert values[1] == pytest.approx(values[0], rel=0.05)


# -------------------------------------------------------------------------------------------- images without labels


def test_images_without_labels_learn_from_the_teacher_alone(scenes, teacher, draw_batch, loss):
    known = draw_batch([0, 1], size=(3, 4))
    more = draw_batch([0, 0], seed=4, size=(3, 4))
    nothing = torch.full_like(more.labels, 255)
    batch = Batch(*(torch.cat(pair) for pair in zip(
        (known.images, known.labels, known.domains), (more.images, nothing, torch.tensor([-1, -1])), strict=True
    )))  # fmt: skip
    algorithm = Distillation(scenes, loss, Teacher(teacher), **kl(), **FIXED)
    terms = algorithm(batch)
    assert terms["segmentation"].item() == pytest.approx(algorithm(known)["segmentation"].item(), rel=1e-12)
    counted = torch.cat([known.labels != 255, nothing == 255])
    taught, said = (net(batch.images).movedim(1, -1)[counted] for net in (teacher, scenes))
    wanted = F.kl_div(F.log_softmax(said, 1), F.softmax(taught, 1), reduction="none").sum(1).mean()
    assert terms["kl"].item() == pytest.approx(3 * wanted.item(), rel=1e-11)
    balanced = Distillation(scenes, loss, Teacher(teacher), **kl(50.0))
    alone = batch.where(batch.domains < 0)
    assert list(balanced(alone)) == ["kl"]
    assert balanced.measured.item() == -1, "there is nothing to compare with; the next part is measured"
    balanced(known)
    assert balanced.measured.item() == 0
    assert balanced.scale.item() < 1


# ----------------------------------------------------------------------------------------------------- training


def batches(start, rank, processes):
    for step in count(start):
        generator = torch.Generator().manual_seed(step)
        images = torch.rand(4, 3, 8, 8, generator=generator)
        yield Batch(images, images.argmax(1), torch.zeros(4, dtype=torch.long))


def fit(folder=None, seed=0, accumulate=1, **options):
    space = hardy.create("tiny", "camvid11", width=8).label_space
    torch.manual_seed(seed)

    def built():
        layers = torch.nn.Conv2d(3, 6, 3, padding=1), torch.nn.BatchNorm2d(6), torch.nn.Conv2d(6, 11, 1)
        return hardy.wrap(torch.nn.Sequential(*layers), space).train()

    with torch.random.fork_rng():
        torch.manual_seed(5)
        teacher = built()
    algorithm = Distillation(built(), CrossEntropy(11), Teacher(teacher), **{**kl(), **options})
    optim = Optim(name="adam", steps=4, lr=1e-2, accumulate=accumulate)
    return Fit(algorithm, batches, optim, RunSection(device="cpu"), folder=folder), teacher


@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_leaves_the_teacher_and_a_resumed_run_has_the_same_bits(tmp_path, accumulate):
    options = {"accumulate": accumulate, "balance_every": 3, **kl(500.0)}
    whole, teacher = fit(**options)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    whole.run()
    kept = whole.algorithm.teacher.network
    for state in (teacher.state_dict(), kept.state_dict()):
        assert all(torch.equal(value, before[name]) for name, value in state.items())
    assert not kept.training
    own = {"scale", "steps", "measured"}
    assert {name for name in whole.algorithm.state_dict() if not name.startswith("network.")} == own
    assert 0 < whole.algorithm.scale.item() < 1
    assert whole.algorithm.measured.item() == 3
    learnt = {id(p) for group in whole.optimiser.optimizer.param_groups for p in group["params"]}
    assert learnt == {id(parameter) for parameter in whole.algorithm.network.parameters()}
    first, _ = fit(tmp_path, **options)
    first.run(2)
    first.save()
    second, _ = fit(tmp_path, seed=7, **options)
    assert second.resume()
    second.run()
    wanted = whole.algorithm.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in second.algorithm.state_dict().items())


def test_it_draws_the_network_to_its_teacher():
    """With weight on the divergence alone, training lowers it."""
    loop, _ = fit(**FIXED)
    loop.algorithm.pixel_loss = lambda logits, labels: 0.0 * logits.sum()
    batch = next(batches(99, 0, 1))
    start = loop.algorithm(batch)["kl"].item()
    loop.run()
    assert loop.algorithm(batch)["kl"].item() < 0.9 * start


# ------------------------------------------------------------------------------------------------ bad input


def test_what_a_constructor_names_before_the_star_is_known_without_an_import(scenes, loss, tmp_path, monkeypatch):
    assert ALGORITHMS.describe("distillation").supplied == ("network", "pixel_loss", "teacher", "steps")
    assert ALGORITHMS.describe("erm").supplied == ("network", "pixel_loss")
    text = (
        "from hardy.algorithms.erm import ERM\n\n\n"
        "class Asks(ERM):\n    def __init__(self, network, pixel_loss, oracle):\n        pass\n"
    )
    (tmp_path / "asking.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        InputError, match=r"'asking:Asks': its constructor has the argument 'oracle'; .* can be: network, label_space"
    ):
        ALGORITHMS.build("asking:Asks", {"network": scenes, "pixel_loss": loss, "teacher": scenes})


def test_what_cannot_be_is_refused(scenes, pictures, teacher, loss):
    for options, said in (
        (kl(temperature=0.0), r"temperature: 0\.0 is out of range; it must be above 0"),
        (kl(-1.0), r"KL.weight: -1.0 is out of range"),
        ({"limit": 0.0}, r"Distillation.limit: 0\.0 is out of range; it must be above 0"),
        ({"balance_every": 0}, r"Distillation.balance_every: 0 is out of range"),
    ):
        with pytest.raises(InputError, match=said):
            Distillation(scenes, loss, Teacher(teacher), **options)
    with pytest.raises(InputError, match="it predicts image-level classes, but the network predicts masks; both"):
        Distillation(scenes, loss, Teacher(pictures))
    supply = {"network": scenes, "pixel_loss": loss, "steps": 10}
    with pytest.raises(InputError, match=r"distillation needs 'teacher', which is missing: .* teacher: {run"):
        ALGORITHMS.build("distillation", supply)
    with pytest.raises(InputError, match=r"there is no distillation 'kll'; did you mean 'kl'\?"):
        ALGORITHMS.build("distillation", {**supply, "teacher": Teacher(teacher)}, losses={"kll": {}})
    built = ALGORITHMS.build("distillation", {**supply, "teacher": Teacher(teacher)}, limit=2.0)
    assert built.limit == 2.0
