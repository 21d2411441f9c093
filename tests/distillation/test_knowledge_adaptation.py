"""Knowledge adaptation: its two stages, the terms against torchdistill and by hand, and a resume between the stages."""

from pathlib import Path

import pytest
import torch
from feature_pairs import Given, draw, given
from torch.nn import functional as F

from hardy.algorithms.distillation import Distillation
from hardy.distillation.base import PairedOutputs
from hardy.distillation.knowledge_adaptation import KnowledgeAdaptation, _distance
from hardy.engine.fit import Fit
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.networks.building.teacher import Teacher
from hardy.recipe import Optim, RunSection
from hardy.registry import LOSSES
from hardy.seed import seed_all, seeded
from hardy.types import Batch

OWN = ("encoder", "decoder")


def built(**options: object) -> KnowledgeAdaptation:
    torch.manual_seed(0)
    return KnowledgeAdaptation(Given(3, 6), **{"autoencoder_steps": 2, **options}).train()


def maps(seed: int = 0) -> PairedOutputs:
    student = draw(2, 3, 5, 4, seed=seed).float().requires_grad_()
    return given(student, 40 * draw(2, 6, 5, 4, seed=seed + 1).float())


def state(loss: KnowledgeAdaptation) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in loss.state_dict().items()}


@pytest.mark.slow
def test_stage_one_trains_the_auto_encoder_alone() -> None:
    loss = built(autoencoder_steps=100)
    outputs = maps()
    teacher = outputs.teacher_features["taught0"]

    def error() -> float:
        with torch.no_grad():
            return float((loss.decoder(loss.encoder(teacher / loss.scale)) - teacher / loss.scale).square().mean())

    before = state(loss)
    terms = loss.terms(outputs)
    assert {name: value.item() for name, value in terms.items()} == {"adaptation": 0, "affinity": 0}
    torch.stack(list(terms.values())).sum().backward()
    assert outputs.student_features["own0"].grad is None
    changed = {name for name, value in loss.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in changed} == {*OWN, "scale"}
    start = error()
    for _ in range(60):
        loss(outputs)
    assert error() < start / 2
    own = {id(p) for group in loss.optimisers()["autoencoder"].param_groups for p in group["params"]}
    assert own == {id(p) for name, p in loss.named_parameters() if name.split(".")[0] in OWN}
    rested = state(loss)
    loss.eval()(outputs)
    assert all(torch.equal(value, rested[name]) for name, value in loss.state_dict().items())


def test_stage_two_leaves_the_auto_encoder_and_compares_by_the_papers_terms() -> None:
    loss = built()
    for step in (1, 2):
        loss(maps(step))
        loss.after_step(step)
    before = state(loss)
    outputs = maps(7)
    found = loss.terms(outputs)
    torch.stack(list(found.values())).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items() if name.startswith(OWN))
    assert all(p.grad is None for name, p in loss.named_parameters() if name.startswith(OWN))
    assert all(p.grad is not None for name, p in loss.named_parameters() if not name.startswith(OWN))
    student, teacher = outputs.student_features["own0"], outputs.teacher_features["taught0"]
    compact = loss.encoder.eval()(teacher / loss.scale)
    adapted, related = loss.feature_adapter(student), loss.affinity_adapter(student)
    assert compact.shape == adapted.shape == related.shape == (2, 3, 5, 4)
    torch.testing.assert_close(found["adaptation"], 50 * _distance(adapted, compact))
    total = 0.0
    for own, taught in zip(related.flatten(2), compact.flatten(2), strict=True):
        cosines = [F.cosine_similarity(x[:, :, None], x[:, None], dim=0) for x in (own, taught)]
        total += float((cosines[0] - cosines[1]).detach().square().sum()) / 20**2
    assert found["affinity"].item() == pytest.approx(total / 2, rel=1e-5)


def test_the_adaptation_is_that_of_torchdistill() -> None:
    from torchdistill.losses.mid_level import KTALoss  # an import of seconds

    student, teacher = draw(3, 4, 5, 6), draw(3, 4, 5, 6, seed=1)
    oracle = KTALoss(p=1, q=2, knowledge_translator_path="e", feature_adapter_path="a")
    wanted = oracle({"a": {"output": student}}, {"e": {"output": teacher}})
    torch.testing.assert_close(_distance(student, teacher), wanted)


def test_strided_convolutions_and_maps_of_other_sizes_fit() -> None:
    loss = built(stride=2, autoencoder_steps=1)
    teacher = draw(2, 6, 17, 24).float()
    assert loss.encoder(teacher).shape[-2:] == (3, 3)
    assert loss.decoder(loss.encoder(teacher)).shape[-2:] == (24, 24)
    outputs = given(draw(2, 3, 9, 12).float(), teacher)
    assert loss(outputs).item() == 0
    loss.after_step(1)
    assert loss(outputs).isfinite()
    assert loss(outputs).item() > 0


@pytest.mark.costly
@pytest.mark.slow
@pytest.mark.parametrize("stopped", [1, 3])
def test_a_run_resumed_in_either_stage_ends_with_the_same_bits(stopped: int, tmp_path: Path) -> None:
    def network(width: int) -> Network:
        with seeded(0, "network"):
            return create("tiny", "camvid11", width=width)

    def batches(start: int, rank: int, processes: int):
        while True:
            generator = torch.Generator().manual_seed(start)
            images = torch.rand(2, 3, 32, 32, generator=generator)
            yield Batch(images, torch.randint(0, 11, (2, 32, 32), generator=generator), torch.zeros(2).long())
            start += 1

    def fit(folder: Path | None) -> Fit:
        seed_all(0, "algorithm")
        losses = {"knowledge_adaptation": {"autoencoder_steps": 2}}
        pixel_loss = LOSSES.build("cross_entropy", {"class_count": 11})
        algorithm = Distillation(network(8), pixel_loss, Teacher(network(16)), losses=losses)
        return Fit(algorithm, batches, Optim(name="sgd", lr=0.01, steps=4), RunSection(device="cpu"), folder=folder)

    unbroken = fit(None)
    unbroken.run()
    first = fit(tmp_path)
    first.run(stopped)
    first.save()
    second = fit(tmp_path)
    assert second.resume()
    second.run()
    wanted = unbroken.algorithm.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in second.algorithm.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"autoencoder_steps": -1}, r"KnowledgeAdaptation.autoencoder_steps: -1 is out of range"),
        ({"autoencoder_lr": 0.0}, r"KnowledgeAdaptation.autoencoder_lr: 0.0 is out of range"),
        ({"stride": 3}, r"KnowledgeAdaptation.stride: 3 is out of range"),
        ({"affinity_weight": -1.0}, r"KnowledgeAdaptation.affinity_weight: -1.0 is out of range"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        built(**options)
    with pytest.raises(InputError, match=r"KnowledgeAdaptation.taps: 2 pairs; name one"):
        KnowledgeAdaptation(Given(3, 6, pairs=2))
