"""``hardy prune`` with floors, a stop rule, batch-norm re-estimation, and the dense network as a teacher."""

import copy
from itertools import islice

import pytest
import torch

import hardy
from hardy.commands import prune, train
from hardy.engine import protocol
from hardy.engine.protocol import Settings
from hardy.errors import InputError
from hardy.ops.norms import reestimate
from hardy.recipe import from_values
from hardy.records import read as records_of

ONCE = {"criterion": "l2", "schedule": "one_shot", "min_width": 2, "round_to": 1, "ratio": 0.4}


@pytest.fixture(scope="module")
def dense(town, tmp_path_factory):
    """A run that knows the town's day well, and its network."""
    folder = tmp_path_factory.mktemp("dense")
    values = {
        "network": {"name": "tiny", "width": 8, "classes": str(town)},
        "data": {"sources": ["folder/day"], "datasets": {"folder": {"root": str(town)}}, "crop": [32, 48]},
        "optim": {"steps": 60, "batch": 4, "lr": 0.05},
        "evaluate": {"select": "last"},
        "run": {"folder": str(folder / "run"), "device": "cpu", "workers": 0, "threads": 1},
    }
    return train.run(from_values(values), show=False)


@pytest.fixture(autouse=True)
def no_timing(monkeypatch):
    """What the networks cost is measured elsewhere."""
    monkeypatch.setattr(prune, "costs", lambda *_: ([], []))
    monkeypatch.setattr(prune, "show_costs", lambda *_: None)


@pytest.fixture
def values(sections, dense):
    """``values(stop={...})``: sections that prune the dense run; the arguments are added to its prune section."""

    def build(**settings):
        made = sections(prune={**ONCE, **settings})
        made["network"] = {"run": str(dense)}
        made["data"] = {**made["data"], "unseen": []}
        return made

    return build


def statistics(network):
    return {name: value for name, value in network.state_dict().items() if "running_" in name}


def drawn(recipe, network, stage, count):
    """The first images of a stage's training batches."""
    parts = protocol.split(recipe.data, recipe.run.seed)
    stream = protocol.training(parts.train, network.label_space, Settings.of(recipe), stage=stage)
    return [batch.images for batch in islice(stream(0, 0, 1), count)]


@pytest.mark.costly
def test_statistics_are_reestimated_after_the_cut(values, tmp_path):
    networks = {}
    for count in (0, 3):
        made = values(reestimate=count)
        made["run"] = {**made["run"], "folder": str(tmp_path / str(count))}
        recipe = from_values(made)
        networks[count] = hardy.load(prune.run(recipe, show=False))
    plain, counted = networks[0], networks[3]
    assert plain.plan == counted.plan
    for (name, value), other in zip(plain.named_parameters(), counted.parameters(), strict=True):
        assert torch.equal(value, other), name
    by_hand = copy.deepcopy(plain)
    reestimate(by_hand, drawn(recipe, plain, "reestimate", 3))
    wanted, before = statistics(by_hand), statistics(plain)
    assert all(torch.equal(value, wanted[name]) for name, value in statistics(counted).items())
    assert not any(torch.equal(value, before[name]) for name, value in wanted.items())


def test_without_sources_statistics_stay(town):
    network = hardy.create("tiny", town, width=8)
    network(torch.rand(4, 3, 32, 48))
    small = hardy.prune(
        network, criterion="l2", ratio=0.4, prune={**ONCE, "ratio": None}, run={"device": "cpu"}, show=False
    )
    assert small.plan
    kept = statistics(network)
    for name, value in statistics(small).items():
        module = name.rpartition(".")[0]
        places = small.plan.get(module, {}).get("out", range(len(kept[name])))
        assert torch.equal(value, kept[name][list(places)]), name


@pytest.mark.costly
def test_the_stop_rule_bounds_the_fall_on_domains_that_are_neither_sources_nor_unseen(values, dense, town, tmp_path):
    """What is cut scores on the held-out night what the rule allowed: all of it where any fall is borne, and less where
    nine tenths of that fall are, whatever the fall is on this machine."""
    night = {"data": ["folder/night"], "root": town, "device": "cpu"}
    whole = hardy.evaluate(hardy.load(dense), **night).unseen
    removed, fall = [], 1 / 0.9
    for _ in range(2):
        drop = 0.9 * fall
        made = values(stop={"domains": ["folder/night"], "drop": drop}, ratio=0.6, reestimate=2)
        made["run"] = {**made["run"], "folder": str(tmp_path / str(drop))}
        folder = prune.run(from_values(made), show=False)
        fall = whole - hardy.evaluate(hardy.load(folder), **night).unseen
        assert 0 < fall <= drop + 1e-12
        found = {(r.target, r.metric): r.value for r in records_of(folder / "records.jsonl")}
        removed.append(found["cost", "removed"])
    assert removed[0] == pytest.approx(0.6, abs=0.005)
    assert 0 < removed[1] < 0.595


@pytest.mark.costly
def test_the_table_of_sensitivities_is_shown_recorded_and_nothing_is_cut(values, dense, capsys):
    made = values(floors={"images": 4, "shares": [0.25, 0.5], "tolerance": 0.06})
    folder = prune.sensitivity(from_values(made))
    shown = capsys.readouterr().out
    assert "sensitivity by l2" in shown
    assert "-25%" in shown
    assert not (folder / "network.json").exists()
    records = [r for r in records_of(folder / "records.jsonl") if r.stage == "sensitivity"]
    by_metric = {}
    for record in records:
        by_metric.setdefault(record.metric, {})[record.target] = record.value
    assert set(by_metric) == {"score", "drop_0.25", "drop_0.5", "floor"}
    floors = by_metric["floor"]
    assert set(floors) == set(by_metric["drop_0.5"])
    allowed = {name for name, drop in by_metric["drop_0.25"].items() if drop <= 0.06}
    network = hardy.load(dense)
    for name, floor in floors.items():
        size = network.get_submodule(name).weight.shape[0]
        assert (floor < size) == (name in allowed), name
    assert 0 < len(allowed) < len(floors)

    made["prune"] = {**made["prune"], "ratio": 0.08}
    made["run"] = {**made["run"], "folder": made["run"]["folder"] + "-cut"}
    small = hardy.load(prune.run(from_values(made), show=False))
    for name, floor in floors.items():
        assert small.get_submodule(name).weight.shape[0] >= floor, name
    assert small.plan


@pytest.mark.costly
def test_stages_are_measured_with_a_criterion_that_needs_data(values):
    made = values(floors={"images": 2, "shares": [0.5], "by": "stage", "batches": 2}, criterion="taylor")
    before = from_values(made)
    folder = prune.sensitivity(before, show=False)
    records = records_of(folder / "records.jsonl")
    groups = [r.target for r in records if r.metric == "drop_0.5"]
    assert 1 <= len(groups) < len([r for r in records if r.metric == "floor"])


@pytest.mark.costly
def test_the_look_trains_a_network_that_is_only_named_and_pruning_goes_on_from_it(sections, capsys):
    made = sections(prune={**ONCE, "floors": {"images": 1, "shares": [0.5], "tolerance": 1.0}}, optim={"steps": 2})
    folder = prune.sensitivity(from_values(made), show=False)
    trained = (folder / "dense" / "network.safetensors").read_bytes()
    assert prune.run(from_values(made)) == folder
    assert (folder / "dense" / "network.safetensors").read_bytes() == trained
    assert "sensitivity by l2" in capsys.readouterr().out
    assert (folder / "network.json").exists()


@pytest.mark.costly
def test_the_dense_network_teaches_the_recovery(values, dense):
    made = values(recovery=3, recover_with={"name": "distillation", "losses": {"kl": {"temperature": 2.0}}})
    made["run"] = {**made["run"], "log_every": 1}
    before = (dense / "network.safetensors").read_bytes()
    folder = prune.run(from_values(made), show=False)
    log = (folder / "train.log").read_text(encoding="utf-8")
    assert log.count("  kl ") == 3
    first = float(log.split("  kl ")[1].split()[0])
    assert 0 < first < 20
    assert (dense / "network.safetensors").read_bytes() == before
    assert set(hardy.load(folder).state_dict()) == set(hardy.load(dense).state_dict())


@pytest.mark.costly
def test_recover_with_takes_the_place_of_the_algorithm_from_python_too(dense, town):
    network = hardy.load(dense)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    here = {
        "data": {"sources": ["folder/day"], "root": str(town), "crop": [32, 48]},
        "optim": {"batch": 4},
        "run": {"device": "cpu", "workers": 0},
        "criterion": "l2",
        "ratio": 0.4,
        "show": False,
    }
    settings = {key: value for key, value in ONCE.items() if key not in ("ratio", "criterion")} | {"recovery": 4}
    plain, taught, again = (
        hardy.prune(network, prune={**settings, "recover_with": method}, **here)
        for method in (None, "distillation", {"name": "distillation", "losses": {"kl": {"weight": 3.0}, "cwd": {}}})
    )
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in taught.state_dict().items())
    assert not torch.equal(plain.state_dict()[(name := next(iter(plain.state_dict())))], taught.state_dict()[name])


@pytest.mark.costly
def test_a_recovery_that_would_not_train_the_network_is_refused(values):
    with pytest.raises(InputError, match=r"prune\.recover_with: style_vae does not train the network"):
        prune.run(from_values(values(recover_with="style_vae", recovery=2)), show=False)
