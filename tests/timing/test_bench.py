"""What is timed and counted, checked without a clock: a fake one, turns written down, allocations known by hand."""

import math
import os

import numpy as np
import pytest
import torch
from torch import nn

from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.networks.building.wrapped import wrap
from hardy.timing import clock, memory
from hardy.timing.bench import Comparison, bench, compare
from hardy.timing.hardware import fingerprint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return create("tiny", "camvid11")


@pytest.mark.costly
def test_a_row_for_every_runtime_batch_and_network():
    layers = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 11, 1)
    network = wrap(nn.Sequential(*layers), "camvid11")
    rows = bench(network, size=(32, 48), batches=(1, 3), runtime=("eager", "onnxruntime"), runs=3, warm_up=1)
    assert [(row.runtime, row.batch) for row in rows] == [
        ("eager", 1),
        ("eager", 3),
        ("onnxruntime", 1),
        ("onnxruntime", 3),
    ]
    for row in rows:
        assert 0 < row.least <= row.p50 <= row.p95
        assert (row.size, row.runs, row.warm_up, row.device, row.copies) == ((32, 48), 3, 1, "cpu", False)
        assert row.memory_of == ("tensors" if row.runtime == "eager" else "process")
        assert row.memory is None or row.memory > 0
        # onnxruntime folds the batch norms, PyTorch as it is does not; the row says so.
        assert row.folded == (row.runtime == "onnxruntime")
        assert row.argmax
        assert "argmax" in row.timed
        assert row.to_json()["size"] == (32, 48)


@pytest.mark.costly
def test_what_is_timed_follows_the_output_and_the_network(tiny):
    (row,) = bench(tiny, size=(32, 32), runs=1, warm_up=0, output="logits")
    assert (row.argmax, row.resize, row.ratio) == (False, True, None)
    assert row.timed.startswith("timed: normalisation, network, upsampling (float32, batch norm not folded);")
    module = nn.Sequential(nn.Conv2d(3, 7, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    (row,) = bench(wrap(module, "pacs7", image_level=True), size=(32, 32), runs=1, warm_up=0)
    assert (row.resize, row.folded) == (False, True)
    assert "upsampling" not in row.timed


@pytest.mark.costly
def test_networks_and_threads_are_left_as_they_were(tiny):
    tiny.train()
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    threads = torch.get_num_threads()
    (row,) = bench(tiny, size=(32, 32), threads=2, runs=1, warm_up=0)
    assert row.threads == 2
    assert torch.get_num_threads() == threads
    assert tiny.training
    assert all(torch.equal(value, before[name]) for name, value in tiny.state_dict().items())
    with pytest.raises(RuntimeError, match="broken"), clock.threads_set(2):
        raise RuntimeError("broken")
    assert torch.get_num_threads() == threads


@pytest.mark.costly
def test_runners_take_turns_after_the_warm_up(monkeypatch):
    turns = []
    ticks = iter(np.cumsum([0, 1, 0, 2, 0, 3, 0, 8]) / 1e3)
    monkeypatch.setattr(clock.time, "perf_counter", lambda: next(ticks))
    first, second = clock.interleave(
        [lambda: turns.append("A"), lambda: turns.append("B")], runs=2, warm_up=1, device=torch.device("cpu")
    )
    assert "".join(turns) == "ABABAB"
    np.testing.assert_allclose(first, [1, 3])
    np.testing.assert_allclose(second, [2, 8])


def fake(monkeypatch, first, second):
    monkeypatch.setattr("hardy.timing.bench.interleave", lambda *_: [np.array(first, float), np.array(second, float)])


def test_comparison_is_of_pairs(tiny, monkeypatch):
    # Both slow down together tenfold; each pair still says 0.5, 0.6, 0.7, 0.8, 0.9.
    fake(monkeypatch, [10, 10, 100, 100, 100], [5, 6, 70, 80, 90])
    found = compare(tiny, tiny, size=(32, 32))
    assert (found.before_p50, found.after_p50) == (100, 70)
    assert found.low == pytest.approx(0.6)
    assert found.ratio == pytest.approx(0.7)
    assert found.high == pytest.approx(0.8)
    assert found.faster
    assert found.to_json()["faster"] is True


@pytest.mark.parametrize(
    ("ratios", "verdict"), [([0.5, 0.6, 0.7], "faster"), ([0.5, 0.9, 1.5], "NOT faster"), ([1.1, 1.2, 3], "slower")]
)
def test_the_verdict_is_plain(tiny, monkeypatch, ratios, verdict):
    fake(monkeypatch, [1, 1, 1], ratios)
    found = compare(tiny, tiny, size=(32, 32))
    assert found.faster == (verdict == "faster")
    assert f": {verdict} (" in str(found)


def test_a_network_is_not_faster_than_itself_times_nothing():
    same = Comparison(2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, "eager", (32, 32), 1, 30)
    assert not same.faster


def test_ratios_of_the_two_rows_are_inverse(tiny, monkeypatch):
    fake(monkeypatch, [4, 6, 9], [2, 2, 2])
    one, other = bench(tiny, size=(32, 32), against=tiny)
    assert (one.network, other.network) == ("network", "against")
    assert (one.ratio, other.ratio) == (3, pytest.approx(1 / 3))


def test_a_form_is_timed_beside_the_network_as_it_is(tiny, monkeypatch):
    torch.manual_seed(0)
    other = create("tiny", "camvid11")
    monkeypatch.setattr("hardy.timing.bench.interleave", lambda *_: list(np.array([[8, 8], [4, 4], [2, 4], [1, 1]])))
    rows = bench(tiny, size=(32, 48), against=other, fold=True, channels_last=True)
    words = "folded, channels last"
    assert [(row.network, row.form, row.against, row.ratio) for row in rows] == [
        ("network", "as it is", "against", 2),
        ("against", "as it is", "network", 0.5),
        ("network", words, "as it is", 0.375),
        ("against", words, "as it is", 0.25),
    ]
    assert [(row.folded, row.folding, row.layout) for row in rows[::2]] == [
        (False, "", "channels first"),
        (True, "16 of 16 batch norms folded", "channels last"),
    ]
    (note,) = rows[2].notes
    assert note.startswith("16 of 16 batch norms folded: the same classes on 2 random images")
    assert "(float32, batch norm folded, channels last); not timed" in rows[2].timed
    assert tiny.state_dict().keys() == other.state_dict().keys()  # neither network was changed


@pytest.mark.costly
def test_bfloat16_takes_the_same_images_and_says_what_it_costs(tiny):
    plain, low = bench(tiny, size=(32, 48), runs=2, warm_up=0, dtype="bfloat16")
    assert (plain.precision, plain.against, plain.notes) == ("float32", "bfloat16", ())
    assert (low.precision, low.against, low.form) == ("bfloat16", "as it is", "bfloat16")
    share = float(low.notes[0].removeprefix("bfloat16: the class of float32 on ").split("%")[0])
    assert 50 < share <= 100
    assert low.memory < plain.memory
    assert next(tiny.parameters()).dtype == torch.float32


@pytest.mark.costly
def test_what_is_partly_folded_is_said_so():
    network = wrap(
        nn.Sequential(
            nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 11, 1)
        ),
        "camvid11",
    )
    row = bench(network, size=(32, 32), runs=1, warm_up=0, fold=True)[1]
    assert not row.folded
    assert "(float32, 1 of 2 batch norms folded); not timed" in row.timed


@pytest.mark.costly
def test_compare_in_onnxruntime_measures_both():
    small = wrap(nn.Conv2d(3, 11, 1), "camvid11")
    found = compare(small, small, size=(32, 32), runtime="onnxruntime", runs=3)
    assert found.runtime == "onnxruntime"
    assert found.low <= found.ratio <= found.high
    assert math.isfinite(found.ratio)


def test_peak_of_tensors_by_hand():
    mib = torch.rand(1, 4, 256, 256)  # 1 MiB

    def run():
        first = torch.relu(mib)  # 1 held
        second = torch.relu(first)  # 2 held
        del first  # 1 held
        twice = torch.cat([second, second], 1)  # 3 held
        return twice.amax(1)  # a quarter more: the peak is 3.25

    weights = nn.Linear(512, 512, bias=False)  # 1 MiB, and 1 MiB of images
    assert memory.tensors(run, weights, mib) == 5.25


@pytest.mark.costly
def test_peak_of_a_network_is_its_largest_moment():
    network = wrap(nn.Conv2d(3, 19, 1), "cityscapes19")
    (row,) = bench(network, size=(256, 512), runs=1, warm_up=0)
    plane = 256 * 512 * 4 / memory.MIB
    # Images (3 planes), normalised images (2 x 3 for the difference and the quotient) and logits (19) at the least.
    assert 3 + 3 + 19 <= row.memory / plane <= 3 + 6 + 2 * 19 + 3


@pytest.mark.costly
def test_measuring_memory_says_nothing(capfd, tiny):
    bench(tiny, size=(32, 32), runs=1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (8, 64)}, "size"),
        ({"size": (64,)}, "size"),
        ({"size": (32, 32), "batches": ()}, "batch 0"),
        ({"size": (32, 32), "batches": (2, 0)}, "batch 0"),
        ({"size": (32, 32), "threads": 0}, "threads 0"),
        ({"size": (32, 32), "runs": 0}, "runs 0"),
        ({"size": (32, 32), "warm_up": -1}, "warm_up -1"),
        ({"size": (32, 32), "runtime": ("eagre",)}, "no runtime 'eagre'"),
        ({"size": (32, 32), "device": "cuda:99"}, "cuda:99"),
        ({"size": (32, 32), "dtype": "float8"}, "no dtype 'float8'; there are: float32, bfloat16"),
        ({"size": (32, 32), "dtype": "bfloat16", "runtime": ("onnxruntime",)}, "dtype bfloat16: .* runtime eager"),
        ({"size": (32, 32), "channels_last": True, "runtime": ("eager", "onnxruntime")}, "channels_last: .* eager"),
    ],
)
def test_bad_arguments_are_refused(tiny, arguments, message):
    with pytest.raises(InputError, match=message):
        bench(tiny, **arguments)


def test_the_fingerprint_names_this_machine():
    found = fingerprint()
    assert found.cpu
    assert 1 <= found.cores <= os.cpu_count()
    assert (found.threads, found.torch) == (torch.get_num_threads(), torch.__version__)
    assert (found.gpu is not None) == torch.cuda.is_available()
    assert found.cpu in str(found)
    assert set(found.to_json()) >= {"cpu", "cores", "threads", "load", "gpu", "torch", "onnxruntime"}
