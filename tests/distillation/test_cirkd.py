"""CIRKD: relations across images in loops, and a memory that holds what it says."""

import pytest
import torch
from feature_pairs import Given, draw, given, turned
from torch.nn import functional as F

from hardy.distillation._memory import Memory
from hardy.distillation.cirkd import CIRKD
from hardy.errors import InputError
from hardy.types import IGNORE

OFF = {"pixel_weight": 0.0, "region_weight": 0.0}


def built(**options: float) -> CIRKD:
    torch.manual_seed(0)
    return CIRKD(Given(3, 4), 3, **{"pixel_memory": 50, "region_memory": 5, **options}).train()


def kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 0.1) -> torch.Tensor:
    p, q = (teacher / temperature).softmax(-1), (student / temperature).softmax(-1)
    return (p * (p / q).log()).sum(-1)


def test_the_batch_part_compares_all_pairs_of_images() -> None:
    student, teacher = draw(3, 3, 2, 4), draw(3, 5, 2, 4, seed=1)
    wanted = 0.0
    own, taught = (F.normalize(x.flatten(2), dim=1) for x in (student, teacher))
    for i in range(3):
        for j in range(3):
            wanted += float(kl(own[i].T @ own[j], taught[i].T @ taught[j]).mean()) / 9
    loss = CIRKD(Given(3, 5), 3, **OFF)
    found = loss.terms(given(student, teacher))
    assert list(found) == ["batch"]
    assert found["batch"].item() == pytest.approx(wanted, rel=1e-9)
    assert loss(given(turned(teacher), teacher)).item() == pytest.approx(0, abs=1e-12)  # only cosines matter
    assert loss.aligner(loss.pairs[0]) == "none"
    assert not list(loss.parameters())


def test_large_maps_are_averaged_and_the_teachers_is_resized() -> None:
    student, teacher = draw(2, 3, 6, 7), draw(2, 3, 12, 14, seed=1)
    smaller = F.interpolate(teacher, size=(6, 7), mode="bilinear")
    wanted = [F.avg_pool2d(x, 2, ceil_mode=True) for x in (student, smaller)]
    found = CIRKD(Given(3, 3), 3, most_nodes=12, **OFF)(given(student, teacher))
    torch.testing.assert_close(found, CIRKD(Given(3, 3), 3, **OFF)(given(*wanted)))


def test_a_memory_keeps_the_last_of_each_class_and_draws_only_those() -> None:
    memory = Memory(3, 4, 2)
    assert memory.drawn(9).shape == (0, 2)
    values = torch.arange(20.0).view(10, 2)
    memory.write(values[:3], [0, 2, 0])
    assert sorted(memory.drawn(9)[:, 0].tolist()) == [0, 2, 4]
    memory.write(values[3:], [0] * 7)  # nine of class 0 for four places
    assert memory.written.tolist() == [9, 0, 1]
    assert sorted(memory.drawn(99)[:, 0].tolist()) == [2, 12, 14, 16, 18]
    assert memory.drawn(3).shape == (2, 2)  # one of each class that was seen
    memory.write(values[:0], [])
    assert memory.written.tolist() == [9, 0, 1]


def test_the_usual_memory_is_of_the_documented_size() -> None:
    loss = CIRKD(Given(3, 288), 19)
    assert loss.pixels is not None
    assert loss.regions is not None
    held = sum(memory.entries.numel() * memory.entries.element_size() for memory in (loss.pixels, loss.regions))
    assert held == 2 * 19 * 288 * (2000 + 500)
    assert held < 28e6


def labelled() -> tuple[torch.Tensor, torch.Tensor]:
    """A teacher's map whose pixels of class c have the c-th unit vector, and the labels (2, 8, 8)."""
    labels = torch.zeros(2, 8, 8, dtype=torch.int64)
    labels[:, 2:4], labels[0, 4:], labels[1, 4:] = 1, 2, IGNORE
    teacher = F.one_hot(labels.clamp_max(3), 4).permute(0, 3, 1, 2).float()
    return 5 * teacher, labels


def test_the_memory_holds_the_pixels_and_regions_of_each_class() -> None:
    teacher, labels = labelled()
    loss = built()
    loss(given(draw(2, 3, 8, 8).float(), teacher, labels))
    assert loss.pixels.written.tolist() == [32, 32, 16]  # up to 16 of each class of each image
    assert loss.regions.written.tolist() == [2, 2, 1]
    for memory in (loss.pixels, loss.regions):
        for label, count in enumerate(memory.written.tolist()):
            wanted = torch.zeros(4)
            wanted[label] = 1
            assert torch.equal(memory.entries[label, :count].float(), wanted.expand(count, 4))
    before = loss.pixels.written.clone()
    loss.eval()(given(draw(2, 3, 8, 8).float(), teacher, labels))
    assert torch.equal(loss.pixels.written, before)


def test_the_memory_parts_are_divergences_over_what_is_remembered() -> None:
    teacher, labels = labelled()
    loss = built()
    student = draw(2, 3, 8, 8).float().requires_grad_()
    terms = loss.terms(given(student, teacher, labels))
    counted = labels.flatten() != IGNORE
    own = F.normalize(loss.projector(student).flatten(2).mT.flatten(0, 1)[counted], dim=1)
    taught = F.normalize(teacher.flatten(2).mT.flatten(0, 1)[counted], dim=1)
    for name, counts in (("pixels", [32, 32, 16]), ("regions", [2, 2, 1])):
        known = torch.eye(4)[:3].repeat_interleave(torch.tensor(counts), 0)
        wanted = 0.1 * kl(own @ known.T, taught @ known.T).mean()
        torch.testing.assert_close(terms[name], wanted, rtol=1e-4, atol=1e-6)
    torch.stack(list(terms.values())).sum().backward()
    assert student.grad.any()
    assert all(parameter.grad is not None for parameter in loss.projector.parameters())


def test_images_without_labels_leave_the_memory_alone() -> None:
    teacher, labels = labelled()
    loss = built()
    terms = loss.terms(given(draw(2, 3, 8, 8).float(), teacher, torch.full_like(labels, IGNORE)))
    assert terms["batch"].item() > 0
    assert terms["pixels"].item() == terms["regions"].item() == 0
    assert not loss.pixels.written.any()


def test_draws_come_from_torchs_generator(monkeypatch) -> None:
    monkeypatch.setattr("hardy.distillation.cirkd._QUERIES", 10)
    values = []
    for seed in (0, 0, 1):
        loss, (teacher, labels) = built(), labelled()
        torch.manual_seed(seed)
        values.append(loss(given(draw(2, 3, 8, 8).float(), teacher, labels)).item())
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, r"CIRKD.temperature: 0.0 is out of range"),
        ({"pixel_weight": -1.0}, r"CIRKD.pixel_weight: -1.0 is out of range"),
        ({"region_memory": 0}, r"CIRKD.region_memory: 0 is out of range"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        built(**options)
    with pytest.raises(InputError, match=r"CIRKD.taps: 2 pairs; name one"):
        CIRKD(Given(3, 4, pairs=2), 3)
