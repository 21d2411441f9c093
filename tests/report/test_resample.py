"""Bootstrap intervals: values by hand, against scipy, and the limit cases."""

import math

import numpy as np
import pytest

from hardy.errors import InputError
from hardy.metrics import scores
from hardy.report.resample import block_sums, bootstrap, images, resampled, score

TWO = ("road", "wall")


def one_pixel(hits, domain="d", names=None):
    """Images of one labelled pixel each, of class 0, that is predicted right where ``hits`` is 1."""
    matrices = np.zeros((len(hits), 2, 2), np.int64)
    for place, hit in enumerate(hits):
        matrices[place, 0, 1 - int(hit)] = 1
    return {domain: images(names or [f"f{place}" for place in range(len(hits))], matrices)}


def drawn(seed, count=12, classes=3):
    """Invented counts."""
    draws = np.random.default_rng(seed)
    return [f"i{place}" for place in range(count)], draws.integers(0, 50, (count, classes, classes))


def test_sums_and_scores_by_hand():
    """Two images of two classes; 4 pixels of class 1 were predicted as something outside the classes."""
    matrices = np.array([[[5, 1], [2, 3]], [[1, 0], [0, 0]]])
    found = images(["b", "a"], matrices, np.array([[0, 4], [0, 0]]))
    assert found.names == ("a", "b")
    assert found.sums[1].tolist() == [[5, 3], [6, 9], [7, 4]]  # right, labelled, predicted
    total = found.sums.sum(axis=0)
    road, wall = 6 / (7 + 8 - 6), 3 / (9 + 4 - 3)
    assert score("iou/road", TWO)(total) == pytest.approx(road, abs=1e-15)
    assert score("miou", TWO)(total) == pytest.approx((road + wall) / 2, abs=1e-15)
    assert score("accuracy", TWO)(total) == score("pixel_accuracy", TWO)(total) == pytest.approx(9 / 16, abs=1e-15)


def test_scores_are_those_of_a_data_set():
    """The mean IoU of the sums, not the mean over images; classes that do not occur are left out."""
    import torch

    names, matrices = drawn(0)
    matrices[:, 2, :] = matrices[:, :, 2] = 0
    total = images(names, matrices).sums.sum(axis=0)
    wanted = scores(torch.from_numpy(matrices.sum(axis=0)))
    assert score("miou", "abc")(total) == pytest.approx(wanted.miou, abs=1e-15)
    assert score("accuracy", "abc")(total) == pytest.approx(wanted.pixel_accuracy, abs=1e-15)
    assert math.isnan(score("iou/c", "abc")(total))


def test_frames_are_sorted_by_their_numbers():
    names = ["f10", "f9", "e11", "f1b2", "f1b10"]
    assert images(names, np.zeros((5, 2, 2), int)).names == ("e11", "f1b2", "f1b10", "f9", "f10")


def test_blocks_by_hand():
    sums = np.arange(5.0).reshape(5, 1, 1) * np.ones((5, 3, 2))
    assert block_sums(sums, 2)[:, 0, 0].tolist() == [0 + 1, 2 + 3, 4]
    assert np.array_equal(block_sums(sums, 1), sums)


def test_two_images_have_three_resamples():
    """Both, or one of them twice: accuracy 1/2, 0 and 1 with probabilities 1/2, 1/4 and 1/4."""
    taken = score("accuracy", TWO)
    found = resampled([one_pixel([1, 0])["d"].sums], taken, np.random.default_rng(0), 40_000)[0]
    assert set(found.tolist()) == {0.0, 0.5, 1.0}
    spread = math.sqrt(0.25 * 0.75 / 40_000)
    assert abs((found == 1).mean() - 0.25) < 4 * spread
    assert abs((found == 0).mean() - 0.25) < 4 * spread


def test_of_a_plain_mean_it_is_scipys_to_the_last_digit():
    """The accuracy of images of one pixel is a plain mean; scipy is given the same draws."""
    from scipy import stats

    hits = (np.random.default_rng(3).random(40) < 0.7).astype(int)
    scipys = stats.bootstrap(
        (hits,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(7), vectorized=True
    )
    sums = one_pixel(hits)["d"].sums
    ours = resampled([sums], score("accuracy", TWO), np.random.default_rng(7), 2000)[0]
    assert ours == pytest.approx(scipys.bootstrap_distribution, abs=1e-14)
    low, high = np.quantile(ours, [0.025, 0.975])
    assert (low, high) == pytest.approx(tuple(scipys.confidence_interval), abs=1e-14)


def test_of_a_ratio_it_agrees_with_scipy():
    """A difference of two IoUs, each a ratio of sums, paired: scipy's own draws, so equal within their noise."""
    from scipy import stats

    names, first = drawn(1, 60, 2)
    second = drawn(2, 60, 2)[1]

    def iou(hits, labelled, predicted, axis=-1):
        top = hits.sum(axis=axis)
        return top / (labelled.sum(axis=axis) + predicted.sum(axis=axis) - top)

    def difference(*columns, axis=-1):
        return iou(*columns[:3], axis=axis) - iou(*columns[3:], axis=axis)

    arm, control = images(names, first), images(names, second)
    columns = [one.sums[:, row, 0] for one in (arm, control) for row in range(3)]
    scipys = stats.bootstrap(
        columns, difference, paired=True, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0)
    )
    ours = bootstrap([({"d": arm}, {"d": control})], score("iou/road", TWO), resamples=20_000)
    width = scipys.confidence_interval.high - scipys.confidence_interval.low
    assert ours.gain == pytest.approx(difference(*columns), abs=1e-15)
    assert ours.low == pytest.approx(scipys.confidence_interval.low, abs=0.03 * width)
    assert ours.high == pytest.approx(scipys.confidence_interval.high, abs=0.03 * width)


def test_equal_arms_differ_by_exactly_nothing():
    names, matrices = drawn(4)
    side = {"d": images(names, matrices), "e": images(names, matrices[::-1])}
    other = {"d": images(names, matrices), "e": images(names, matrices[::-1])}
    found = bootstrap([(side, other)] * 2, score("miou", "abc"), resamples=500)
    assert (found.gain, found.low, found.high) == (0.0, 0.0, 0.0)


def test_both_sides_are_given_the_same_draws():
    """An arm that is right on one more image of every ten is 0.1 better in every resample of equal images."""
    control = np.zeros((50, 2, 2), np.int64)
    control[:, 0, 0], control[:, 0, 1] = 5, 5
    arm = control.copy()
    arm[:, 0, 0], arm[:, 0, 1] = 6, 4
    names = [f"f{place}" for place in range(50)]
    found = bootstrap([({"d": images(names, arm)}, {"d": images(names, control)})], score("accuracy", TWO))
    assert (found.low, found.gain, found.high) == pytest.approx((0.1, 0.1, 0.1), abs=1e-15)


def test_frames_that_are_alike_within_a_block_give_the_wider_interval():
    """Ten blocks of 20 equal frames say as much as ten images; as 200 images they would give a narrower interval."""
    blocks = np.array([1, 1, 0, 1, 0, 0, 1, 1, 0, 1])
    frames = one_pixel(np.repeat(blocks, 20))
    none = one_pixel(np.zeros(200))
    taken = score("accuracy", TWO)
    alone = bootstrap([(frames, none)], taken)
    in_blocks = bootstrap([(frames, none)], taken, lengths={"d": 20})
    ten = bootstrap([(one_pixel(blocks), one_pixel(np.zeros(10)))], taken)
    assert alone.gain == in_blocks.gain == ten.gain == pytest.approx(0.6, abs=1e-15)
    assert (in_blocks.low, in_blocks.high) == (ten.low, ten.high) == pytest.approx((0.3, 0.9), abs=1e-15)
    assert (alone.low, alone.high) == pytest.approx((0.6 - 1.96 * math.sqrt(0.24 / 200), 0.668), abs=0.006)
    assert (in_blocks.blocks, alone.blocks) == ({"d": 10}, {"d": 200})


def test_the_same_seed_gives_the_same_interval_whatever_else_is_compared(monkeypatch):
    names, matrices = drawn(5, 30)
    first, second = {"d": images(names, matrices)}, {"d": images(names, drawn(6, 30)[1])}
    third = {"d": images([f"x{name}" for name in names], drawn(7, 30)[1])}
    taken = score("miou", "abc")

    def interval(*pairs, seed=0):
        found = bootstrap(pairs, taken, resamples=300, seed=seed)
        return found.low, found.high

    assert interval((first, second)) == interval((first, second))
    assert interval((first, second)) != interval((first, second), seed=1)
    backwards = {"d": images(names[::-1], matrices[::-1])}
    assert interval((first, second)) == interval((backwards, second)), "the order of the images changes nothing"
    whole = interval((first, second), (third, third))
    assert whole == pytest.approx([value / 2 for value in interval((first, second))], abs=1e-15)
    monkeypatch.setattr("hardy.report.resample.ROOM", 1)
    assert interval((first, second), (third, third)) == whole, "nor does how many are drawn at a time"


def test_domains_count_alike_and_the_worst_is_of_each_resample():
    near, far = one_pixel([1, 1, 1, 0], "near"), one_pixel([1, 0, 0, 0, 0, 0, 0, 0], "far")
    zero = {**one_pixel(np.zeros(4), "near"), **one_pixel(np.zeros(8), "far")}
    taken = score("accuracy", TWO)
    gains = {
        over: bootstrap([({**near, **far}, zero)], taken, over=over, resamples=100).gain
        for over in ("mean", "worst", "images")
    }
    assert gains == pytest.approx({"mean": (3 / 4 + 1 / 8) / 2, "worst": 1 / 8, "images": 4 / 12}, abs=1e-15)
    assert bootstrap([({**near, **far}, zero)], taken, over="worst").high <= 0.75


def test_a_domain_of_one_block_has_no_interval():
    found = bootstrap([(one_pixel([1, 0, 1]), one_pixel([0, 0, 0]))], score("accuracy", TWO), lengths={"d": 20})
    assert found.gain == pytest.approx(2 / 3, abs=1e-15)
    assert not found.known
    assert math.isnan(found.high)


def test_resamples_without_a_score_are_left_out_and_counted():
    """Of two images one has no labelled pixel: a quarter of the resamples draw that one twice."""
    matrices = np.zeros((2, 2, 2), np.int64)
    matrices[0, 0, 0] = 1
    arm, control = {"d": images("ab", matrices)}, {"d": images("ab", matrices[:, ::-1])}
    found = bootstrap([(arm, control)], score("accuracy", TWO), resamples=4000)
    assert found.undefined == pytest.approx(0.25, abs=4 * math.sqrt(0.1875 / 4000))
    assert (found.low, found.high) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([], "there is no pair"),
        (
            [(one_pixel([1, 0]), one_pixel([1, 0, 0]))],
            "d: the two networks of a pair were measured on different images",
        ),
        ([(one_pixel([1]), one_pixel([1], "e"))], "measured on d and on e"),
        ([({}, {})], "measured on nothing and on nothing"),
        ([(one_pixel([]), one_pixel([]))], "d: it has no counts of images"),
    ],
)
def test_what_cannot_be_paired_is_refused(pairs, said):
    with pytest.raises(InputError, match=said):
        bootstrap(pairs, score("accuracy", TWO), resamples=100)


def test_an_unknown_metric_names_the_nearest():
    with pytest.raises(InputError, match=r"'iou/rood': it cannot be computed from counts; did you mean 'iou/road'\?"):
        score("iou/rood", TWO)
