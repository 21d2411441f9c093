"""``hardy search``: from a recipe to an architecture that trains; stopped and gone on; refused. No clock is read."""

import json

import pytest

import hardy
from hardy.commands import search, train
from hardy.engine.search import Judge
from hardy.errors import InputError
from hardy.networks.architectures.multipath import parse
from hardy.ops.cost import gmacs, parameters
from hardy.recipe import from_values
from hardy.records import read as records_of
from hardy.searching.cost import parts
from hardy.timing import layer_tables, priced
from hardy.timing.layer_tables import LayerTable

MACHINE = {"device": "abacus", "runtime": "eager", "threads": "1", "version": "1"}
CHOICE = {
    "budget_ms": 15,
    "evaluations": 5,
    "population": 2,
    "sample": 2,
    "filters": 2,
    "layers": 4,
    "images": 2,
    "reestimate": 1,
}


def milliseconds(shapes):
    return [shape.macs / 1e6 + 1e-3 for shape in shapes]


class Turns:
    """In place of the clock: beside 10 ms, in proportion to the parts."""

    def __init__(self, first, size, runtime, device):
        self.size, self.first = size, self.of(first, size)

    @staticmethod
    def of(network, size):
        architecture, classes = parse(network.architecture["options"]["arch"], "x"), len(network.label_space)
        return sum(milliseconds(parts(architecture, size, classes)))

    def __call__(self, network):
        return 10.0, self.of(network, self.size) / self.first


@pytest.fixture(autouse=True)
def no_clock(monkeypatch, tmp_path):
    def measured(runtime, device):
        return LayerTable(MACHINE, milliseconds, tmp_path / "cache")

    monkeypatch.setattr(layer_tables, "open_table", measured)
    monkeypatch.setattr(priced, "Turns", Turns)


@pytest.fixture
def values(sections, town, tmp_path):
    """``values(folder, **search)``: a search on the town's day."""

    def build(folder="run", **settings):
        made = sections(optim={"steps": 2}, search={**CHOICE, **settings}, run={"folder": str(tmp_path / folder)})
        made["data"] = {**made["data"], "cache": True, "scale": None}
        return {**made, "network": {"name": "fasterseg", "classes": str(town)}}

    return build


@pytest.mark.costly
def test_from_a_recipe_to_an_architecture_that_trains(values, tmp_path, capsys):
    recipe = from_values(values())
    folder = search.run(recipe)
    said = capsys.readouterr().out
    description = json.loads((folder / "architecture.json").read_text())
    meta = description["meta"]
    assert meta["met"]
    assert meta["measured_ms"] <= 15
    assert meta["predicted_ms"] == pytest.approx(meta["measured_ms"])
    assert f"measured {meta['measured_ms']:.4g}" in said
    assert "met (eager, abacus, 32x48, 1 threads; 5 tried, " in said
    lines = [json.loads(line) for line in (folder / "search.jsonl").read_text().splitlines()]
    assert [line["number"] for line in lines] == list(range(5))
    assert all(line["predicted_ms"] <= 15 for line in lines)
    assert meta["score"] in {line["score"] for line in lines}
    found = hardy.load(folder)
    assert found.architecture["options"]["arch"] == {key: value for key, value in description.items() if key != "meta"}
    assert parameters(found) < parameters(hardy.load(folder / "largest"))
    records = {record.metric: record.value for record in records_of(folder / "records.jsonl")}
    assert records["milliseconds_measured"] == meta["measured_ms"]
    assert records["gmacs_found"] == pytest.approx(gmacs(found, (32, 48)))
    assert records["parameters_found"] == parameters(found)
    search.run(recipe)
    assert "is finished" in capsys.readouterr().out
    trained = values("trained")
    del trained["search"]
    trained["network"]["arch"] = str(folder / "architecture.json")
    assert parse(hardy.load(train.run(from_values(trained), show=False)).architecture["options"]["arch"], "x") == parse(
        description, "x"
    )


@pytest.mark.costly
def test_stopped_and_gone_on_it_ends_with_the_same_bits(values, monkeypatch):
    whole = search.run(from_values(values("whole")), show=False)
    calls, true = [], Judge.__call__

    def failing(judge, architecture):
        calls.append(architecture)
        if len(calls) == 4:
            raise RuntimeError("power cut")
        return true(judge, architecture)

    monkeypatch.setattr(Judge, "__call__", failing)
    recipe = from_values(values("stopped"))
    with pytest.raises(RuntimeError, match="power cut"):
        search.run(recipe, show=False)
    stopped = search.run(recipe, show=False)
    for name in ("search.jsonl", "architecture.json", "latency.json", "network.safetensors", "largest/network.json"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes(), name
    assert len(calls) == 4 + 2 + 1  # the two that were left, and the largest
    assert not (stopped / "checkpoint.safetensors").exists()


@pytest.mark.parametrize(
    ("section", "settings", "said"),
    [
        (
            "search",
            {"budget_ms": 4},
            "search.budget_ms: 4 cannot be reached: the fastest network of the space takes 10 ms",
        ),
        ("search", {"population": 9}, "a population of 9 needs more than 9 evaluations, and there are 5"),
        ("search", {"method": "evolving"}, "search.method: input should be 'evolution' or 'random' (got 'evolving')"),
        ("search", {"budgetms": 4}, "unknown key 'search.budgetms'; did you mean 'budget_ms'?"),
        ("network", {"arch": "teacher"}, "network: a search finds a fasterseg from scratch"),
        ("algorithm", {"name": "mixup"}, "algorithm: mixup cannot train shared weights"),
        ("evaluate", {"select": "last"}, "held-out images, and there are none; set evaluate.select to source-val"),
    ],
)
def test_what_cannot_be(values, section, settings, said):
    made = values()
    made[section] = {**made.get(section, {}), **settings}
    with pytest.raises(InputError) as error:
        search.run(from_values(made), show=False)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_no_search_section(values):
    made = values()
    del made["search"]
    with pytest.raises(InputError, match="hardy search needs a search section, such as search:"):
        search.run(from_values(made), show=False)
