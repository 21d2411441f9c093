"""What holds for every distillation loss, on scenes and, where it can be, on pictures."""

from collections.abc import Iterator, Sequence
from functools import cache

import pytest
import torch
from torch import Tensor

from hardy.algorithms.distillation import Distillation
from hardy.distillation import _matching
from hardy.distillation._terms import DistillationTerms
from hardy.distillation.base import DistillationLoss
from hardy.engine.fit import Fit
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.networks.building.teacher import Teacher
from hardy.networks.parts.stages import places_of
from hardy.recipe import Optim, RunSection
from hardy.registry import DISTILLATIONS, LOSSES
from hardy.seed import seed_all, seeded
from hardy.types import IGNORE, Batch, Stage, Terms

SIZE = (64, 96)


LOSSES_OF = {name: DISTILLATIONS.get(name) for name in DISTILLATIONS}
CASES = [(name, kind) for name, cls in LOSSES_OF.items() for kind in ("scenes", "pictures")[: 1 if cls.dense else 2]]


@pytest.fixture(scope="module", autouse=True)
def traced_once() -> Iterator[None]:
    """The networks here are of three forms, and each is traced once: half of the time of a loss of features."""
    known: dict[object, list[Stage]] = {}

    def places(network: Network, modules: Sequence[str] = ()) -> list[Stage]:
        form = (type(network), *(value.shape for value in network.parameters()), *modules)
        if form not in known:
            known[form] = places_of(network, modules)
        return known[form]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_matching, "places_of", places)
        yield


@pytest.fixture(params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture
def name(case: tuple[str, str]) -> str:
    return case[0]


@pytest.fixture
def kind(case: tuple[str, str]) -> str:
    return case[1]


def network(kind: str, width: int, seed: int) -> Network:
    with seeded(seed, "network"):
        if kind == "scenes":
            return create("tiny", "camvid11", width=width)
        return create("classifier", "pacs7", encoder="test_resnet")


@cache
def drawn_teacher(kind: str) -> Network:
    """A wider network, drawn once: a `Teacher` copies it."""
    return network(kind, 16, 1)


def build(name: str, kind: str) -> DistillationTerms:
    """The loss with its defaults between a network and a wider teacher, late in a run: past any first stage."""
    student, teacher = network(kind, 8, 0), drawn_teacher(kind)
    seed_all(0, "algorithm")  # as a run does
    built = DistillationTerms(student, Teacher(teacher), {name: {}}).train()
    built.after_step(10**6)
    return built


def batch(kind: str, seed: int = 0, count: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, *SIZE, generator=generator)
    labels = torch.randint(0, 7, (count, *(SIZE if kind == "scenes" else ())), generator=generator)
    if kind == "scenes":
        labels[:, :16] = IGNORE
    return Batch(images, labels, torch.zeros(count, dtype=torch.long))


def terms_of(built: DistillationTerms, given: Batch, unlabelled: Tensor | None = None) -> Terms:
    """The terms for a batch, as the algorithm ``distillation`` gets them."""
    loss = next(iter(built.losses.values()))
    assert isinstance(loss, DistillationLoss)
    student, teacher = built.matching.student, built.matching.teacher
    assert teacher is not None
    seed_all(0, "train", 0)
    with built.matching.recording() as recorded:
        outputs = student.outputs(given.images)
        with torch.no_grad():
            taught = teacher.outputs(given.images)
    return built(given.images, given.labels, outputs, taught, recorded, unlabelled)


def test_terms_are_finite_scalars_that_teach_the_student_alone(name: str, kind: str) -> None:
    built = build(name, kind)
    terms = terms_of(built, batch(kind))
    assert all(key.startswith(name) for key in terms)
    assert all(value.ndim == 0 and value.isfinite() and value.dtype == torch.float32 for value in terms.values())
    torch.stack(list(terms.values())).sum().backward()
    student, teacher = built.matching.student, built.matching.teacher
    assert teacher is not None
    assert all(value.grad is None for value in teacher.parameters())
    assert any(value.grad is not None and bool(value.grad.any()) for value in student.parameters())


def test_each_image_twice_has_the_same_value(name: str, kind: str) -> None:
    values = []
    for times in (1, 2):
        once = batch(kind)
        given = Batch(
            *(value.repeat(times, *(1,) * (value.ndim - 1)) for value in (once.images, once.labels, once.domains))
        )
        built = build(name, kind)
        built.matching.student.eval()
        values.append(sum(terms_of(built, given).values()))
    if LOSSES_OF[name].draws:
        assert values[0].item() / 4 < values[1].item() < 4 * values[0].item()
    else:
        torch.testing.assert_close(values[1], values[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [name for name, cls in LOSSES_OF.items() if cls.masks])
def test_only_positions_that_count_matter_where_it_says_so(name: str) -> None:
    found = []
    for noise in (0.0, 5.0):
        built, given = build(name, "scenes"), batch("scenes")
        student, teacher = built.matching.student, built.matching.teacher
        outputs, taught = student.outputs(given.images), teacher.outputs(given.images)
        row = torch.zeros_like(outputs.coarse)
        row[:, :, 0] = noise * torch.arange(row.shape[1]).view(1, -1, 1)  # the first cells lie in ignored pixels
        moved = type(outputs)(outputs.logits, outputs.features, outputs.extras, outputs.coarse + row, outputs.embedding)
        found.append(built(given.images, given.labels, moved, taught))
    assert all(torch.equal(value, found[1][key]) for key, value in found[0].items())


def test_images_without_labels_teach_or_are_left_out(name: str, kind: str) -> None:
    given = batch(kind)
    given.labels[:] = IGNORE
    terms = terms_of(build(name, kind), given, torch.ones(len(given), dtype=torch.bool))
    assert not terms if LOSSES_OF[name].needs_labels else terms
    assert all(value.isfinite() for value in terms.values())


def test_half_precision_stays_finite(name: str, kind: str) -> None:
    built = build(name, kind)
    with torch.autocast("cpu", torch.bfloat16):
        terms = terms_of(built, batch(kind))
    assert all(value.isfinite() and value.dtype == torch.float32 for value in terms.values())


@pytest.mark.costly
def test_a_resumed_run_ends_with_the_same_bits(name: str, kind: str, tmp_path) -> None:
    def batches(start: int, rank: int, processes: int):
        step = start
        while True:
            yield batch(kind, step, 2)
            step += 1

    def fit(folder) -> Fit:
        student, teacher = network(kind, 8, 0), network(kind, 16, 1)
        seed_all(0, "algorithm")
        loss = LOSSES.build("cross_entropy", {"class_count": len(student.label_space)})
        algorithm = Distillation(student, loss, Teacher(teacher), losses={name: {}}, balance_every=2)
        return Fit(algorithm, batches, Optim(name="adam", lr=1e-3, steps=3), RunSection(device="cpu"), folder=folder)

    unbroken = fit(None)
    unbroken.run()
    first = fit(tmp_path)
    first.run(2)
    first.save()
    second = fit(tmp_path)
    assert second.resume()
    second.run()
    wanted = unbroken.algorithm.state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in second.algorithm.state_dict().items())


@pytest.mark.parametrize("name", LOSSES_OF)
def test_a_negative_weight_is_refused(name: str) -> None:
    student, teacher = network("scenes", 8, 0), drawn_teacher("scenes")
    with pytest.raises(InputError, match=r"weight: -1.0 is out of range"):
        DistillationTerms(student, Teacher(teacher), {name: {"weight": -1.0}})


def test_the_table_names_its_taps(name: str, kind: str) -> None:
    rows = build(name, kind).table()
    assert {row[0] for row in rows} == {name}
    assert all(len(row) == 4 and all(row) for row in rows)


@pytest.mark.parametrize("name", [name for name, cls in LOSSES_OF.items() if cls.dense])
def test_a_loss_of_maps_is_refused_for_image_level_classes(name: str) -> None:
    with pytest.raises(InputError, match=rf"losses.{name}: it compares maps of logits, but Classifier predicts one"):
        build(name, "pictures")
