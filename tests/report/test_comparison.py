"""Arms, pairs, equal cost and cost in plain steps, worked by hand; the sign test also against scipy."""

import math

import pytest

from hardy.errors import InputError
from hardy.records import Record
from hardy.report.arms import Cost, arms, groups, own_cost, plain_step, scores, size, steps
from hardy.report.comparison import Numbers, Rules, compare, known, missing, shown
from hardy.report.pivot import coordinates, sign_test
from hardy.report.resample import Interval

AXES = ["seed", "fold", "gmacs", "method"]


def dense(seed, fold="a"):
    return coordinates("dense", {"seed": str(seed), "fold": fold})


def pruned(method, seed, fold="a", gmacs="1"):
    return coordinates("pruned", {"seed": str(seed), "fold": fold, "method": method, "gmacs": gmacs})


def record(where, target, metric, value, cost=None, sources=()):
    labels = dict(where)
    stage = labels.pop("stage")
    return Record("0", "", sources, target, 0, metric, value, cost or {}, notes={"of": stage, "axes": labels})


# ------------------------------------------------------------------------------------------------ arms


def test_an_arm_is_called_by_its_stage_and_what_is_left_of_its_labels():
    places = [dense(0), dense(1), pruned("ior", 0), pruned("ior", 1), pruned("l2", 0, gmacs="2")]
    found = arms(places, ["seed", "fold"], AXES)
    assert list(found) == ["dense", "pruned 1 ior", "pruned 2 l2"]
    assert found["dense"] == {(("fold", "a"), ("seed", str(seed))): dense(seed) for seed in (0, 1)}
    assert list(arms(places[2:], ["seed", "fold"], AXES, ["gmacs"])) == ["ior", "l2"], "of one stage it is not named"
    assert list(arms(places[:2], ["seed", "fold"], AXES)) == ["dense"]


def test_a_cell_without_the_axis_is_in_every_group():
    places = [dense(0), pruned("ior", 0), pruned("l2", 0, gmacs="2")]
    found = groups(places, ["gmacs"])
    assert found == {(("gmacs", "1"),): places[:2], (("gmacs", "2"),): [places[0], places[2]]}
    assert groups(places, []) == {(): places}


def test_an_unknown_control_names_the_nearest_arm():
    with pytest.raises(InputError, match=r"no arm 'pruned io'; did you mean 'pruned ior'\?; there are: dense, pruned"):
        known("pruned io", {"dense": {}, "pruned ior": {}}, "study.yaml: comparison.control")


# ------------------------------------------------------------------------------------------------ what records say


def test_scores_of_a_class_are_made_from_the_domains():
    where = dense(0)
    iou = {"s/a": 0.2, "s/b": 0.4, "t/c": 0.5, "t/d": 0.1}
    found = scores(
        [record(where, name, "iou/vessel", value, sources=("s/a", "s/b")) for name, value in iou.items()]
        + [record(where, "unseen", "miou", 0.9)],
        "iou/vessel",
    )
    assert found == {"intra": {where: pytest.approx(0.3)}, "unseen": {where: pytest.approx(0.3)}, "worst": {where: 0.1}}


def test_the_cost_of_a_dense_network_is_that_before_its_pruning():
    places = [dense(0), pruned("ior", 0), pruned("l2", 0)]
    records = [record(places[1], "cost", "gmacs_before", 2.0), record(places[1], "cost", "gmacs_after", 1.0)]
    assert size(records, places, {"pruned": "dense"}, "gmacs") == {places[0]: 2.0, places[1]: 1.0}
    own = record(places[0], "cost", "gmacs", 2.5)
    assert size([*records, own], places, {"pruned": "dense"}, "gmacs")[places[0]] == 2.5


def test_times_are_compared_by_their_ratio_to_the_same_network():
    """The second cell ran on a machine twice as slow: 10 of 20 ms is 5 of 10; the median of the times before is 15."""
    places = [dense(0), dense(1), pruned("ior", 0), pruned("ior", 1)]
    times = {places[2]: (10.0, 4.0), places[3]: (20.0, 10.0)}
    records = [
        record(where, "cost", f"ms_{when}", value)
        for where, both in times.items()
        for when, value in zip(("before", "after"), both, strict=True)
    ]
    found = size(records, places, {"pruned": "dense"}, "ms", turns=["seed"])
    assert found == {places[0]: 15.0, places[1]: 15.0, places[2]: pytest.approx(6.0), places[3]: pytest.approx(7.5)}


def test_cost_in_plain_steps():
    """A step takes 0.5 s. Scoring took 10 s, recovery 30 s: 80 steps; without the seconds of scoring its 12 steps."""
    rate = plain_step(
        [
            {"train_seconds": 40.0, "train_steps": 100},
            {"train_seconds": 50.0, "train_steps": 100},
            {"train_seconds": 99.0, "train_steps": 100},
            {},
        ]
    )
    assert rate == 0.5
    took = {"score_steps": 12, "recover_seconds": 30.0, "recover_steps": 50}
    assert own_cost({**took, "score_seconds": 10.0}, rate) == Cost(80.0)
    assert own_cost(took, rate) == Cost(72.0, bound=True)
    assert own_cost({**took, "score_steps": 0}, rate) == Cost(60.0), "no step: nothing is left to know"
    assert own_cost(took, None) == Cost(62.0, bound=True)
    assert own_cost({}, rate) is None
    assert plain_step([{"train_seconds": 0.0, "train_steps": 0}]) is None


def test_what_a_cell_took_is_the_most_that_any_of_its_records_says():
    where = pruned("ior", 0)
    early, late = {"score_steps": 3.0}, {"score_steps": 3.0, "recover_steps": 9.0}
    found = steps([record(where, "cost", "removed", 0.5, early), record(where, "unseen", "miou", 0.5, late)])
    assert found == {where: late}


# ------------------------------------------------------------------------------------------------ the comparison


def compared(arm, control, *, folds="a", planned=None, gmacs=(1.0, 1.0), milliseconds=(1.0, 1.0), **rules):
    """The lines of an arm ``pruned ior`` against ``dense``: a score per seed and fold, None where not measured."""
    many = planned or max(len(arm), len(control))
    cells = {
        "dense": [dense(s, f) for s in range(many) for f in folds],
        "pruned": [pruned("ior", s, f) for s in range(many) for f in folds],
    }
    given = {"dense": control, "pruned": arm}
    values = {
        where: value
        for stage, own in cells.items()
        for where, value in zip(own, given[stage], strict=False)
        if value is not None
    }
    found = arms([*cells["dense"], *cells["pruned"]], ["seed", "fold"], ["seed", "fold", "method"])
    of = {where: side for side, stage in enumerate(("pruned", "dense")) for where in cells[stage]}
    numbers = Numbers(
        {"intra": values, "unseen": values, "worst": values},
        {where: gmacs[side] for where, side in of.items() if gmacs[side] is not None},
        {where: milliseconds[side] for where, side in of.items() if milliseconds[side] is not None},
    )
    asked = Rules("dense", ("seed",), **rules)
    return compare(found, numbers, asked, lambda pairs: f"{len(pairs)} pairs asked for"), asked


def test_pairs_by_hand():
    (control, arm), _ = compared([0.5, 0.4, 0.7], [0.4, 0.5, 0.7])
    assert (control.arm, control.gains) == ("dense", ())
    assert arm.gains == pytest.approx((0.1, -0.1, 0.0), abs=1e-15)
    assert (arm.won, arm.lost, arm.p) == (1, 1, 1.0)
    assert arm.interval == "3 pairs asked for"
    assert arm.alone == ()


def test_a_missing_partner_is_named_and_never_counted():
    lines, rules = compared([0.5, 0.6, None], [0.4, None, 0.3])
    assert lines[1].gains == pytest.approx((0.1,))
    assert lines[1].alone == ("fold=a,seed=1 (the control is not measured)", "fold=a,seed=2 (the arm is not measured)")
    assert f"left out of the pairs: {'; '.join(lines[1].alone)}: pruned ior" in missing(lines, rules)
    lines, rules = compared([0.5], [None])
    assert missing(lines, rules)[0] == "no pair with dense is measured: pruned ior"
    assert shown(lines, rules).rows[1][4:7] == ("–", "–", "–")


def test_a_partner_that_no_cell_is_planned_for_is_named():
    found = {"dense": {(("seed", "0"),): dense(0)}, "more": {(("seed", str(s)),): pruned("ior", s) for s in (0, 1)}}
    values = {dense(0): 0.1, pruned("ior", 0): 0.2, pruned("ior", 1): 0.2}
    numbers = Numbers({"intra": {}, "unseen": values, "worst": {}})
    _, more = compare(found, numbers, Rules("dense", ("seed",)), lambda pairs: "")
    assert more.alone == ("seed=1 (the control has no such cell)",)


@pytest.mark.parametrize(
    ("seeds", "folds", "claim"),
    [(5, "a", False), (6, "a", True), (3, "abc", False), (3, "abcd", True), (1, "a", False)],
)
def test_fewer_than_six_seeds_and_twelve_pairs_are_an_illustration(seeds, folds, claim):
    many = seeds * len(folds)
    lines, rules = compared([0.5] * many, [0.4] * many, folds=folds, planned=seeds)
    assert lines[1].claim is claim
    p = shown(lines, rules).rows[1][6]
    assert p == f"{2 / 2**many if many > 1 else 1:.2g}{'' if claim else ', illustration'}"


def test_without_an_axis_of_seeds_only_pairs_count():
    cells = {(("fold", str(f)),): coordinates("dense", {"fold": str(f)}) for f in range(11)}
    other = {key: coordinates("more", dict(where)) for key, where in cells.items()}
    values = dict.fromkeys((*cells.values(), *other.values()), 0.5)
    numbers = Numbers({"intra": {}, "unseen": values, "worst": {}})
    _, more = compare({"dense": cells, "more": other}, numbers, Rules("dense", ()), lambda pairs: "")
    assert not more.claim


def test_arms_that_cost_otherwise_are_marked():
    columns = {}
    for name, arm in {"level": (1.04, 1.09), "cheap": (0.94, 1.0), "neither": (1.06, 1.2), "none": (None, 0.8)}.items():
        lines, rules = compared([0.5], [0.4], gmacs=(arm[0], 1.0), milliseconds=(arm[1], 1.0))
        row = dict(zip(shown(lines, rules).columns, shown(lines, rules).rows[1], strict=True))
        columns[name] = row["difference"], row["equal in"]
    assert columns == {
        "level": ("+10.0", "GMACs, ms"),
        "cheap": ("+10.0 ≠", "ms"),
        "neither": ("+10.0 ≠", "neither"),
        "none": ("+10.0 ?", "GMACs?"),
    }
    assert "no GMACs recorded: pruned ior" in missing(*compared([0.5], [0.4], gmacs=(None, 1.0)))
    (_, arm), _ = compared([0.5], [0.4], gmacs=(1.2, 1.0), tolerance=0.2)
    assert arm.level[0] is True


def test_the_scores_of_a_seed_are_the_mean_and_the_lowest_of_its_folds():
    """Seed 1 lacks a fold: it is left out, and the table says of how many seeds a number is."""
    lines, rules = compared([0.5, 0.7, 0.2, None], [0.1] * 4, folds="ab", planned=2)
    assert lines[1].scores == {"intra": (pytest.approx(0.6),), "unseen": (pytest.approx(0.6),), "worst": (0.5,)}
    assert shown(lines, rules).rows[1][1:4] == ("60.0 (1/2)", "60.0 (1/2)", "50.0 (1/2)")
    assert len(lines[1].gains) == 3


def test_the_table_shows_interval_ties_and_bounds():
    found = arms([dense(0), dense(1), pruned("ior", 0), pruned("ior", 1)], ["seed", "fold"], AXES, ["gmacs"])
    values = {dense(0): 0.5, dense(1): 0.5, pruned("ior", 0): 0.5, pruned("ior", 1): 0.52}
    every = {"intra": values, "unseen": values, "worst": values, "iou/vessel": values}
    took = {dense(0): {"train_seconds": 10.0, "train_steps": 1000.0}, pruned("ior", 0): {"score_steps": 7.0}}
    numbers = Numbers(every, dict.fromkeys(values, 0.03148), {}, took, 0.01)
    rules = Rules("dense", ("seed",))
    lines = compare(found, numbers, rules, lambda pairs: Interval(0.01, -0.002, 0.02, {"d": 9}, 0.005))
    table = shown(lines, rules)
    assert table.columns == (
        "arm",
        "intra %",
        "unseen %",
        "worst %",
        "iou/vessel %",
        "difference",
        "won",
        "p",
        "equal in",
        "GMACs",
        "ms",
        "plain steps",
    )
    assert table.rows[0][5:] == ("control", "", "", "", "0.03148", "–", "1,000")
    assert table.rows[1][5:] == (
        "+1.0 [-0.2, +2.0]",
        "1/2, 1 equal",
        "1, illustration",
        "GMACs, ms?",
        "0.03148",
        "–",
        "≥ 7",
    )
    assert missing(lines, rules) == [
        "no ms recorded: dense, pruned ior",
        "0.5% of the resamples have no score: pruned ior",
    ]


def test_a_domain_of_one_block_is_said():
    found = {"dense": {(): dense(0)}, "more": {(): pruned("ior", 0)}}
    values = {dense(0): 0.1, pruned("ior", 0): 0.2}
    rules = Rules("dense", ())
    none = Interval(0.1, math.nan, math.nan, {"d": 1})
    lines = compare(found, Numbers({"intra": {}, "unseen": values, "worst": {}}), rules, lambda pairs: none)
    assert shown(lines, rules).rows[1][4] == "+10.0 ?"
    assert "no interval, because a domain has fewer than two images or blocks: more" in missing(lines, rules)


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (1, 0), (6, 0), (5, 1), (9, 3), (12, 12), (40, 61)])
def test_the_sign_test_is_scipys_binomial_test(won, lost):
    from scipy import stats

    wanted = stats.binomtest(won, won + lost, 0.5).pvalue if won + lost else 1.0
    assert sign_test(won, lost) == pytest.approx(wanted, rel=1e-12)
