"""QSD: the attention written out, whose values are the student's, and where it is taken."""

import torch
from feature_pairs import Given, draw, given
from torch.nn import functional as F

from hardy.distillation import query_soft
from hardy.distillation.query_soft import QuerySoft


def built(student: int, teacher: int, **options: bool) -> QuerySoft:
    torch.manual_seed(0)
    return QuerySoft(Given(student, teacher), **options).double()


def by_hand(loss: QuerySoft, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """The error (n,) of each position of one image, from features (C, n), in loops."""
    count = student.shape[1]
    queries = [loss.queries[0](student[:, i]) for i in range(count)]
    values = [loss.values[0](student[:, i]) for i in range(count)]
    errors = []
    for i in range(count):
        weights = torch.stack([queries[i] @ teacher[:, j] for j in range(count)]).softmax(0)
        made = sum(weights[j] * values[j] for j in range(count))
        errors.append((made - teacher[:, i]).square().mean())
    return torch.stack(errors)


def test_it_is_attention_to_the_teacher_with_the_students_values() -> None:
    student, teacher = draw(2, 3, 2, 3), draw(2, 5, 2, 3, seed=1)
    loss = built(3, 5)
    found = loss.terms(given(student, teacher))
    wanted = torch.stack([by_hand(loss, *pair) for pair in zip(student.flatten(2), teacher.flatten(2), strict=True)])
    torch.testing.assert_close(found["positions"], wanted.mean())
    whole = loss.wholes[0](student.mean((2, 3)))
    torch.testing.assert_close(found["image"], F.mse_loss(whole, teacher.mean((2, 3))))
    torch.testing.assert_close(loss(given(student, teacher)), found["positions"] + found["image"])
    assert list(built(3, 5, image=False).terms(given(student, teacher))) == ["positions"]


def test_the_query_points_among_the_teachers_features_and_gets_the_students() -> None:
    """The teacher's four features are at right angles and long, so a query equal to one of them points at its place."""
    teacher = 50 * torch.eye(4, dtype=torch.float64).view(1, 4, 2, 2)
    loss = built(4, 4, image=False)
    loss.queries[0], loss.values[0] = torch.nn.Identity(), torch.nn.Identity()
    assert loss(given(teacher, teacher)).item() == 0
    assert loss(given(teacher + 1, teacher)).item() == 1  # the value is the student's
    rolled = teacher.flatten(2).roll(1, 2).view_as(teacher)  # each points at the place before it, which holds the next
    assert loss(given(rolled, teacher)).item() == 2 * 50**2 / 4


def test_masked_places_alone_count() -> None:
    student, teacher = draw(2, 3, 2, 2), draw(2, 4, 2, 2, seed=1)
    counted = torch.zeros(2, 6, 6, dtype=torch.bool)
    counted[0, 3:, :3] = True  # the third of four positions of the first image
    loss = built(3, 4, image=False, mask=True)
    found = loss(given(student, teacher, counted=counted))
    torch.testing.assert_close(found, by_hand(loss, student[0].flatten(1), teacher[0].flatten(1))[2])
    assert loss(given(student, teacher, counted=torch.zeros_like(counted))).item() == 0


def test_maps_of_other_sizes_meet_at_the_students_and_large_maps_are_averaged(monkeypatch) -> None:
    student, teacher = draw(1, 3, 2, 4), draw(1, 3, 4, 8, seed=1)
    smaller = F.interpolate(teacher, size=(2, 4), mode="bilinear")
    loss = built(3, 3, image=False)
    torch.testing.assert_close(loss(given(student, teacher)), loss(given(student, smaller)))
    monkeypatch.setattr(query_soft, "_MOST", 2)
    wanted = by_hand(loss, *(F.avg_pool2d(x, 2).flatten(2)[0] for x in (student, smaller)))
    torch.testing.assert_close(loss(given(student, teacher)), wanted.mean())
    assert loss.aligner(loss.pairs[0]) == "query and value, 3 to 3"
