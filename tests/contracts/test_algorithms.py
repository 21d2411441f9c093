"""What holds for every algorithm, on scenes and on pictures alike."""

import copy
from functools import cache

import pytest
import torch

import hardy
from hardy.algorithms.base import Algorithm
from hardy.engine.fit import Fit
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.networks.building.teacher import Teacher
from hardy.recipe import Optim, RunSection
from hardy.registry import ALGORITHMS, LOSSES
from hardy.seed import seed_all, seeded
from hardy.types import Batch

SIZE = (32, 48)
DOMAINS = (0, 0, 1, 1, 2, 2)
STEPS = 3


@pytest.fixture(params=ALGORITHMS.names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["scenes", "pictures"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


scenes_first = pytest.mark.parametrize(
    "kind", ["scenes", pytest.param("pictures", marks=pytest.mark.exhaustive)], indirect=True
)
"""For claims in which pictures differ from scenes by their network alone."""


@cache
def drawn(kind: str, seed: int = 0, *, encoder: bool = False) -> Network:
    """Drawn once: an algorithm is given a copy, and a `Teacher` makes its own."""
    with seeded(seed, "network"):
        if kind == "scenes" and encoder:
            return create("encoder_decoder", "camvid11", encoder="test_resnet", decoder="linear")
        if kind == "scenes":
            return create("tiny", "camvid11", width=8, aux=True)
        return create("classifier", "pacs7", encoder="test_resnet")


ARTEFACTS: dict[str, str] = {}
"""Options that name an artefact, by the option's name."""

NEED_ENCODER: set[tuple[str, str]] = set()
"""The algorithms and kinds that were found to need a network with an encoder."""


@pytest.fixture(autouse=True)
def artefacts(style_folder: str) -> None:
    ARTEFACTS["style"] = style_folder


def build(name: str, kind: str) -> Algorithm:
    """The algorithm with its defaults, and the artefacts that it has an option for."""
    if (name, kind) not in NEED_ENCODER:
        try:
            return built(name, kind)
        except InputError:
            NEED_ENCODER.add((name, kind))
    return built(name, kind, encoder=True)


def built(name: str, kind: str, *, encoder: bool = False) -> Algorithm:
    made, teacher = copy.deepcopy(drawn(kind, encoder=encoder)), drawn(kind, seed=1)
    options = {
        o.name: ARTEFACTS[o.name] for o in ALGORITHMS.describe(name).options if o.name in ARTEFACTS and o.type == "str"
    }
    seed_all(0, "algorithm")  # as a run does
    pixel_loss = LOSSES.build("cross_entropy", {"class_count": len(made.label_space)})
    supply = {"network": made, "pixel_loss": pixel_loss, "teacher": Teacher(teacher), "steps": STEPS}
    algorithm: Algorithm = ALGORITHMS.build(name, supply, **options)
    return algorithm.train()


def batch(kind: str, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(len(DOMAINS), 3, *SIZE, generator=generator)
    labels = torch.randint(0, 7, (len(DOMAINS), *(SIZE if kind == "scenes" else ())), generator=generator)
    if kind == "scenes":
        labels[:, :4] = 255
    return Batch(images / (1 + torch.tensor(DOMAINS).view(-1, 1, 1, 1)), labels, torch.tensor(DOMAINS))


def test_terms_are_finite_scalars_whose_gradient_reaches_the_network(name: str, kind: str) -> None:
    algorithm = build(name, kind)
    for step in range(STEPS):  # one may train parts of the network in turn
        terms = algorithm(batch(kind))
        assert terms
        for key, value in terms.items():
            assert isinstance(key, str)
            assert value.ndim == 0, key
            assert torch.isfinite(value), key
        torch.stack(list(terms.values())).sum().backward()
        algorithm.after_backward()
        algorithm.after_step(step + 1)
    learns = algorithm.network if algorithm.trains_network else algorithm
    frozen = () if algorithm.trains_network else set(algorithm.network.parameters())
    assert all(value.grad is None for value in frozen)
    trained = {key: value for key, value in learns.named_parameters() if value.requires_grad and value not in frozen}
    assert trained
    missed = [key for key, value in trained.items() if value.grad is None or not value.grad.isfinite().all()]
    assert not missed
    assert any(bool(value.grad.any()) for value in trained.values())


@scenes_first
def test_the_seed_of_a_step_decides_its_terms(name: str, kind: str) -> None:
    found = []
    for noise in (0, 1):
        algorithm = build(name, kind)
        torch.rand(noise)
        seed_all(0, "train", 0)
        found.append(algorithm(batch(kind)))
    assert list(found[0]) == list(found[1])
    assert all(torch.equal(value, found[1][key]) for key, value in found[0].items())


@scenes_first
def test_the_batch_stays_as_it_is(name: str, kind: str) -> None:
    given, same = batch(kind), batch(kind)
    build(name, kind)(given)
    assert torch.equal(given.images, same.images)
    assert torch.equal(given.labels, same.labels)
    assert torch.equal(given.domains, same.domains)


@scenes_first
def test_mixed_precision_gives_nearly_the_same_terms(name: str, kind: str) -> None:
    values = []
    for enabled in (False, True):
        algorithm = build(name, kind)
        seed_all(0, "train", 0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            terms = algorithm(batch(kind))
        values.append(sum(terms.values()).item())
    assert values[1] == pytest.approx(values[0], rel=0.05)


@pytest.mark.costly
def test_a_resumed_run_ends_with_the_same_bits(name: str, kind: str, tmp_path) -> None:
    def batches(start: int, rank: int, processes: int):
        step = start
        while True:
            yield batch(kind, step)
            step += 1

    def fit(folder):
        optim = Optim(name="adam", lr=1e-3, steps=STEPS, accumulate=1)
        return Fit(build(name, kind), batches, optim, RunSection(device="cpu"), folder=folder)

    whole = fit(None)
    whole.run()
    first = fit(tmp_path)
    first.run(2)
    first.save()
    second = fit(tmp_path)
    assert second.resume()
    second.run()
    wanted = whole.algorithm.state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in second.algorithm.state_dict().items())


def test_too_few_domains_are_refused_before_the_first_step(name: str, kind: str, town, tmp_path) -> None:
    algorithm = build(name, kind)
    least = algorithm.needs_domains
    algorithm.check(least, 64)
    if least < 2:
        return
    with pytest.raises(InputError, match=rf"data.sources names {least - 1}; name {least} or more"):
        algorithm.check(least - 1, 64)
    with pytest.raises(InputError, match=r"optim.batch"):
        algorithm.check(least, least - 1)
    with pytest.raises(InputError, match="compares domains"):
        algorithm(batch(kind).where(torch.tensor(DOMAINS) < least - 1))
    if kind == "scenes":
        data = {"sources": ["folder/day"], "datasets": {"folder": {"root": str(town)}}, "crop": [32, 48]}
        with pytest.raises(InputError, match=r"data.sources names 1"):
            hardy.train(
                hardy.create("tiny", classes=town, width=8),
                data=data,
                algorithm=name,
                steps=1,
                optim={"batch": 4},
                run={"workers": 0, "device": "cpu"},
                folder=tmp_path / "run",
            )
        assert not (tmp_path / "run").exists()
