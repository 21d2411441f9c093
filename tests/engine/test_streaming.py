"""A stream: what adapts when, what is measured by hand, bad frames, and that a stopped stream continues bit for bit."""

import logging
import os
import signal

import numpy as np
import pytest
import torch
from stream_method import SEEN
from torch import Tensor

from hardy.adaptation._guard import Guarded
from hardy.adaptation.base import TestTimeAdaptation
from hardy.data.base import Dataset, Domain
from hardy.data.label_spaces import SPACES
from hardy.engine.adapting import adapted
from hardy.engine.stop import Stopped
from hardy.engine.stream_table import StreamTable
from hardy.engine.streaming import Streaming
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.sections import Guard, Stream
from hardy.seed import seeded

METHOD = "stream_method:Learning"


class Drawn(Dataset):
    """Noise with masks of noise; an item is a number, ``bad`` ones cannot be read, ``small`` ones are 4x4."""

    label_space = SPACES["camvid11"]

    def __init__(self, bad=(), small=(), wide=()):
        self.bad, self.small, self.wide = bad, small, wide

    def index(self):
        return {}

    def read(self, item):
        if item in self.bad:
            raise InputError(f"{item}.png: torn")
        size = (4, 4) if item in self.small else (32, 56) if item in self.wide else (32, 40)
        draw = np.random.default_rng(item)
        return draw.integers(0, 256, (*size, 3), dtype=np.uint8), draw.integers(0, 11, size, dtype=np.uint8)


def part(name, *items, **broken):
    return Domain(f"drawn/{name}", Drawn(**broken), {}), items


DAY, NIGHT = part("day", 0, 1, 2), part("night", 3, 4, 5)


class Constant(TestTimeAdaptation):
    """Predicts the class that it has learned: the number of updates, without limit."""

    predicts = "after"

    def adapt(self, images: Tensor) -> Tensor:
        self.add.add_(1)
        return self.infer(images)

    def infer(self, images: Tensor) -> Tensor:
        logits = torch.zeros(len(images), 11, *images.shape[2:])
        logits[:, int(self.add) % 11] = 1
        return logits

    def __init__(self, network) -> None:
        super().__init__(network)
        self.register_buffer("add", torch.zeros(()))


@pytest.fixture(autouse=True)
def seen():
    SEEN.clear()
    return SEEN


@pytest.fixture(scope="module")
def network():
    with seeded(0, "network"):
        return create("tiny", "camvid11", width=8).eval()


def streaming(network, parts, live=None, reset="never", sources=(), owner="", **choice):
    live = live or adapted(network, METHOD, {}, 0)
    choice = {"probe": 0, "window": 2, **choice}
    return Streaming(live, network, parts, sources, choice=Stream(**choice), reset=reset, owner=owner)


def no_costs(self, images):
    self.progress.every = self.choice.every


@pytest.fixture(autouse=True)
def unmeasured(request, monkeypatch):
    """Time and memory are measured only in tests with ``costs``; so the method sees the stream alone."""
    if "costs" not in request.fixturenames:
        monkeypatch.setattr(Streaming, "_measure_costs", no_costs)


@pytest.fixture
def costs():
    """See `unmeasured`."""


@pytest.mark.parametrize(
    ("choice", "reset", "steps"),
    [
        ({}, "never", [0, 1, 2, 3, 4, 5]),
        ({}, "domain", [0, 1, 2, 0, 1, 2]),
        ({}, 2, [0, 1, 0, 1, 0, 1]),
        ({"every": 3}, "never", [0, 1]),
        ({"every": 2}, "domain", [0, 1, 0]),
        ({"batch": 2}, "never", [0, 1, 2]),
        ({"kind": "recurring", "block": 1}, "domain", [0, 0, 0, 0, 0, 0]),
        ({"rounds": 2, "every": 6}, "never", [0, 1]),
    ],
)
def test_it_adapts_on_every_so_many_batches_and_forgets_as_declared(network, choice, reset, steps):
    table = streaming(network, [DAY, NIGHT], reset=reset, **choice).run()
    assert [one.step for one in SEEN] == steps
    assert table.costs["updates"] == len(steps)
    assert len(table.places) == 6 * choice.get("rounds", 1), "a slow method skips updates, never frames"
    assert table.rounds == choice.get("rounds", 1)


def test_the_scores_are_those_of_each_frames_prediction_by_hand(network):
    live = Constant(network)
    table = streaming(network, [DAY, NIGHT], live, every=2).run()
    wanted = []
    for item, predicted in zip(range(6), (1, 1, 2, 2, 3, 3), strict=True):
        wanted.append((Drawn().read(item)[1] == predicted).mean())
    shares = [float(counts.diagonal().sum() / counts.sum()) for counts in table.counts]
    assert shares == pytest.approx(wanted)
    assert live.add == 3
    day = table.counts[:3].sum(0)
    assert table.online("drawn/day", 1) == table.score(day)
    assert table.online() == pytest.approx((table.score(day) + table.score(table.counts[3:].sum(0))) / 2)


def test_the_method_gets_the_domain_of_a_batch_and_of_a_probe(network):
    messages = []

    class Noted(Constant):
        def infer(self, images: Tensor) -> Tensor:
            messages.append(self.domain)
            return super().infer(images)

    day, night = "drawn/day", "drawn/night"
    streaming(network, [DAY, NIGHT], Noted(network)).run()
    assert messages == [day] * 3 + [night] * 3
    messages.clear()
    streaming(network, [part("day", 0), part("night", 3)], Noted(network), batch=2).run()
    assert messages == [None], "one batch of two domains"
    messages.clear()
    streaming(network, [part("day", 0), part("night", 3)], Noted(network), probe=1).run()
    assert messages == [day, day, day, night, night, night, day, night], "before, frame, left; twice; final"


def test_probes_learn_nothing_and_give_forgetting_and_what_comes_next(network):
    live = Constant(network)
    table = streaming(network, [DAY, NIGHT], live, sources=[part("sim", 9)], probe=3).run()
    assert live.add == 6, "probes do not learn"

    def score(items, predicted):
        counts = torch.zeros(12, 12, dtype=torch.int64)
        for item in items:
            mask = Drawn().read(item)[1]
            for klass in range(11):
                counts[klass, predicted] += int((mask == klass).sum())
        return table.score(counts)

    assert table.probe("before", "drawn/night") == score((3, 4, 5), 3)
    assert table.probe("before", "drawn/day") == score((0, 1, 2), 0)
    assert table.probe("left", "drawn/day") == score((0, 1, 2), 3)
    assert table.probe("final", "drawn/day") == score((0, 1, 2), 6)
    assert table.probe("final", "drawn/sim") == score((9,), 6)
    assert table.forgetting("drawn/day") == score((0, 1, 2), 3) - score((0, 1, 2), 6)
    assert table.forgetting("drawn/night") == 0
    numbers = {(one.target, one.metric, one.round): one.value for one in table.numbers()}
    assert numbers["stream", "forgetting", None] == table.forgetting("drawn/day"), (
        "the last domain is not an earlier one"
    )
    assert numbers["stream", "source_forgetting", None] == table.probe("source", "drawn/sim") - score((9,), 6)
    assert numbers["drawn/night", "forward_gain", None] == score((3, 4, 5), 3) - table.probe("source", "drawn/night")


def test_source_on_a_stream_forgets_nothing_and_gains_nothing(network):
    table = streaming(network, [DAY, NIGHT], adapted(network, "source", {}, 0), probe=2, rounds=2).run()
    assert table.forgetting("drawn/day") == table.forward_gain("drawn/night") == 0
    assert table.online("drawn/day", 1) == table.online("drawn/day", 2)


def interrupted(stream, place):
    """Run ``stream`` with a signal when ``place`` is read."""

    def over(places):
        for one in places:
            if one == place:  # it is read before the batch in front of it runs
                os.kill(os.getpid(), signal.SIGTERM)
            yield one

    with pytest.raises(Stopped, match=rf"^stopped after frame {place}; the same command resumes from there$"):
        stream.run(over=over)


@pytest.mark.parametrize(("stop", "batch"), [(1, 1), (2, 1), (5, 1), (6, 4), ("signal", 1)])
def test_a_stopped_stream_continues_with_the_same_bits(network, tmp_path, stop, batch):
    choice = {"rounds": 2, "probe": 2, "kind": "gradual", "block": 2, "every": 2, "checkpoint_every": 3, "batch": batch}
    parts = [part("day", 0, 1, 2, bad=(1,)), NIGHT]
    whole = streaming(network, parts, sources=[part("sim", 9)], **choice)
    wanted = whole.run()
    first = streaming(network, parts, sources=[part("sim", 9)], **choice, folder=str(tmp_path / "s"), owner="x")
    if stop == "signal":
        interrupted(first, stop := 5)
    else:
        first.run(until=stop)
    again = streaming(network, parts, sources=[part("sim", 9)], **choice, folder=str(tmp_path / "s"), owner="x")
    assert again.progress.position in (stop, stop - 1), "what is left of a batch, or a skipped frame, is read again"
    assert again.progress.batches == (again.progress.position - len(again.progress.skipped)) // batch
    table = again.run()
    assert table.places == wanted.places
    assert torch.equal(table.counts, wanted.counts)
    assert table.skipped == wanted.skipped
    for moment, measured in wanted.probes.items():
        assert all(torch.equal(counts, table.probes[moment][name]) for name, counts in measured.items())
    mine, theirs = again.live.state(), whole.live.state()
    assert all(torch.equal(value, theirs["tensors"][name]) for name, value in mine["tensors"].items())
    assert len(list((tmp_path / "s").glob("state-*"))) == 1


def test_the_state_of_another_stream_or_a_damaged_one_is_refused(network, tmp_path):
    kept = {"folder": str(tmp_path)}
    streaming(network, [DAY], owner="x", **kept).run(until=2)
    with pytest.raises(InputError, match=r"stream.safetensors: is the state of another stream; give another"):
        streaming(network, [DAY], owner="y", **kept)
    (tmp_path / "stream.safetensors").write_bytes(b"x" * 99)
    with pytest.raises(InputError, match="damaged, or not the state of a stream"):
        streaming(network, [DAY], owner="x", **kept)


def test_bad_frames_cost_one_line_each_and_the_stream_goes_on(network, caplog):
    parts = [part("day", 0, 1, 2, 6, bad=(1,), wide=(2,)), part("night", 3, 4, small=(3,))]
    with caplog.at_level(logging.WARNING, "hardy"):
        table = streaming(network, parts, batch=2).run()
    assert [name for _, name, _ in table.skipped] == ["1", "3"]
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "frame 1, 1: skipped: 1.png: torn"
    assert lines[1].startswith("frame 4, 3: skipped: 4x4 pixels; the network needs")
    assert len(lines) == 2
    assert len(table.places) == 4, "a frame of another size is predicted, in a batch of its own"
    assert {one.metric: one.value for one in table.numbers() if one.target == "stream"}["skipped"] == 2


def test_an_empty_stream_and_one_without_a_frame_are_refused(network):
    with pytest.raises(InputError, match=r"^the stream is empty: none of its domains has an image"):
        streaming(network, [part("day")])
    with pytest.raises(InputError, match=r"^no frame of the stream could be used; the first: 0\.png: torn"):
        streaming(network, [part("day", 0, bad=(0,))]).run()


def test_logits_that_are_nan_are_counted_and_the_stream_goes_on(network):
    live = adapted(network, METHOD, {"breaks": 1}, 0)
    table = streaming(network, [DAY], live).run()
    assert table.costs["nan_frames"] == 1
    assert len(table.places) == 3


def test_a_measured_rate_follows_from_the_time_of_a_frame(network, costs):
    slow = streaming(network, [DAY, NIGHT], every="measured", frame_ms=1e-6).run()
    assert slow.costs["updates"] == 1
    assert slow.costs["every"] > 1000
    fast = streaming(network, [DAY, NIGHT], every="measured", frame_ms=1e9).run()
    assert (fast.costs["updates"], fast.costs["every"]) == (6, 1)


def test_costs_are_measured_on_a_copy(network, costs):
    live = adapted(network, METHOD, {}, 0)
    table = streaming(network, [DAY], live).run()
    assert live.step == 3
    assert {one.domain for one in SEEN} == {"drawn/day"}, "the copy knows the domain, or it would detect it"
    assert table.costs["ms_per_frame"] > 0 < table.costs["source_ms_per_frame"]
    weights = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    assert table.costs["memory_mib"] * 2**20 > weights
    assert isinstance(table, StreamTable)


class Poor(TestTimeAdaptation):
    """The source network on the first batches; then a single class."""

    predicts = "after"

    def adapt(self, images: Tensor) -> Tensor:
        logits = self.network(images).detach().clone()
        logits[:, 3] += 100.0 * (int(self.step) >= 2)
        return logits


def test_alarms_are_judged_by_labels_that_the_guard_never_sees(network):
    class Good(Drawn):
        """Its masks are what the network predicts, so that the source is always right."""

        def read(self, item):
            image, _ = super().read(item)
            given = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
            with torch.no_grad():
                return image, network(given)[0].argmax(0).numpy().astype(np.uint8)

    right, wrong = Domain("drawn/right", Good(), {}), Domain("drawn/wrong", Drawn(), {})

    def alarms(domain, **limits):
        limits = {
            "entropy": 0,
            "agreement": 0.5,
            "classes": 0,
            "prototypes": None,
            "drift": None,
            "resets": 99,
            **limits,
        }
        live = Guarded(Poor(network), network, Guard(**limits))
        table = streaming(network, [(domain, (0, 1, 2, 3))], live).run()
        return [int(table.costs[f"alarms_{name}"]) for name in ("true", "false", "missed", "quiet")], table

    found, table = alarms(right)
    assert found[0] == 1
    assert found[1:3] == [0, 0]
    assert table.online() == 1.0, "the source answers where there is an alarm"
    assert next((one.frame, one.cause[:9]) for one in table.actions) == (2, "agreement")
    assert table.costs["guard_forwards"] == 4
    assert alarms(right, agreement=0.0)[0] == [0, 0, 2, 2]
    assert sum(alarms(wrong)[0]) == 4


@pytest.mark.parametrize("guard", [None, Guard(sure=0, on_alarm="nothing")])
def test_it_says_what_domains_were_detected_as(network, guard):
    live = adapted(network, "bn_domains", {"domains": "detected"}, 0, guard=guard)
    table = streaming(network, [DAY, NIGHT], live).run()
    assert table.detected == {"drawn/day": {"detected/1": 3}, "drawn/night": {"detected/1": 3}}, "too few to tell"
    assert ("drawn/night", "batches_detected/1", 3, None) in table.numbers()
    assert not streaming(network, [DAY]).run().detected


@pytest.mark.parametrize(
    ("choice", "reset", "limits", "passes"),
    [({}, 2, {}, 6), ({"every": 2}, "never", {}, 6), ({"every": 2}, "never", {"sure": 0, "source": 0}, 3)],
)
def test_all_forward_passes_of_a_guard_count(network, choice, reset, limits, passes):
    """Those before a reset too, and those on batches that are predicted without adaptation, if it has a part there."""
    live = Guarded(adapted(network, METHOD, {}, 0), network, Guard(**limits))
    table = streaming(network, [DAY, NIGHT], live, reset=reset, **choice).run()
    assert table.costs["guard_forwards"] == passes


@pytest.mark.costly
def test_a_guarded_stream_continues_with_the_same_bits(network, tmp_path):
    def made(**more):
        live = Guarded(adapted(network, METHOD, {}, 0), network, Guard(keep=1, agreement=0.9))
        return streaming(network, [DAY, NIGHT], live, rounds=2, **more)

    wanted = made().run()
    made(folder=str(tmp_path)).run(until=5)
    table = made(folder=str(tmp_path)).run()
    assert wanted.actions, "the guard acts on this stream"
    assert table.actions == wanted.actions
    assert torch.equal(table.counts, wanted.counts)
    assert {k: v for k, v in table.costs.items() if "ms" not in k} == {
        k: v for k, v in wanted.costs.items() if "ms" not in k
    }
