"""The costs that pruning records."""

from hardy.commands.output.costs import cost_values
from hardy.timing.rows import Comparison


def test_costs_before_and_after_and_the_ratio_of_the_pairs():
    timed = Comparison(10.0, 12.0, 7.0, 9.0, 0.6, 0.5, 0.9, "eager", (32, 32), 1, 30)
    assert {metric: value for _, metric, value in cost_values([("gmacs", 2.0, 1.0)], [timed])} == {
        "gmacs_before": 2.0,
        "gmacs_after": 1.0,
        "ratio_eager": 0.6,
        "ratio_low_eager": 0.5,
        "ratio_high_eager": 0.9,
    }
