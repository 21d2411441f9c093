"""The benchmark of streams: its cells, what its records keep, and the numbers of its tables by hand."""

import glob

import numpy as np
import pytest

import _stream_cells as cells
import _stream_tables as tables
import hardy
import streams
from hardy import records
from hardy.errors import InputError
from hardy.records import Record
from hardy.sections import Guard
from hardy.seed import seeded


def sums(*frames):
    """(n, 3, 2) of frames, each (right, labelled, predicted) pixels of two classes."""
    return np.array(frames, float)


GOOD = [[8, 2], [10, 10], [10, 10]]
POOR = [[5, 5], [10, 10], [10, 10]]


def note(method, order, domains, **other):
    return {
        "kind": "abrupt",
        "rounds": 1,
        "images": 2,
        "source": "",
        "order": order,
        "method": method,
        "lr": 0.001,
        "guard": "",
        "variant": "",
        "every": 1,
        "network": "n",
        "shown": f"s{order}",
        "cells": [[0.5] * len(domains)],
        "alarms": {},
        "known": [],
        "worst_window": 0.5,
        "classes": 2,
        "frames": [len(one) for one in domains],
        "sums": tables.packed(domains),
        **other,
    }


def record(notes):
    return Record(
        "", "stream", (), "stream", notes["order"], "online_miou", 0.5, {"seconds": 10, "frames": 2}, {}, notes
    )


def test_sums_come_back_from_their_text():
    domains = [np.arange(12.0).reshape(2, 3, 2), 1e6 * np.ones((1, 3, 2))]
    back = tables.unpacked({"sums": tables.packed(domains), "classes": 2, "frames": [2, 1]})
    assert all(np.array_equal(one, other) for one, other in zip(domains, back, strict=True))


def test_the_gain_is_of_counts_added_up_over_frames_by_hand():
    """IoU 13/27 and 7/33 of the sums, against 5/15 for both classes: not the mean over frames."""
    mine, base = sums(GOOD, POOR), sums(POOR, POOR)
    pair = (note("tent", 1, [mine]), note("source", 1, [base]))
    assert tables.gain(pair) == pytest.approx(100 * ((13 / 27 + 7 / 33) / 2 - 1 / 3))


def test_frames_of_two_orders_are_drawn_apart_and_those_that_both_show_as_one():
    def images(shown):
        pairs = [note("tent", order, [sums(GOOD, POOR)], shown=shown(order)) for order in (1, 2)]
        return tables._images(pairs, "abrupt")["0"]

    apart, shared = images(lambda order: f"s{order}"), images(lambda order: "s")
    assert (len(apart.names), len(shared.names)) == (4, 2)
    assert np.array_equal(apart.sums.sum(0), shared.sums.sum(0))


def test_neighbours_of_a_drive_are_drawn_as_one():
    drive = note("tent", 1, [sums(*[GOOD] * 41)])
    assert [len(tables._images([drive], kind)["0"].names) for kind in ("abrupt", "camvid_day_dusk")] == [41, 3]


def test_the_interval_of_equal_predictions_is_0_and_of_better_ones_above_it():
    frames = [sums(*[GOOD if n % 3 else POOR for n in range(12)]), sums(*[POOR] * 12)]
    better = [sums(*[[[r + 2, s + 2], n, p] for (r, s), n, p in one]) for one in frames]
    pairs = [(note("tent", order, better), note("source", order, frames)) for order in range(1, 7)]
    mean, low, high = tables.interval(pairs, "abrupt")
    assert 0 < low < mean < high
    assert tables.interval([(base, base) for _, base in pairs], "abrupt") == (0, 0, 0)
    assert tables.cells_of(pairs, "abrupt")[1].startswith("**+")
    assert tables.cells_of(pairs, "abrupt")[2] == "6/6, 0.031"
    assert not tables.cells_of(pairs[:5], "abrupt")[1].startswith("**"), "five orders are an illustration"


def test_a_cell_is_compared_with_the_source_of_the_same_frames_and_network():
    source = note("source", 1, [sums(POOR)], lr=None)
    tent = note("tent", 1, [sums(GOOD)])
    row = tables.Row((), "tent", 0.001)
    for other, many in (({}, 1), ({"network": "other"}, 0), ({"shown": "others"}, 0), ({"lr": 0.01}, 0)):
        found = tables.Found([record(source), record({**tent, **other})])
        assert len(found.of(("abrupt", 1, 2, ""), row)) == many, other


def test_each_part_of_the_guard_acts_alone():
    usual, off = Guard(), Guard(**cells.OFF)
    for name in ("sure", "drift", "entropy", "agreement", "classes", "prototypes"):
        own = Guard(**cells.GUARDS[name])
        assert own == off.model_copy(update={name: getattr(usual, name)})
    assert Guard(**cells.GUARDS["all"]) == usual
    does = {name: Guard(**options).on_alarm for name, options in cells.GUARDS.items()}
    assert does == {**dict.fromkeys(does, "both"), "fallback": "fallback", "rollback": "rollback", "watch": "nothing"}
    assert cells.adapting(cells.Cell("", "abrupt", 1, "tent", guard="all"), {})["guard"] is True
    assert cells.adapting(cells.Cell("", "abrupt", 1, "tent"), {})["guard"] is False


def test_a_slow_method_adapts_on_as_many_frames_as_its_recorded_time_is_worth(tmp_path, monkeypatch):
    costs = tmp_path / "adapt.txt"
    costs.write_text(
        "fast_scnn     source     21.2       1.10       8\n"
        "fast_scnn     tent       64.4       3.62      32\n"
        "fast_scnn     dose      392.2      23.13      76\n"
        "fast_scnn     dose light              171.3      10.87      57\n"
        "swiftnet      eta       64.4       3.62      32\n"
    )
    monkeypatch.setattr(cells, "COSTS", costs)
    assert cells.paced() == {"tent": 4, "dose": 11}
    slow = cells.Cell("frame_rate", "abrupt", 1, "tent", every=4)
    assert cells.streamed(slow, "")["stream"]["every"] == 4


def test_dose_has_the_options_of_every_variant():
    with seeded(0, "network"):
        network = hardy.create("tiny", "camvid11", width=8)
    for variant in cells.VARIANTS:
        options = cells.adapting(cells.Cell("", "abrupt", 1, "dose", variant=variant), {})
        hardy.adapt(network, **{name: value for name, value in options.items() if name not in ("reset", "guard")})


def test_no_two_cells_are_the_same_and_words_choose_among_them():
    made = list(cells.cells(3, 6, ["pruned"]))
    assert len({streams._key(cell, {}) for cell in made}) == len(made)
    assert {cell.group for cell in made} | {"search"} == set(cells.GROUPS)
    few = cells.chosen(made, ["method=tent,dose", "order=1", "group=guard", "rate=10"])
    assert len(few) == 2 * (len(cells.GUARDS) - 1)
    with pytest.raises(InputError, match="--only metod: no such axis; did you mean 'method'"):
        cells.chosen(made, ["metod=tent"])
    with pytest.raises(InputError, match="method=tend: no cell has it; did you mean 'tent'"):
        cells.chosen(made, ["method=tend"])


def test_the_search_takes_the_best_mean_and_shows_only_other_orders():
    scores = {factor: [0.3, 0.4] for factor in cells.TRIED}
    assert tables.best(scores) == 1
    assert tables.best({**scores, 10.0: [0.2, 0.6]}) == 10
    assert tables.best({**scores, 30.0: [0.9]}) is None, "an order is missing"
    assert not {cell.order for cell in cells.searched(3, 6)} & set(cells.ORDERS)
    rate = Record("", "stream", (), "tent", 0, "lr", 0.003, notes={"source": "search"})
    assert tables.Found([rate]).rate("tent", 0.1) == 0.0003


def test_networks_are_found_by_the_seed_of_their_run(tmp_path):
    for name, seed in (("a", 0), ("b", 3)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "network.json").write_text("{}")
        (folder / "recipe.yaml").write_text(f"network: {{name: tiny}}\ndata: {{}}\nrun: {{seed: {seed}}}\n")
    (tmp_path / "unfinished").mkdir()
    assert {
        at: path.name for at, path in streams.networks(f"{glob.escape(str(tmp_path))}/*", "--networks").items()
    } == {1: "a", 4: "b"}
    (tmp_path / "b" / "recipe.yaml").write_text("network: {name: tiny}\ndata: {}\nrun: {seed: 0}\n")
    with pytest.raises(InputError, match="--networks: a and b have the same seed"):
        streams.networks(f"{glob.escape(str(tmp_path))}/*", "--networks")
    with pytest.raises(InputError, match="--source pruned: no finished run"):
        streams.networks(f"{glob.escape(str(tmp_path))}/unf*", "--source pruned")
    with pytest.raises(InputError, match=r"--search .*: no network is there"):
        streams._not_shown(str(tmp_path / "unfinished"), [])
    with pytest.raises(InputError, match="is one of the networks shown"):
        streams._not_shown(str(tmp_path / "a"), [tmp_path / "a"])


def test_a_cell_that_is_recorded_with_its_frames_is_not_left(tmp_path, monkeypatch, capsys):
    words = "streams.py --rounds 1 --images 2 --only method=source --only order=1 --only group=headline --list"
    monkeypatch.setattr("sys.argv", words.split())
    for number, (sums_, left) in enumerate([("", 1), (None, 0)]):
        monkeypatch.setattr(streams, "STORE", tmp_path / f"{number}.jsonl")
        one = note("source", 1, [sums(POOR)], lr=None)
        records.append(streams.STORE, [record(one if sums_ is None else {**one, "sums": sums_})])
        streams.main()
        assert capsys.readouterr().out.splitlines()[1].split()[:4] == ["headline", "1", str(left), str(left)]


def test_wrong_words_cost_one_line(monkeypatch, capsys):
    for word, said in (("--source=pruned", "give NAME=GLOB"), ("--only=kind=abrubt", "did you mean 'abrupt'")):
        monkeypatch.setattr("sys.argv", ["streams.py", "--list", word])
        with pytest.raises(SystemExit) as stopped:
            streams.main()
        err = capsys.readouterr().err
        assert stopped.value.code == 2
        assert said in err
        assert err.count("\n") == 1


@pytest.mark.costly
def test_a_recorded_cell_keeps_what_its_score_is_made_of(tmp_path):
    with seeded(0, "network"):
        network = hardy.create("tiny", "cityscapes19", width=8)
    store = tmp_path / "streams.jsonl"
    for name in ("source", "tent"):
        cell = cells.Cell("", "mixed", 2, name, rounds=1, images=2)
        one = streams.measured(network, cell, {}, streams.SIZE, str(tmp_path / "drawn"))
        records.append(store, [one])
        assert tables.key(one.notes) == streams._key(cell, {})
    base, tent = records.read(store)
    found = tables.Found([base, tent])
    (pair,) = found.of(("mixed", 1, 2, ""), tables.Row((), "tent", 0.001))
    assert tables.gain(pair) == pytest.approx(100 * (tent.value - base.value), abs=1e-6), (
        "in one round both are the same"
    )
    assert streams.seconds_of(cell, [tent]) == pytest.approx(tent.cost["seconds"])
