"""`hardy fold`: the folded network is saved and says what the network says; it is neither pruned nor adapted."""

import json

import pytest
import torch
import yaml
from torch import nn

import hardy
from hardy import records
from hardy.errors import InputError


@pytest.fixture(scope="module")
def dense(town, tmp_path_factory):
    """A run of `tiny` whose batch norms have seen images."""
    torch.manual_seed(0)
    network = hardy.create("tiny", town, width=16)
    network(torch.rand(4, 3, 32, 48))
    folder = hardy.save(network, tmp_path_factory.mktemp("dense"))
    written = {"network": {"name": "tiny", "width": 16, "classes": str(town)}, "data": {"sources": ["folder/day"]}}
    written["data"] |= {"root": str(town), "size": [32, 48]}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**written, "run": {"seed": 3}}), encoding="utf-8")
    return folder


def norms(network):
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_a_folded_network_is_saved_loaded_and_measured(call, dense, town, tmp_path):
    to = tmp_path / "folded"
    said = call("fold", dense, to, "folder/day", "--root", town, "--size", "32x48", "--images", "2")
    assert said.code == 0, said
    assert f"{to}: " in said.out
    assert "the same classes on 2 given images" in " ".join(said.out.split())
    network, folded = hardy.load(dense), hardy.load(to)
    assert norms(folded) < norms(network)
    images = torch.rand(2, 3, 40, 56)
    with torch.no_grad():
        torch.testing.assert_close(folded(images), network(images), rtol=0, atol=1e-5)
        assert folded(images).std() > 0.01, "the tolerance says something"
    lines = records.read(to / "records.jsonl")
    values = {line.metric: line.value for line in lines}
    assert values["folded"] == norms(network) - norms(folded)
    assert values["logit_difference"] < 1e-6
    assert {(line.stage, line.seed, line.sources) for line in lines} == {("fold", 3, ("folder/day",))}
    assert (to / "recipe.yaml").read_text() == (dense / "recipe.yaml").read_text()
    scores = [json.loads(call("--json", "evaluate", run, "folder/day", "--root", town).out) for run in (dense, to)]
    found = [{r["target"]: r["value"] for r in each["records"] if r["metric"] == "miou"} for each in scores]
    assert found[0] == pytest.approx(found[1], abs=1e-3)


def test_a_folded_network_is_not_pruned_adapted_or_folded_again(call, refused, dense, town, tmp_path):
    to = tmp_path / "folded"
    assert call("fold", dense, to, "--size", "32x48").code == 0
    recipe = tmp_path / "prune.yaml"
    values = {"network": {"run": str(to)}, "data": {"sources": ["folder/day"], "root": str(town), "crop": [32, 32]}}
    values |= {"prune": {"criterion": "l2", "ratio": 0.3}, "run": {"folder": str(tmp_path / "small"), "workers": 0}}
    recipe.write_text(yaml.safe_dump(values), encoding="utf-8")
    for verb, words in {
        "prune": ["prune", recipe],
        "adapt": ["evaluate", to, "folder/day", "--root", town, "adapt.name=bn_stats"],
        "fold": ["fold", to, tmp_path / "again"],
    }.items():
        line = refused(*words)
        device = " (for a device, hardy export --statistics observed)" if verb == "adapt" else ""
        assert line.endswith(f"so hardy does not {verb} it; {verb} the network before folding{device}")
    assert not (tmp_path / "small").exists()
    with pytest.raises(InputError, match="does not prune it"):
        hardy.prune(hardy.load(to), criterion="l2", ratio=0.3)
    with pytest.raises(InputError, match="does not adapt it"):
        hardy.adapt(hardy.load(to), "tent")


def test_a_call_that_is_refused_writes_nothing(refused, dense, tmp_path):
    assert refused("fold", dense, dense).endswith("already contains a network; give another folder")
    assert refused("fold", dense, tmp_path / "to", "--images", "3").endswith("name a domain")
    assert not (tmp_path / "to").exists()
