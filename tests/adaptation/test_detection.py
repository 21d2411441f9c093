"""The distance by hand, and each way in which a batch votes."""

import pytest
import torch

from hardy.adaptation._detection import LEAST, Detection, distance, first_third
from hardy.ops.batch_statistics import install


def norms(count=1):
    return install(torch.nn.Sequential(*[torch.nn.BatchNorm2d(1) for _ in range(count)]))


def statistics(mean, var=1.0):
    return [torch.tensor([[float(mean)], [float(var)]])]


def test_the_distance_by_hand():
    assert distance(statistics(1, 4), statistics(1, 4)) == 0
    assert distance(statistics(0, 1), statistics(2, 1)) == 4  # (5 + 5) / 2 - 1
    assert distance(statistics(0, 1), statistics(0, 4)) == pytest.approx((1 / 4 + 4) / 2 - 1)
    both = [*statistics(0), *statistics(0)], [*statistics(2), *statistics(0)]
    assert distance(*both) == 2, "the mean over the norms"


def test_the_distance_is_the_symmetric_divergence_of_torch():
    one, two = torch.distributions.Normal(0.3, 2.0), torch.distributions.Normal(-1.0, 0.7)
    both = sum(torch.distributions.kl_divergence(*pair) for pair in ((one, two), (two, one)))
    assert distance(statistics(0.3, 4), statistics(-1, 0.49)) == pytest.approx(float(both), rel=1e-5)


def test_a_third_is_rounded_up():
    assert [len(first_third(norms(count))) for count in (1, 3, 4, 6, 7)] == [1, 1, 2, 2, 3]


def test_equal_batches_are_of_one_domain_and_others_of_one_that_takes_three_votes():
    detect = Detection(norms(), most=4)
    assert {detect(statistics(0)) for _ in range(LEAST + 1)} == {"detected/1"}
    assert [detect(statistics(9)) for _ in range(4)] == ["detected/1", "detected/1", "detected/2", "detected/2"]
    assert detect.prototypes.of("detected/1")["0"].tolist() == [[0.0], [1.0]], "votes do not move it"
    for _ in range(LEAST):
        detect(statistics(9))
    assert [detect(statistics(0)) for _ in range(3)] == ["detected/2", "detected/2", "detected/1"]


def test_votes_must_be_in_a_row():
    detect = Detection(norms(), most=4)
    for _ in range(LEAST + 1):
        detect(statistics(0))
    for _ in range(3):
        assert {detect(statistics(mean)) for mean in (9, 9, 0)} == {"detected/1"}


def test_the_band_is_three_deviations_wide():
    """Distances of 1 and 9 by turns have mean 5 and deviation 4, so the band ends at 17."""
    detect = Detection(norms(), most=2)
    detect(statistics(0))
    place = detect.prototypes.names.find("detected/1")
    detect.bands[place] = torch.tensor([float(LEAST), 5.0, 16.0])
    assert detect._limit(place) == 17.0
    away = {place: 17.0}
    assert detect._vote(place, away) == place
    assert detect._vote(place, {place: 17.1}) == -1
