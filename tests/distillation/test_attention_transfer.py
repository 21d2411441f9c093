"""Attention transfer: values by hand, the paper's equation, its invariances, and torchdistill."""

import pytest
import torch
from distilled import Given, draw, features
from torch.nn import functional as F

from hardy.distillation.attention_transfer import AttentionTransfer


def test_values_by_hand() -> None:
    """q is (3, 4) and (1, 0): a is (.6, .8) and (1, 0), so .16 + .64 over two positions; the cosine is .6."""
    student = torch.tensor([3.0, 4.0]).double().sqrt().view(1, 1, 1, 2)
    teacher = torch.tensor([1.0, 0.0]).double().view(1, 1, 1, 2)
    given = features((student, teacher))
    assert AttentionTransfer(Given((1, 1)))(given).item() == pytest.approx(0.4, rel=1e-12)
    assert AttentionTransfer(Given((1, 1)), reduction="sum")(given).item() == pytest.approx(0.8, rel=1e-12)
    assert AttentionTransfer(Given((1, 1))).weight == 1e4


def test_it_is_that_of_torchdistill() -> None:
    from torchdistill.losses.mid_level import ATLoss

    pairs = [(draw(3, 4, 5, 6), draw(3, 8, 5, 6, seed=1)), (draw(3, 2, 3, 3, seed=2), draw(3, 5, 3, 3, seed=3))]
    names = {f"f{place}": {"io": "output", "path": f"f{place}"} for place in range(2)}
    oracle = ATLoss({name: {"student": where, "teacher": where} for name, where in names.items()})
    said, taught = ({f"f{place}": {"output": pair[side]} for place, pair in enumerate(pairs)} for side in (0, 1))
    torch.testing.assert_close(AttentionTransfer(Given((4, 8), (2, 5)))(features(*pairs)), oracle(said, taught))


def test_scale_sign_and_order_of_channels_change_nothing() -> None:
    loss, teacher = AttentionTransfer(Given((4, 4))), draw(2, 4, 3, 5)
    assert loss(features((-7 * teacher.roll(1, 1), teacher))).item() == pytest.approx(0, abs=1e-14)
    assert loss(features((teacher.roll(1, 3), teacher))).item() > 1e-3


def test_the_students_attention_is_resized() -> None:
    student, teacher = draw(2, 3, 4, 4), draw(2, 5, 8, 8, seed=1)
    q = F.interpolate(student.square().mean(1, keepdim=True), size=(8, 8), mode="bilinear", align_corners=False)
    said, taught = (F.normalize(each.flatten(1)) for each in (q, teacher.square().mean(1)))
    found = AttentionTransfer(Given((3, 5)))(features((student, teacher)))
    torch.testing.assert_close(found, (said - taught).square().mean())


def test_a_dead_map_stays_finite() -> None:
    student = torch.zeros(1, 2, 3, 3, requires_grad=True)
    AttentionTransfer(Given((2, 2)))(features((student, draw(1, 2, 3, 3).float()))).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
