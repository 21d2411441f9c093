"""Training with a tuner: what a checkpoint and an artefact hold, where the rest comes from, and what is refused."""

import json
import shutil
from pathlib import Path

import onnxruntime
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import hardy
from hardy.commands import export, prune, train
from hardy.engine import artefact, changes
from hardy.engine.fit import Fit
from hardy.engine.stop import Stopped
from hardy.errors import InputError
from hardy.recipe import Optim, Recipe, RunSection, from_values
from hardy.sections import Method
from hardy.trust import allowing

NETWORK = "two_part_network:TwoPart"
INSERTS = "low_rank_tuner:LowRank"
FROZEN = pytest.param("frozen", marks=pytest.mark.costly)
TRUST = ["low_rank_tuner", "two_part_network"]
IMAGES = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
PLACE = {"workers": 0, "device": "cpu", "checkpoint_every": 2}


def logits(network):
    with torch.no_grad():
        return network.eval()(IMAGES)


def recipe(town: Path, folder: Path, **sections) -> Recipe:
    values = {
        "network": {"name": NETWORK, "classes": str(town / "classes.yaml")},
        "data": {"sources": ["folder/day"], "root": str(town), "crop": [32, 48]},
        "optim": {"steps": 4, "batch": 4, "lr": 0.1},
        "run": {**PLACE, "folder": str(folder)},
    }
    return from_values({**values, **sections})


@pytest.fixture(scope="module")
def dense(town: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run."""
    return train.run(recipe(town, tmp_path_factory.mktemp("tuned") / "dense"), show=False)


@pytest.fixture(scope="module", params=[FROZEN, INSERTS])
def runs(request: pytest.FixtureRequest, town: Path, dense: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run ``dense`` and the run ``tuned`` that began with it."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copytree(dense, folder / "dense")
    tuner = {"network": {"run": str(folder / "dense")}, "tuner": request.param}
    with hardy_trust():
        train.run(recipe(town, folder / "tuned", **tuner), show=False)
    return folder


def hardy_trust():
    return allowing(TRUST)


@pytest.fixture
def moved(runs: Path, tmp_path: Path) -> Path:
    """A copy of them elsewhere."""
    return shutil.copytree(runs, tmp_path / "moved")


def load(folder: Path):
    return hardy.load(folder, trust=TRUST)


# --------------------------------------------------------------------------------------------------- the artefact


def test_a_tuned_run_holds_what_was_trained_and_says_where_the_rest_is(runs: Path) -> None:
    network = load(runs / "tuned")
    held = set(load_file(runs / "tuned" / "network.safetensors"))
    assert held == set(network.state_dict()) - changes.untrained(network)
    assert not any(name.startswith("body.0.weight") for name in held)
    description = json.loads((runs / "tuned" / "network.json").read_text(encoding="utf-8"))
    dense = json.loads((runs / "dense" / "network.json").read_text(encoding="utf-8"))
    assert description["format"] == "hardy-network/2"
    assert description["rest"]["from"] == {"run": "../dense", "sha256": dense["sha256"]}
    before, after = load(runs / "dense").state_dict(), network.state_dict()
    assert torch.equal(after["head.weight"], before["head.weight"]) is False
    stem = next(name for name in after if name.startswith("body.0") and name.endswith("weight"))
    assert torch.equal(after["body.0.layer.weight" if "layer" in stem else "body.0.weight"], before["body.0.weight"])


def test_it_loads_where_both_were_moved_and_says_the_same(runs: Path, moved: Path) -> None:
    assert torch.equal(logits(load(moved / "tuned")), logits(load(runs / "tuned")))


def test_another_rest_is_refused_in_one_line(moved: Path) -> None:
    network = load(moved / "dense")
    with torch.no_grad():
        network.body[0].weight += 1
    hardy.save(network, moved / "dense")
    with pytest.raises(InputError, match=r"tuned: holds only the tuned weights, and .*dense holds other weights than"):
        load(moved / "tuned")
    shutil.rmtree(moved / "dense")
    with pytest.raises(InputError, match=r"and the rest is in .*dense, which holds no network; restore what") as error:
        load(moved / "tuned")
    assert "\n" not in str(error.value)


def test_a_rest_that_refers_to_itself_is_refused(moved: Path) -> None:
    shutil.rmtree(moved / "dense")
    shutil.copytree(moved / "tuned", moved / "dense")
    with pytest.raises(InputError, match="dense holds other weights than it was tuned with"):
        load(moved / "tuned")


def test_a_saved_copy_refers_to_the_same_run_or_is_complete(moved: Path) -> None:
    network = load(moved / "tuned")
    expected = logits(network)
    referring = hardy.save(network, moved / "deep" / "down" / "copy")
    assert torch.equal(logits(load(referring)), expected)
    assert len(load_file(referring / "network.safetensors")) < len(network.state_dict())
    complete = hardy.save(network, moved / "complete", complete=True)
    hardy.save(network, moved / "dense")  # in place of what it refers to
    assert torch.equal(logits(load(moved / "dense")), expected)
    shutil.rmtree(moved / "dense")
    assert torch.equal(logits(load(complete)), expected)
    everything = hardy.save(network, moved / "everything")  # there is nothing any more that it could refer to
    assert torch.equal(logits(load(everything)), expected)


def test_a_network_in_memory_is_saved_with_everything(town: Path, tmp_path: Path) -> None:
    network = hardy.create(NETWORK, town / "classes.yaml")
    changes.attach(network, Method(name=INSERTS))
    folder = hardy.save(network, tmp_path / "run")
    assert set(load_file(folder / "network.safetensors")) == set(network.state_dict())
    assert torch.equal(logits(load(folder)), logits(network))


@pytest.mark.costly
def test_the_rest_of_pretrained_weights_comes_from_them(tmp_path: Path) -> None:
    options = {"encoder": "mobilenetv3_small_050", "decoder": "linear"}
    start = hardy.create("encoder_decoder", "camvid11", **options)
    weights = {name.removeprefix("backbone.model."): v for name, v in start.state_dict().items() if "backbone" in name}
    torch.save(weights, tmp_path / "encoder.pth")
    network = hardy.create("encoder_decoder", "camvid11", **options, encoder_weights=str(tmp_path / "encoder.pth"))
    network.origin = {"encoder_weights": str(tmp_path / "encoder.pth")}
    changes.attach(network, Method(name="frozen"))
    folder = hardy.save(network, tmp_path / "run")
    held = load_file(folder / "network.safetensors")
    assert held
    assert not any("backbone" in name for name in held)
    assert torch.equal(logits(hardy.load(folder)), logits(network))
    weights["conv_stem.weight"] += 1
    torch.save(weights, tmp_path / "encoder.pth")
    with pytest.raises(InputError, match=r"run: holds only the tuned weights, and encoder_weights .* other weights"):
        hardy.load(folder)


@pytest.mark.costly
def test_a_tuned_run_is_pruned_and_goes_on_being_tuned(moved: Path, town: Path, tmp_path: Path) -> None:
    choice = {"criterion": "taylor", "ratio": 0.4, "round_to": 1, "min_width": 2, "recovery": 2, "reestimate": 2}
    given = {"network": {"run": str(moved / "tuned")}, "evaluate": {"latency": False}}
    with hardy_trust():
        once = recipe(
            town, tmp_path / "small", **given, prune={**choice, "schedule": {"name": "one_shot", "batches": 2}}
        )
        prune.run(once, show=False)
        between = recipe(town, tmp_path / "rounds", **given, prune=choice)
        with pytest.raises(InputError, match=r"is frozen: a criterion that reads gradients needs .* one_shot schedule"):
            prune.run(between, show=False)
    before, small = load(moved / "tuned"), load(tmp_path / "small")
    assert [change["change"] for change in small.changes] == ["tune", "prune"]
    assert sum(value.numel() for value in small.parameters()) < sum(value.numel() for value in before.parameters())
    held = load_file(tmp_path / "small" / "network.safetensors")
    assert set(held) == set(small.state_dict()), "the rest was cut: no other file has it"
    frozen = [{name for name, value in each.named_parameters() if not value.requires_grad} for each in (before, small)]
    assert frozen[0] == frozen[1] != set()


@pytest.mark.costly
def test_a_tuned_run_is_merged_and_then_pruned_like_any_other(moved: Path, town: Path, tmp_path: Path) -> None:
    """By a criterion that reads the gradients of what the tuner froze; the rest of the weights is in the new folder."""
    choice = {"criterion": "taylor", "ratio": 0.4, "round_to": 1, "min_width": 2, "recovery": 2, "reestimate": 2}
    merged = {"network": {"run": str(moved / "tuned"), "merge": True}, "evaluate": {"latency": False}}
    given = recipe(town, tmp_path / "small", **merged, prune=choice)
    assert given.digest() != recipe(town, tmp_path / "x", network={"run": str(moved / "tuned")}, prune=choice).digest()
    with hardy_trust():
        prune.run(given, show=False)
    shutil.rmtree(moved)
    small = load(tmp_path / "small")
    assert [change["change"] for change in small.changes] == ["tune", "merge", "prune"]
    assert all(value.requires_grad for value in small.parameters())
    assert "layer" not in dict(small.body[0].named_children())


@pytest.mark.costly
@pytest.mark.slow
def test_a_tuned_run_is_exported_with_its_tuner_merged(runs: Path, tmp_path: Path) -> None:
    with hardy_trust():
        plain, merged = (
            export.run(
                runs / "tuned",
                tmp_path / f"{merge}.onnx",
                (),
                size=(32, 48),
                dynamic=False,
                logits=True,
                images=None,
                root=None,
                merge=merge,
            )
            for merge in (False, True)
        )
    inserted = load(runs / "tuned").changes[0]["name"] == INSERTS
    assert (merged.nodes < plain.nodes) == inserted
    sessions = [onnxruntime.InferenceSession(one.path, providers=["CPUExecutionProvider"]) for one in (plain, merged)]
    answers = [session.run(None, {"images": IMAGES[:1].numpy()})[0] for session in sessions]
    assert abs(answers[0] - answers[1]).max() <= 1e-4 * abs(answers[0]).max()


def test_a_merge_of_nothing_is_refused_in_one_line(dense: Path, town: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"network: merge: only the network of a run can have a tuner to merge"):
        recipe(town, tmp_path / "a", network={"name": "tiny", "classes": "camvid11", "merge": True})
    said = refusal(recipe(town, tmp_path / "b", network={"run": str(dense), "merge": True}))
    assert said == "tuner: none is attached to this network, so there is nothing to merge"


# ------------------------------------------------------------------------------------------------------- training


@pytest.mark.costly
@pytest.mark.parametrize("tuner", [FROZEN, INSERTS])
@pytest.mark.parametrize("ema", [None, 0.5])
def test_a_checkpoint_holds_what_is_trained_and_a_stopped_run_ends_in_the_same_bits(
    tuner: str, ema: float | None, town: Path, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {"network": {"run": str(dense)}, "tuner": tuner, "optim": {"steps": 4, "batch": 4, "ema": ema}}
    real = Fit._step

    def step(self, batch):
        if self.progress.step == 2:
            raise Stopped(2, 2)
        real(self, batch)

    with hardy_trust():
        whole = train.run(recipe(town, tmp_path / "whole", **chosen), show=False)
        with monkeypatch.context() as patch:
            patch.setattr(Fit, "_step", step)
            with pytest.raises(Stopped):
                train.run(recipe(town, tmp_path / "parts", **chosen), show=False)
        network = load(whole)
        trained = set(network.state_dict()) - changes.untrained(network)
        with safe_open(tmp_path / "parts" / "checkpoint.safetensors", "pt") as file:
            names = set(file.keys())
            assert json.loads(file.metadata()["state"])["rest"]
        held = {name.removeprefix("algorithm/network.") for name in names if name.startswith("algorithm/")}
        assert held == trained
        average = {name.removeprefix("average/network.") for name in names if name.startswith("average/")}
        assert average == (trained if ema else set())
        moments = {name.split("/")[1] for name in names if name.startswith("optimiser/")}
        assert len(moments) == sum(value.requires_grad for value in network.parameters())
        parts = train.run(recipe(town, tmp_path / "parts", **chosen), show=False)
    assert (parts / "network.safetensors").read_bytes() == (whole / "network.safetensors").read_bytes()


def test_a_checkpoint_of_another_rest_is_refused(shallow, colours, tmp_path: Path) -> None:
    def fit(add: float) -> Fit:
        algorithm = shallow()
        network = hardy.create(NETWORK, algorithm.network.label_space)
        with torch.no_grad():
            network.body[0].weight.fill_(add)
        changes.attach(network, Method(name="frozen"))
        algorithm.network = network
        return Fit(algorithm, colours(), Optim(steps=4), RunSection(device="cpu"), folder=tmp_path)

    torch.manual_seed(0)
    first = fit(0.5)
    first.save()
    torch.manual_seed(0)
    assert fit(0.5).resume()
    torch.manual_seed(0)
    with pytest.raises(InputError, match=r"the weights that are not trained differ\); use another folder"):
        fit(0.6).resume()


def test_python_trains_with_a_tuner_and_gives_back_what_it_was_given_when_stopped(
    town: Path, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = {
        "data": {"sources": ["folder/day"], "root": str(town), "crop": [32, 48]},
        "tuner": {"name": INSERTS, "rank": 3},
        "steps": 2,
        "optim": {"batch": 4},
        "run": PLACE,
        "folder": tmp_path / "run",
    }
    network = load(dense)
    before = {name: value.clone() for name, value in network.state_dict().items()}

    def stop(self, batch):
        raise Stopped(1, 2)

    with monkeypatch.context() as patch:
        patch.setattr(Fit, "_step", stop)
        with pytest.raises(Stopped):
            hardy.train(network, **call)
    assert network.changes == []
    assert network.resting == ()
    assert all(value.requires_grad for value in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())

    assert hardy.train(network, **call) is network
    assert network.changes == [{"change": "tune", "name": INSERTS, "options": {"rank": 3}}]
    assert torch.equal(network.body[0].layer.weight, before["body.0.weight"])
    assert not torch.equal(network.head.weight, before["head.weight"])
    assert torch.equal(logits(load(tmp_path / "run")), logits(network))
    again = hardy.train(load(dense), **call)
    assert torch.equal(logits(again), logits(network)), "the run is finished: its weights are loaded"


# --------------------------------------------------------------------------------------------------- what is refused


def refusal(given: Recipe) -> str:
    with hardy_trust(), pytest.raises(InputError) as error:
        train.run(given, show=False)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_has_nothing_to_tune_is_refused_in_one_line(town: Path, runs: Path, tmp_path: Path) -> None:
    tiny = {"network": {"name": "tiny", "classes": str(town / "classes.yaml")}, "tuner": "frozen"}
    assert refusal(recipe(town, tmp_path / "a", **tiny)).startswith("tuner: Tiny names no encoder (Network.encoder)")
    style = {"tuner": "frozen", "algorithm": "style_vae"}
    said = "tuner: frozen has no effect: style_vae does not train the network; leave it out"
    assert refusal(recipe(town, tmp_path / "b", **style)) == said
    again = {"network": {"run": str(runs / "tuned")}, "tuner": "frozen"}
    assert "already; leave tuner out to train that on" in refusal(recipe(town, tmp_path / "c", **again))
    with pytest.raises(InputError, match=r"there is no tuner 'frosen'; did you mean 'frozen'\?"):
        recipe(town, tmp_path / "d", tuner="frosen")
    assert list(tmp_path.iterdir()) == []


def test_pruning_attaches_no_tuner(town: Path, dense: Path, tmp_path: Path) -> None:
    given = recipe(town, tmp_path / "run", network={"run": str(dense)}, tuner="frozen", prune={"ratio": 0.3})
    with pytest.raises(InputError, match=r"^tuner: frozen has no effect: hardy prune attaches no tuner; hardy train"):
        prune.run(given, show=False)


def test_a_tuned_network_is_trained_on_as_it_is_tuned(town: Path, moved: Path, tmp_path: Path) -> None:
    with hardy_trust():
        folder = train.run(recipe(town, tmp_path / "more", network={"run": str(moved / "tuned")}), show=False)
    before, after = load(moved / "tuned"), load(folder)
    assert after.changes == before.changes
    out = changes.untrained(before)
    for name, value in after.state_dict().items():
        if name in out:
            assert torch.equal(value, before.state_dict()[name])
    assert not torch.equal(after.state_dict()["head.weight"], before.state_dict()["head.weight"])
    assert set(load_file(folder / "network.safetensors")) == set(after.state_dict()) - out


def test_other_classes_of_a_tuned_network(moved: Path) -> None:
    network = artefact.load(moved / "tuned", classes="camvid11", trust=TRUST)
    before = load(moved / "tuned").state_dict()
    assert network.head.weight.shape[0] == 11
    assert network.origin is None
    out = changes.untrained(network)
    assert out
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items() if name in out)
