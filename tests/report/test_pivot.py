"""Means, spreads and sign tests of a table, worked by hand."""

import math

import pytest

from hardy.records import Record
from hardy.report.pivot import beside, chosen, coordinates, duel, markdown, pivot, sign_test, spread


def record(value, target="unseen", metric="miou", **axes):
    return Record("0", "prune", (), target, 0, metric, value, notes={"of": "pruned", "axes": axes})


def test_the_number_of_a_cell_is_that_of_its_target_and_metric():
    records = [
        record(0.5, seed="0"),
        record(0.9, target="worst", seed="0"),
        record(0.7, metric="pixel_accuracy", seed="0"),
        record(None, seed="1"),
        record(0.6, metric="accuracy", seed="2"),
        record(12.0, "cost", "gmacs_after", seed="0"),
    ]
    at = [coordinates("pruned", {"seed": str(seed)}) for seed in range(3)]
    assert chosen(records, "unseen") == {at[0]: 0.5, at[2]: 0.6}
    assert chosen(records, "unseen", "pixel_accuracy") == {at[0]: 0.7}
    assert chosen(records, "cost", "gmacs_after") == {at[0]: 12.0}


@pytest.mark.parametrize(
    ("won", "lost", "p"),
    [
        (5, 0, 2 / 32),
        (0, 5, 2 / 32),
        (4, 1, 2 * (1 + 5) / 32),
        (8, 2, 2 * (1 + 10 + 45) / 1024),
        (3, 3, 1.0),
        (1, 0, 1.0),
        (0, 0, 1.0),
    ],
)
def test_the_sign_test_counts_the_two_tails_of_a_fair_coin(won, lost, p):
    assert sign_test(won, lost) == pytest.approx(p, abs=1e-15)


def test_the_sign_test_stays_finite_for_many_pairs():
    assert 0 < sign_test(700, 500) < 1e-7
    assert sign_test(1050, 0) == 2.0**-1049


def test_spread_is_the_sample_standard_deviation():
    assert spread([0.1, 0.3], 2) == f"20.0 ± {100 * math.sqrt(0.02):.1f}"
    assert spread([0.1], 1) == "10.0"
    assert spread([1234.5, 1234.5], 3, percent=False) == "1234 ± 0 (2/3)"
    assert spread([350000.4, 349999.6], 2, percent=False) == "350,000 ± 1"
    assert spread([], 2) == "–"


def values():
    """Two criteria on two domains with two seeds; one number is missing."""
    numbers = {"ior": {"a": (0.5, 0.7), "b": (0.2, 0.4)}, "l1": {"a": (0.4, 0.7), "b": (0.3, None)}}
    every = {
        coordinates("pruned", {"seed": str(seed), "away": away, "criterion": criterion}): value
        for criterion, domains in numbers.items()
        for away, pair in domains.items()
        for seed, value in enumerate(pair)
    }
    return {where: value for where, value in every.items() if value is not None}, list(every)


def test_a_table_averages_over_what_is_neither_row_nor_column():
    measured, places = values()
    table = pivot(measured, places, ["criterion"], ["away"])
    assert table.columns == ("criterion", "a", "b", "mean")
    assert table.text_columns == 1
    spread_02 = f"{100 * math.sqrt(2 * 0.1**2):.1f}"  # of two numbers that are 0.2 apart
    # The means over a and b of ior are 0.35 and 0.55; l1 has both only with seed 0: (0.4 + 0.3) / 2.
    assert table.rows == (
        ("ior", f"60.0 ± {spread_02}", f"30.0 ± {spread_02}", f"45.0 ± {spread_02}"),
        ("l1", "55.0 ± 21.2", "30.0 (1/2)", "35.0 (1/2)"),
    )
    assert table.note == "mean ± standard deviation over seed"
    assert markdown(table)[:3] == [
        "| criterion | a | b | mean |",
        "|---|---:|---:|---:|",
        f"| {' | '.join(table.rows[0])} |",
    ]


def test_a_stage_without_an_axis_has_its_own_row():
    measured, places = values()
    dense = coordinates("dense", {"seed": "0", "away": "a"})
    table = pivot({**measured, dense: 0.8}, [dense, *places], ["criterion"], ["away"])
    assert table.columns == ("stage", "criterion", "a", "b", "mean")
    assert table.rows[0] == ("dense", "–", "80.0", "", "80.0")
    assert [row[:2] for row in table.rows[1:]] == [("pruned", "ior"), ("pruned", "l1")]


def test_pairs_agree_in_every_other_axis():
    measured, _ = values()
    found = duel(measured, "criterion", "ior", "l1")
    # a: 0.5 > 0.4 with seed 0 and 0.7 = 0.7 with seed 1; b: 0.2 < 0.3 with seed 0, no pair with seed 1.
    assert (found.won, found.lost, found.tied) == (1, 1, 1)
    assert found.gain == pytest.approx(0.0, abs=1e-15)
    assert found.p == 1.0
    assert math.isnan(duel(measured, "criterion", "ior", "taylor").gain)


def test_further_metrics_stand_beside_with_columns_of_their_own():
    at = [coordinates("pruned", {"seed": "0", "away": away, "criterion": "ior"}) for away in "ab"]
    first = pivot({at[0]: 0.5, at[1]: 0.7}, at, ["criterion"], ["away"])
    second = pivot({at[0]: 0.25}, at, ["criterion"], ["away"])
    found = beside(first, {"iou/vessel %": second})
    assert found.columns == ("criterion", "a", "b", "mean", "a iou/vessel %", "b iou/vessel %", "mean iou/vessel %")
    assert found.rows == (("ior", "50.0", "70.0", "60.0", "25.0", "–", "–"),)
    assert (found.text_columns, found.note) == (first.text_columns, first.note)
    alone = pivot({at[0]: 0.5}, at[:1], ["criterion"], [])
    assert beside(alone, {"iou/vessel %": alone}).columns == ("criterion", "value", "iou/vessel %")
    assert beside(first, {}) == first
