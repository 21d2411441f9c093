"""The table of layer times: measured once, kept, interpolated by hand; nothing here reads a clock."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from hardy.data.label_spaces import find_label_space
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.pruning.goal import choose
from hardy.pruning.remove import remove
from hardy.pruning.scales import Scales
from hardy.pruning.select import Limits
from hardy.pruning.shapes import Layers, Shape, dense_widths, widths_left
from hardy.pruning.units import find_units
from hardy.sections import Prune, RunSection
from hardy.timing import layer_tables, targets
from hardy.timing.layer_tables import LayerTable, Sum, _points, grid, preferred_multiple
from hardy.timing.layer_times import _by_branch, _given, _inputs, _model, _module, layer_times
from hardy.timing.payoff import reasons
from hardy.timing.targets import Timed, time_target
from hardy.types import Outputs

MACHINE = {"device": "abacus", "runtime": "eager", "threads": "1", "version": "1"}
CPU = torch.device("cpu")
LAYER = Shape("convolution", 16, 32, 8, 8, (3, 3), padding=(1, 1))


class Abacus:
    """Measures by a rule, and notes what it was asked."""

    def __init__(self, rule=lambda shape: shape.macs / 1e6):
        self.rule = rule
        self.asked = []

    def __call__(self, shapes):
        self.asked.append(list(shapes))
        return [self.rule(shape) for shape in shapes]


class Chain(Network):
    """Two units in a row: 16 and 8 channels."""

    least_size = 8

    def __init__(self):
        super().__init__(find_label_space("camvid11"))
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 8, 1)
        self.head = nn.Conv2d(8, 11, 1)

    def outputs(self, images):
        return Outputs(self.head(self.second(self.first(self.normalise(images)).relu()).relu()), {}, {})


@pytest.fixture
def chain():
    torch.manual_seed(0)
    network = Chain().eval()
    return network, find_units(network)


def test_what_was_measured_is_not_measured_again(tmp_path):
    first = Abacus()
    table = LayerTable(MACHINE, first, tmp_path)
    narrow, other = LAYER.narrowed(8, 8), replace(LAYER, height=4)
    assert table.fill([LAYER, narrow, other, LAYER]) == 3
    assert first.asked == [[LAYER, narrow], [other]]  # the widths of one layer together
    assert (table[LAYER], table[narrow]) == (LAYER.macs / 1e6, narrow.macs / 1e6)
    assert table.fill([LAYER, narrow]) == 0
    later = Abacus()
    assert LayerTable(MACHINE, later, tmp_path).fill([LAYER, narrow, other]) == 0
    assert later.asked == []
    assert LayerTable({**MACHINE, "threads": "2"}, later, tmp_path).fill([LAYER]) == 1
    assert [path.name.startswith("eager-") for path in (tmp_path / "latency").iterdir()] == [True, True]


def test_what_another_process_measured_meanwhile_is_kept(tmp_path):
    one, other = LayerTable(MACHINE, Abacus(), tmp_path), LayerTable(MACHINE, Abacus(), tmp_path)
    one.fill([LAYER])
    other.fill([LAYER.narrowed(8, 8)])
    assert len(json.loads(one.path.read_text())["milliseconds"]) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"machine": {}, "milliseconds": {}}',
        json.dumps({"machine": MACHINE, "milliseconds": {"x": "y"}}),
    ],
)
def test_a_damaged_file_is_measured_again(tmp_path, text):
    path = LayerTable(MACHINE, Abacus(), tmp_path).path
    path.parent.mkdir()
    path.write_text(text)
    assert LayerTable(MACHINE, Abacus(), tmp_path).fill([LAYER]) == 1
    assert json.loads(path.read_text())["machine"] == MACHINE


def test_a_folder_that_cannot_be_written_serves_this_process(tmp_path):
    (tmp_path / "latency").write_text("a file where the folder would be")
    table = LayerTable(MACHINE, Abacus(), tmp_path)
    assert table[LAYER] == LAYER.macs / 1e6
    assert table.fill([LAYER]) == 0


def test_where_it_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("HARDY_CACHE", str(tmp_path / "own"))
    assert layer_tables.cache_folder() == tmp_path / "own"
    monkeypatch.delenv("HARDY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert layer_tables.cache_folder() == tmp_path / "xdg" / "hardy"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert layer_tables.cache_folder() == tmp_path / ".cache" / "hardy"


def test_where_it_is_kept_for_a_user_without_a_home(monkeypatch, tmp_path):
    def nobody(path: str) -> str:
        return path  # what os.path.expanduser returns for a user that the system does not know

    for name in ("HARDY_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", nobody)
    monkeypatch.setattr(layer_tables, "gettempdir", lambda: str(tmp_path))
    assert layer_tables.cache_folder() == tmp_path / "hardy"


def test_the_widths_that_are_measured():
    assert grid(8, 128, 8) == [8, 32, 64, 128]
    assert grid(8, 128, 1) == [8, 31, 63, 128]  # odd ones, as single filters leave
    assert grid(4, 30, 4) == [4, 12, 30]
    assert grid(8, 8, 8) == [8]


def test_interpolation_by_hand(chain, tmp_path):
    """Bilinear: exact for a cost that is bilinear in the widths, and by hand for one that is not."""
    network, units = chain
    layers = Layers(network, units, (8, 8))
    limits = Limits(min_width=4, round_to=4)
    bilinear = Sum(layers, units, limits, LayerTable(MACHINE, Abacus(), tmp_path / "a"))
    for widths in (dense_widths(units), {"first": 9, "second": 5}, {"first": 4, "second": 4}):
        assert bilinear(widths) == pytest.approx(1e3 * layers.gmacs(widths))

    def rule(shape):
        return {2: 3, 3: 2, 7: 5, 16: 14}[shape.outputs] if shape.kernel == (3, 3) else 1

    surface = Sum(layers, units, Limits(min_width=2), LayerTable(MACHINE, Abacus(rule), tmp_path / "b"))
    found = [surface({"first": width, "second": 8}) - 2 for width in (2, 3, 5, 7, 10, 16)]
    assert found == pytest.approx([3, 3, 4, 5, 8, 14])  # the 2 at 3 raised: none costs less than fewer


def test_a_sum_measures_only_what_is_new(chain, tmp_path):
    network, units = chain
    abacus = Abacus()
    for _ in range(2):
        Sum(Layers(network, units, (8, 8)), units, Limits(min_width=4), LayerTable(MACHINE, abacus, tmp_path))
    seen = [shape for shapes in abacus.asked for shape in shapes]
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize(("block", "expected"), [(1, 1), (4, 4), (8, 8), (16, 16), (32, 32)])
def test_the_multiple_that_a_device_likes(block, expected, tmp_path):
    """A device that computes channels in blocks pays for full ones."""

    def blocks(shape):
        wide = (-(-width // block) * block for width in (shape.inputs, shape.outputs))
        return shape.narrowed(*wide).macs / 1e6

    abacus = Abacus(blocks)
    assert preferred_multiple(LayerTable(MACHINE, abacus, tmp_path)) == expected
    again = Abacus()
    assert preferred_multiple(LayerTable(MACHINE, again, tmp_path)) == expected
    assert again.asked == []


def clock_of(network, units, factor):
    """Beside a dense network of 100 ms: a fifth of it is fixed, the rest falls as ``factor`` says of the work."""
    dense = Layers(network, units, (8, 8)).gmacs(dense_widths(units))
    timed = []

    def clock(small):
        timed.append(small)
        share = Layers(small, (), (8, 8)).gmacs({}) / dense
        return 100.0 * (1 + len(timed)), 0.2 + 0.8 * factor(share)  # the machine gets slower; the ratio does not

    clock.timed = timed
    return clock


def test_a_network_with_separate_factors_is_timed_as_it_will_be(chain, tmp_path):
    network, units = chain
    table = LayerTable(MACHINE, Abacus(), tmp_path)
    limits = Limits(min_width=2)
    clocks = [clock_of(network, units, lambda share: share) for _ in range(2)]
    plain = Timed(network, units, limits, (8, 8), "eager", CPU, times=table, clock=clocks[0])
    Scales(network, units, separate=True)
    scaled = Timed(network, units, limits, (8, 8), "eager", CPU, times=table, clock=clocks[1])
    assert (scaled.dense, scaled.least) == (plain.dense, plain.least)
    assert any("factor" in name for name, _ in network.named_parameters()), "the network itself keeps its factors"


def test_milliseconds_are_predicted_measured_and_met(chain, tmp_path):
    network, units = chain
    limits = Limits(min_width=2)
    scores = {unit.name: torch.arange(unit.size).double() for unit in units}
    clock = clock_of(network, units, lambda share: share**0.5)
    timed = Timed(
        network, units, limits, (8, 8), "eager", CPU, times=LayerTable(MACHINE, Abacus(), tmp_path), clock=clock
    )
    assert timed.dense == 200
    made = time_target(timed, units, limits, 120.0, "here")
    removed = choose(scores, units, made.goal, {}, limits)
    outcome = made.outcome(removed)
    assert outcome.met
    assert outcome.reached <= 120
    assert outcome.reached == pytest.approx(timed.milliseconds(removed))
    assert outcome.predicted == pytest.approx(timed.predicted(widths_left(units, removed)))
    assert outcome.networks == len(made.goal.checked) + 2
    assert f"predicted {outcome.predicted:.4g}, measured {outcome.reached:.4g}: met (here" in str(outcome)
    with pytest.raises(InputError, match=r"target_ms 1 cannot be reached.*needs [\d.]+ ms; raise target_ms"):
        time_target(timed, units, limits, 1.0, "here")


def test_two_goals_and_none():
    assert Prune().ratio == 0.5
    assert Prune(target_ms=3).ratio is None
    with pytest.raises(ValueError, match="ratio and target_ms are given; give one of ratio, target_ms and"):
        Prune(ratio=0.5, target_ms=3)
    for wrong in (0, "x", -1):
        with pytest.raises(ValueError, match="give a whole number from 1 up, or auto"):
            Prune(round_to=wrong)


def test_rounding_found_by_measuring_is_what_limits_use(monkeypatch, tmp_path):
    made = LayerTable(MACHINE, Abacus(lambda shape: 1.0 if shape.outputs % 4 == 0 else 9.0), tmp_path)
    monkeypatch.setattr(layer_tables, "open_table", lambda runtime, device: made)
    run = RunSection(device="cpu")
    assert targets.limits_of(Prune(round_to="auto"), run).round_to == 4
    assert targets.limits_of(Prune(round_to=3), run).round_to == 3


def test_where_it_did_not_pay_and_why(chain, tmp_path):
    network, _ = chain
    small = Chain().eval()
    remove(small, find_units(small), {"first": [0, 1, 2]})

    def rule(shape):  # widths that are no multiple of 8, but for the images' channels, take ten times as long
        odd = shape.outputs % 8 or (shape.inputs % 8 and shape.inputs != 3)
        return shape.macs / 1e5 * (10 if odd else 1)

    lines = reasons(network, small, (8, 8), LayerTable(MACHINE, Abacus(rule), tmp_path), 100.0, {"head": "its classes"})
    assert lines[0].startswith("about 97%")
    assert "outside convolutions" in lines[0]
    odd = next(line for line in lines if line.startswith("first (3 -> 13)"))
    assert "not multiples of 8 are slow here; with 3 -> 16 it would take" in odd
    assert any(
        line.startswith("head (8 -> 11)") and line.endswith("nothing of it was removed: its classes") for line in lines
    )
    paid = LayerTable(MACHINE, Abacus(), tmp_path / "paid")
    total = sum(paid[layer.shape] for layer in Layers(small, (), (8, 8)).layers)
    assert [line.split()[0] for line in reasons(network, small, (8, 8), paid, total)] == ["head"]


def test_times_of_kernels_are_lower_quartiles_by_branch():
    def event(name, microseconds, category="Node"):
        return {"cat": category, "name": f"{name}_kernel_time", "dur": microseconds}

    turns = [(9000, 50), (100, 60), (300, 40), (200, 70)]  # the first turn warms up
    events = [
        e
        for one, two in turns
        for e in (
            event("branch0_y_nchwc", one),
            event("branch10_product", two),
            event("branch10_bias", 10),
            event("ReorderOutput", 5000),
        )
    ]
    found = _by_branch([*events, event("branch0_y_nchwc", 9, "Session")], 11, 3)
    assert found[0] == pytest.approx(0.15)
    assert found[10] == pytest.approx(0.05 + 0.01)
    assert found[1] == 0


BARE = [
    Shape("normalise", 3, 3, 8, 12),
    Shape("resize", 5, 5, 8, 12, extra=(3, -6)),  # one product across and one down
    Shape("resize", 3, 3, 12, 4, extra=(84, 12)),  # windows of rows
    Shape("resize", 2, 2, 8, 96, extra=(0, -1)),  # ONNX's Resize
    Shape("argmax", 5, 5, 8, 12),
    Shape("argmax", 65, 65, 4, 3),  # ONNX's ArgMax
]


def test_steps_without_weights_compute_the_same_in_both_runtimes():
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    draw = np.random.default_rng(0)
    model = _model(BARE, draw).SerializeToString()
    session = runtime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for place, shape in enumerate(BARE):
        given = draw.random(_given(shape), dtype=np.float32)
        name = {each: number for number, each in _inputs(BARE)}[next(s for s in BARE if _given(s) == _given(shape))]
        images = {f"x{number}": draw.random(_given(each), dtype=np.float32) for number, each in _inputs(BARE)}
        made = session.run([f"branch{place}_y"], {**images, f"x{name}": given})[0]
        wanted = _module(shape)(torch.from_numpy(given)).numpy()
        assert made.dtype == wanted.dtype
        assert made.shape[-2:] == wanted.shape[-2:] == shape.out_size
        np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-5)  # ONNX's Resize has 6e-6
        assert shape.macs == 0


@pytest.mark.costly
@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["eager", "onnxruntime"])
def test_every_kind_of_layer_is_timed(runtime):
    if runtime == "onnxruntime":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")
    shapes = [
        LAYER,
        LAYER.narrowed(7, 5),
        Shape("convolution", 6, 6, 8, 8, (3, 3), (2, 2), (1, 1), groups=6),
        Shape("transposed", 6, 4, 8, 8, (2, 2), (2, 2)),
        Shape("linear", 6, 10, 20, 1),
        *BARE,
    ]
    state = torch.random.get_rng_state()
    found = layer_times(shapes, runtime, CPU)
    assert len(found) == len(shapes)
    assert np.isfinite(found).all()
    assert min(found) > 0
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_widths_of_a_grouped_layer_are_those_that_its_groups_divide():
    """Six outputs for each of 32 inputs, as in BiSeNetV2; a quarter of 192 would be 48."""
    full = Shape("convolution", 32, 192, 8, 8, (3, 3), (1, 1), (1, 1), groups=32)
    rows = _points(full.narrowed(32, 32), full, 8)
    assert [row[0].outputs for row in rows] == [32, 96, 192]
    assert {(shape.inputs, shape.groups) for row in rows for shape in row} == {(32, 32)}


def test_the_widths_of_a_layer_that_loses_complete_groups_are_numbers_of_groups():
    full = Shape("convolution", 32, 192, 8, 8, (3, 3), (1, 1), (1, 1), groups=32)
    rows = _points(full.of_groups(8), full, 8)
    assert [[(shape.inputs, shape.outputs, shape.groups) for shape in row] for row in rows] == [
        [(8, 48, 8)],
        [(16, 96, 16)],
        [(32, 192, 32)],
    ]
