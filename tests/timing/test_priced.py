"""Milliseconds of architectures: sums by hand, the line, what is kept; nothing here reads a clock."""

import json
from dataclasses import replace
from math import fsum
from random import Random

import pytest
import torch

from hardy.data.label_spaces import find_label_space
from hardy.errors import InputError
from hardy.networks.architectures.multipath import PUBLISHED, parse, read
from hardy.searching.cost import parts
from hardy.searching.space import Space
from hardy.timing.layer_tables import LayerTable, name_of
from hardy.timing.priced import Bench, Priced, line

MACHINE = {"device": "abacus", "runtime": "eager", "threads": "1", "version": "1"}
SIZE = (32, 64)
SPACE = Space(2, 4, 2)
BUDGET = 3.6


def rule(shape):
    """A part's milliseconds: what it multiplies and what it writes."""
    return shape.macs / 1e6 + shape.outputs * shape.out_size[0] * shape.out_size[1] / 1e5


def true(architecture):
    """Milliseconds of a network: its parts, a third more, and two that do not depend on them."""
    return 2 + 4 / 3 * sum(map(rule, parts(architecture, SIZE, 11)))


class Clock:
    """In place of a clock; the machine gets slower with every call, which the ratio does not show."""

    def __init__(self):
        self.calls = 0

    def __call__(self, network):
        self.calls += 1
        found = true(parse(network.architecture["options"]["arch"], "network"))
        return self.calls * LEAST, found / LEAST


LEAST = min(map(true, SPACE.lightest()))


@pytest.fixture
def bench(tmp_path):
    asked = []

    def measure(shapes):
        asked.extend(shapes)
        return [rule(shape) for shape in shapes]

    times = LayerTable(MACHINE, measure, tmp_path)
    return Bench(SPACE, find_label_space("camvid11"), SIZE, "eager", torch.device("cpu"), times, Clock()), asked


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_sum_of_a_published_architecture_is_that_of_its_parts(name, bench, tmp_path):
    made, _ = bench
    architecture, classes = parse(read(PUBLISHED[name]), name), len(made.label_space)
    priced = Priced(replace(made, space=Space(12, 16, 2), size=(1024, 2048)), tmp_path / "latency.json")
    priced._fill(parts(architecture, (1024, 2048), classes))
    wanted = fsum(made.times[part] for part in parts(architecture, (1024, 2048), classes))
    assert priced.sum(architecture) == pytest.approx(wanted, abs=1e-6)
    assert wanted > 1000


def test_all_parts_are_measured_once_and_nothing_after_a_restart(bench, tmp_path):
    made, asked = bench
    file = tmp_path / "latency.json"
    first = Priced(made, file)
    first.prepare(BUDGET, 0)
    assert len(asked) == len(set(asked)) == len(first.table)
    assert len(first.anchors) == 5
    drawn = [SPACE.draw(Random(seed)) for seed in range(20)]
    later = first.milliseconds(drawn[0])
    before, calls = len(asked), made.clock.calls
    again = Priced(made, file)
    again.prepare(BUDGET, 0)
    assert [again.predicted(each) for each in drawn] == [first.predicted(each) for each in drawn]
    assert again.milliseconds(drawn[0]) == later
    assert (len(asked), made.clock.calls) == (before, calls)


def test_the_line_learns_what_the_parts_leave_out(bench, tmp_path):
    made, _ = bench
    priced = Priced(made, tmp_path / "latency.json")
    priced.prepare(BUDGET, 0)
    assert priced.anchors[0] == (min(SPACE.lightest(), key=true), LEAST)
    near = [value for _, value in priced.anchors[2:]]  # the second is drawn before there is a slope
    assert 0.8 * BUDGET < near[-1] <= max(near) <= BUDGET
    for seed in range(20):
        drawn = SPACE.draw(Random(seed))
        assert priced.predicted(drawn) == pytest.approx(true(drawn), rel=1e-6)
    assert priced.milliseconds(drawn) == pytest.approx(true(drawn))


def test_a_line_by_hand():
    assert line([(2.0, 3.0)]) == (0.0, 1.5)
    base, slope = line([(1.0, 3.0), (2.0, 4.0), (5.0, 7.0)])
    assert (base, slope) == (pytest.approx(2.0), pytest.approx(1.0))
    # A base below 0 would make a small network free: through the origin, least relative error.
    assert line([(1.0, 1.0), (2.0, 4.0)]) == (0.0, pytest.approx((1 + 2 * 4 / 16) / (1 + 4 / 16)))
    assert line([(1.0, 2.0), (1.0, 4.0)]) == (0.0, pytest.approx((2 / 4 + 4 / 16) / (1 / 4 + 1 / 16)))


def test_what_cannot_be(bench, tmp_path):
    made, _ = bench
    file = tmp_path / "latency.json"
    with pytest.raises(InputError, match=r"budget_ms: \S+ cannot be reached: the fastest network .* takes \S+ ms here"):
        Priced(made, file).prepare(LEAST / 2, 0)
    Priced(made, file).prepare(BUDGET, 0)  # what was measured for that is not lost
    with pytest.raises(InputError, match="was measured on another machine"):
        Priced(replace(made, size=(64, 64)), file).prepare(BUDGET, 0)
    content = json.loads(file.read_text())
    assert content["parts_ms"][name_of(parts(SPACE.smallest(), SIZE, 11)[0])] == rule(
        parts(SPACE.smallest(), SIZE, 11)[0]
    )
    del content["anchors"]
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="damaged; delete it"):
        Priced(made, file).prepare(BUDGET, 0)
