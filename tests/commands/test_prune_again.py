"""Pruning what is pruned already, and pruning without a clock."""

import json

import pytest

import hardy
from hardy.commands import prune
from hardy.errors import InputError
from hardy.pruning.silent import silent
from hardy.recipe import from_values
from hardy.records import read as records_of

ONCE = {"criterion": "l2", "schedule": "one_shot", "min_width": 2, "round_to": 1, "ratio": 0.3, "reestimate": 0}


@pytest.fixture
def cut(sections, tmp_path):
    """Prune the run ``origin`` (a folder) or a new network without timing, into ``name``."""

    def run(name, origin=None):
        made = sections(prune=ONCE)
        made["network"] = {"run": str(origin)} if origin else {**made["network"], "name": "tiny"}
        made["optim"] = {**made["optim"], "steps": 1}
        made["evaluate"] = {"latency": False}
        made["run"] = {**made["run"], "folder": str(tmp_path / name)}
        return prune.run(from_values(made))

    return run


@pytest.mark.costly
def test_a_pruned_run_is_named_and_pruned_further(cut, caplog):
    once = cut("once")
    assert "already pruned" not in caplog.text
    twice = cut("twice", once)
    assert f"{once} is already pruned: the goal is relative to its remaining channels" in caplog.text
    sizes = [sum(p.numel() for p in hardy.load(run).parameters()) for run in (once / "dense", once, twice)]
    assert sizes[0] > sizes[1] > sizes[2]


@pytest.mark.costly
def test_without_latency_nothing_is_timed(cut, capsys):
    folder = cut("run")
    metrics = {record.metric for record in records_of(folder / "records.jsonl") if record.target == "cost"}
    assert {"gmacs_before", "gmacs_after", "parameters_after"} <= metrics
    assert not any("milliseconds" in metric for metric in metrics)
    assert "before and after pruning" in capsys.readouterr().out


@pytest.mark.costly
def test_what_scoring_took_is_recorded_also_where_a_call_goes_on(cut, monkeypatch, tmp_path):
    def stopped(*_given, **_named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prune, "_recover", stopped)
        with pytest.raises(KeyboardInterrupt):
            cut("run")
    kept = json.loads((tmp_path / "run" / "pruning.json").read_text(encoding="utf-8"))["took"]
    assert kept.keys() == {"score_steps", "score_seconds"}
    kept["score_seconds"] = 12.5
    description = json.loads((tmp_path / "run" / "pruning.json").read_text(encoding="utf-8"))
    (tmp_path / "run" / "pruning.json").write_text(json.dumps({**description, "took": kept}), encoding="utf-8")
    found = records_of(cut("run") / "records.jsonl")
    assert found
    assert all((record.cost["score_steps"], record.cost["score_seconds"]) == (0.0, 12.5) for record in found)


@pytest.mark.costly
def test_the_reliability_of_the_scores_is_printed_and_recorded(sections, tmp_path, capsys):
    """Scored apart on held-out images, which counts as steps: 2 rounds of 1 step and 2 batches, and 1 step is left."""
    made = sections()
    made["network"] = {**made["network"], "name": "tiny"}
    made["optim"] = {**made["optim"], "steps": 1}
    made["evaluate"] = {"latency": False}
    made["run"] = {**made["run"], "folder": str(tmp_path / "run")}
    rounds = {"schedule": {"name": "iterative", "every": 1, "per_round": 4}, "total_steps": 60}
    scoring = {"part": "source-val", "batches": 2, "norms": "running", "risk": "image"}
    made["prune"] = {"criterion": "taylor", "min_width": 2, "round_to": 1, "ratio": 0.2, **rounds, "scoring": scoring}
    folder = prune.run(from_values(made))
    found = records_of(folder / "records.jsonl")
    description = json.loads((folder / "pruning.json").read_text(encoding="utf-8"))
    last = {record.metric: record.value for record in found if record.target == "scores_last"}
    assert last.keys() == {"reliability"}
    assert last["reliability"] == description["rounds"][-1][1]["reliability"]
    assert -1 <= last["reliability"] <= 1
    count = len(description["rounds"])
    assert count > 1
    assert [step for step, _ in description["rounds"]] == [3 * number for number in range(1, count + 1)]
    costs = found[-1].cost
    assert (costs["score_steps"], costs["recover_steps"]) == (3 * count, 60 - 3 * count)
    assert "reliability" in capsys.readouterr().out


def test_what_cannot_be_scored_apart_is_refused(sections, tmp_path):
    made = sections(prune={**ONCE, "scoring": {"part": "source-val"}})
    made["network"] = {**made["network"], "name": "tiny"}
    made["run"] = {**made["run"], "folder": str(tmp_path / "run")}
    with pytest.raises(InputError, match=r"prune\.scoring: l2 is not scored on images: it reads weights only"):
        prune.run(from_values(made))


@pytest.mark.costly
def test_what_pruning_set_to_zero_stays_zero_in_later_training(town):
    """The gates of the papers: a channel of a block whose residual stream keeps it cannot be cut out."""
    options = {"decoder": "segformer", "decoder_options": {"width": 8}}
    network = hardy.create("encoder_decoder", str(town), encoder="resnet10t", **options)
    data = {"sources": ["folder/day"], "crop": [32, 48], "datasets": {"folder": {"root": str(town)}}}
    given = {"data": data, "optim": {"batch": 2}, "run": {"workers": 0, "device": "cpu"}}
    choice = {"criterion": {"name": "taylor", "gates": "paper"}, "schedule": {"name": "one_shot", "batches": 1}}
    small = hardy.prune(network, prune={**choice, "ratio": 0.4, "round_to": 1, "min_width": 2}, **given)
    before = silent(small)
    assert before
    hardy.train(small, steps=2, **{**given, "optim": {"batch": 2, "lr": 0.1}})
    assert {name: quiet.tolist() for name, quiet in silent(small).items()} == {
        name: quiet.tolist() for name, quiet in before.items()
    }
