"""One new file is one new method: each is written into an empty folder here, and nothing else is touched.

The folder joins the kind's package by its ``__path__``, as a package of somebody else may extend it, and once more
each file is a module of its own under the name ``"module:Class"``.
"""

import hashlib
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest
import timm
import torch
from new_methods import KIND, METHODS

import hardy
from hardy import cli, recipe, schema
from hardy.choices import choices
from hardy.data.label_spaces import find_label_space
from hardy.data.loader import evaluation_batches
from hardy.data.sources import domains
from hardy.errors import InputError
from hardy.pruning.units import Unit
from hardy.registry import KINDS, Registry
from hardy.sections import Kind, Method
from hardy.types import Batch


@pytest.fixture(params=["in the package", "outside"])
def names(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """kind -> the name by which its new method is asked for; the files are there as long as the test."""
    before, found = set(sys.modules), {}
    for kind, text in METHODS.items():
        text = text.replace("NETWORK", "new_network" if request.param == "in the package" else "new_network:Twice")
        file = tmp_path / "methods" / kind / f"new_{kind}.py"
        file.parent.mkdir(parents=True)
        file.write_text(text, encoding="utf-8")
        package = importlib.import_module(KINDS[kind].package)
        if request.param == "in the package":
            monkeypatch.setattr(package, "__path__", [*package.__path__, str(file.parent)])
            found[kind] = file.stem
        else:
            monkeypatch.syspath_prepend(str(file.parent))
            class_name = text.split("\nclass ")[1].split("(")[0]
            found[kind] = f"{file.stem}:{class_name}"
    importlib.invalidate_caches()
    yield found
    for name in set(sys.modules) - before:
        if name.rpartition(".")[2].startswith("new_"):
            del sys.modules[name]


@pytest.mark.parametrize("kind", METHODS)
def test_it_is_described_and_its_options_are_checked(names: dict[str, str], kind: str) -> None:
    method = KINDS[kind].describe(names[kind])
    assert method.source == "written by a test."
    assert [option.name for option in method.options] == ["slope"]
    with pytest.raises(InputError, match="no option 'slop'; did you mean 'slope'"):
        method.check({"slop": 1})
    assert issubclass(KINDS[kind].get(names[kind]), KINDS[kind].interface)


@pytest.mark.parametrize("kind", METHODS)
def test_one_in_the_package_is_listed(
    names: dict[str, str], kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if ":" in names[kind]:
        assert names[kind] not in KINDS[kind]
        return
    assert names[kind] in KINDS[kind]
    monkeypatch.setattr(sys, "argv", ["hardy", "list", kind])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    listed = capsys.readouterr().out
    assert METHODS[kind].split('"""')[1].split("\n")[0] in listed
    assert f"new_{kind}" in listed


@pytest.mark.slow
def test_the_schema_has_those_of_the_kinds_that_a_recipe_chooses(names: dict[str, str]) -> None:
    fields = [choice.registry for choice in choices(recipe.Recipe)]
    methods = [registry.describe(name) for registry in fields for name in registry]
    options = {option.kind for method in methods for option in method.options}
    chosen = {registry.kind for registry in fields} | options
    text = json.dumps(schema.schema())
    inside = {kind for kind, name in names.items() if ":" not in name}
    assert {kind for kind in inside if f'"{names[kind]}"' in text} == inside & chosen


def test_every_kind_there_is_has_its_new_method_here() -> None:
    assert set(METHODS) == set(KINDS)


def test_a_recipe_takes_them_and_writes_their_options_out(names: dict[str, str]) -> None:
    values = {
        "network": {"name": names["network"]},
        "data": {"sources": [f"{names['dataset']}/road"]},
        "algorithm": {"name": names["algorithm"]},
        "loss": {"name": names["loss"], "slope": 3},
        "tuner": names["tuner"],
        "prune": {"criterion": {"name": names["criterion"]}, "schedule": names["schedule"]},
        "adapt": {"name": names["adaptation"], "reset": 2},
    }
    complete = recipe.from_values(values)
    assert complete.network.options == {"slope": 16}
    assert complete.data.datasets == {names["dataset"]: {"slope": 4}}
    assert complete.algorithm.options == {"slope": 0.5}
    assert complete.loss.options == {"slope": 3.0}
    assert complete.adapt is not None
    assert (complete.adapt.options, complete.adapt.reset) == ({"slope": 1.0}, 2)
    assert complete.tuner is not None
    assert complete.tuner.options == {"slope": 2}
    assert complete.prune is not None
    assert complete.prune.criterion.options == {"slope": 1.0}
    assert complete.prune.schedule.options == {"slope": 1}
    with pytest.raises(InputError, match="no option 'slop'"):
        recipe.from_values(values, ["prune.criterion.slop=1"])


@pytest.mark.slow
def test_a_new_loss_of_distillation_is_chosen_and_teaches(names: dict[str, str], tmp_path: Path) -> None:
    values = {
        "network": "tiny",
        "data": {},
        "teacher": {"run": "x"},
        "algorithm": {"name": "distillation", "losses": {names["distillation"]: {}}},
    }
    complete = recipe.from_values(values, [f"algorithm.losses={{'{names['distillation']}': {{slope: 2}}}}"])
    assert complete.algorithm.options["losses"] == {names["distillation"]: {"slope": 2.0}}
    with pytest.raises(InputError, match="no option 'slop'; did you mean 'slope'"):
        recipe.from_values(
            {**values, "algorithm": {"name": "distillation", "losses": {names["distillation"]: {"slop": 1}}}}
        )
    data = {"sources": [names["dataset"]], "root": str(tmp_path), "crop": [32, 64], "scale": [1.0, 1.0]}
    here = {"optim": {"batch": 4}, "run": {"workers": 0, "device": "cpu"}}
    ends = []
    for slope in (0.0, 5.0):
        torch.manual_seed(0)
        teacher, student = (hardy.create("tiny", classes="camvid11", width=8) for _ in range(2))
        losses = {names["distillation"]: {"slope": slope}}
        hardy.train(
            student, data=data, algorithm={"name": "distillation", "losses": losses}, teacher=teacher, steps=2, **here
        )
        ends.append(student.state_dict())
    assert any(not torch.equal(value, ends[1][key]) for key, value in ends[0].items())


def test_they_work_together(names: dict[str, str], tmp_path: Path) -> None:
    space = find_label_space("camvid11")
    network = hardy.create("tiny", classes=space)
    (domain,) = domains([f"{names['dataset']}/sky"], root=tmp_path, options={names["dataset"]: {"slope": 3}})
    batch = next(iter(evaluation_batches([(domain, domain.items())], space, batch=3)))
    assert batch.images.shape == (3, 3, 32, 64)
    loss = KINDS["loss"].build(names["loss"], {"class_count": len(space)}, slope=3)
    algorithm = KINDS["algorithm"].build(names["algorithm"], {"network": network, "pixel_loss": loss}, slope=1)
    terms = algorithm(Batch(batch.images, batch.labels.long(), batch.domains))
    sum(terms.values()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    plain = torch.nn.functional.cross_entropy(network.outputs(batch.images).logits, batch.labels.long())
    assert terms["segmentation"].item() == pytest.approx(3 * plain.item(), rel=1e-5)
    criterion = KINDS["criterion"].build(
        names["criterion"], {"network": network, "units": [Unit("a", 3, ())], "pixel_loss": loss}
    )
    assert criterion.scores()["a"].tolist() == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", ["in the package", pytest.param("outside", marks=pytest.mark.exhaustive)], indirect=True
)
def test_they_train_measure_and_prune_through_the_front_door(names: dict[str, str], tmp_path: Path) -> None:
    data = {"sources": [names["dataset"]], "root": str(tmp_path), "crop": [32, 64], "scale": [1.0, 1.0]}
    here = {"optim": {"batch": 4}, "run": {"workers": 0, "device": "cpu"}}
    network = hardy.create(names["network"], classes="camvid11")
    before = {name: value.clone() for name, value in network.named_parameters()}
    algorithm = {"name": names["algorithm"], "slope": 1.0}
    hardy.train(network, data=data, algorithm=algorithm, loss=names["loss"], steps=2, folder=tmp_path / "run", **here)
    assert any(not torch.equal(value, before[name]) for name, value in network.named_parameters())
    assert recipe.read(tmp_path / "run" / "recipe.yaml", trust=names.values()).loss.options == {"slope": 2.0}
    table = hardy.evaluate(network, data=[f"{names['dataset']}/sky"], root=tmp_path, device="cpu")
    assert table.rows[0].images == 4
    small = hardy.prune(
        network,
        criterion=names["criterion"],
        data=data,
        ratio=0.5,
        prune={"schedule": names["schedule"], "min_width": 2, "round_to": 1},
        show=False,
        **here,
    )
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in network.parameters())
    # The criterion keeps the channels that come last: of the first layer's filters exactly those are left.
    first, left = (net.get_submodule("first").weight for net in (network, small))
    assert (len(first), len(left)) == (16, 8)
    assert torch.equal(left, first[-len(left) :])


@pytest.mark.slow
def test_a_new_tuner_is_trained_with_saved_and_loaded(names: dict[str, str], tmp_path: Path) -> None:
    data = {"sources": [names["dataset"]], "root": str(tmp_path), "crop": [32, 64], "scale": [1.0, 1.0]}
    here = {"optim": {"batch": 4}, "run": {"workers": 0, "device": "cpu"}}
    network = hardy.create("tiny", classes="camvid11", width=8)
    before = {name: value.clone() for name, value in network.named_parameters()}
    tuner = {"name": names["tuner"], "slope": 1}
    hardy.train(network, data=data, tuner=tuner, steps=2, folder=tmp_path / "run", **here)
    changed = [name for name, value in network.named_parameters() if not torch.equal(value, before[name])]
    assert changed == ["head.bias"]
    images = torch.rand(1, 3, 32, 32)
    loaded = hardy.load(tmp_path / "run", trust=[names["tuner"]])
    assert torch.equal(loaded(images), network(images))
    if ":" in names["tuner"]:
        with pytest.raises(InputError, match="is named in a file and would run code"):
            hardy.load(tmp_path / "run")


def test_a_network_of_a_new_encoder_and_a_new_decoder_is_saved_and_loaded(
    names: dict[str, str], tmp_path: Path
) -> None:
    if ":" in names["encoder"]:
        assert names["encoder"] not in KINDS["encoder"]  # a network asks for an encoder by the name of its size
        return
    parts = {"encoder": "new_pooled", "decoder": names["decoder"], "decoder_options": {"slope": 2}}
    network = hardy.create("encoder_decoder", classes="camvid11", **parts).eval()
    images = torch.rand(2, 3, 32, 48)
    wanted = network(images)
    assert wanted.shape == (2, 11, 32, 48)
    hardy.save(network, tmp_path / "run")
    assert torch.equal(hardy.load(tmp_path / "run")(images), wanted)


def test_new_weights_by_a_short_name_fill_an_encoder(
    names: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = timm.create_model("test_resnet").state_dict()
    torch.save(theirs, tmp_path / "new_weights.pth")
    (tmp_path / "new_weights-1.0.dist-info").mkdir()
    (tmp_path / "new_weights-1.0.dist-info" / "METADATA").write_text("Name: new-weights\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    sha256 = hashlib.sha256((tmp_path / "new_weights.pth").read_bytes()).hexdigest()
    monkeypatch.setattr(KINDS["weights"].get(names["weights"]), "sha256", sha256)
    network = hardy.create("classifier", "camvid11", encoder="test_resnet", encoder_weights=names["weights"])
    assert all(torch.equal(value, theirs[name]) for name, value in network.backbone.state_dict().items())
    hardy.save(network, tmp_path / "run")
    again = hardy.load(tmp_path / "run")
    assert again.mean.flatten().tolist() == [0.25, 0.25, 0.25]
    assert again.architecture["pretrained"]["package"] == "new-weights 1.0"


def test_weights_of_a_new_publication_are_imported(names: dict[str, str], tmp_path: Path) -> None:
    network = hardy.create(names["network"], classes="camvid11", slope=5).eval()
    ours = network.state_dict()
    theirs = {name.replace("first", "stem").replace("head", "classifier"): value for name, value in ours.items()}
    torch.save(theirs, tmp_path / "weights.pth")
    found = hardy.import_weights(tmp_path / "weights.pth", classes="camvid11", source=names["publication"])
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(found.eval()(images), network(images))


@pytest.mark.slow
def test_a_new_kind_is_a_package_a_registry_and_a_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Completion, overrides, checks, schema and list follow from the registry and the mark on the section's field."""
    package = tmp_path / "made_up_kind"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "base.py").write_text(KIND, encoding="utf-8")
    rain = '"""Rain.\\n\\nSource: a test."""\nfrom made_up_kind.base import Weather\n\nclass Rain(Weather):\n'
    text = (
        rain.replace("\\n", "\n") + "    def __init__(self, network, *, drops: int = 3):\n        self.drops = drops\n"
    )
    (package / "rain.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(KINDS, "weather", Registry("weather", "made_up_kind", "Weather"))

    class Forecast(recipe.Recipe):
        weather: Annotated[Method | None, Kind("weather")] = None

    values = {"network": "tiny", "data": {}, "weather": "rain"}
    assert Forecast.of(values).model_dump()["weather"] == {"name": "rain", "drops": 3}
    wet = Forecast.of(values, ["weather.drops=5"])
    assert wet.model_dump()["weather"] == {"name": "rain", "drops": 5}
    with pytest.raises(InputError, match="Rain has no option 'drop'; did you mean 'drops'"):
        Forecast.of(values, ["weather.drop=5"])
    with pytest.raises(InputError, match="there is no weather 'rian'; did you mean 'rain'"):
        Forecast.of({**values, "weather": "rian"})
    plain = recipe.from_values({"network": "tiny", "data": {}})
    dry = Forecast.of({"network": "tiny", "data": {}})
    assert dry.digest() == plain.digest() != wet.digest()
    assert '"const": "rain"' in json.dumps(schema.schema(Forecast))
    assert KINDS["weather"].build("rain", {"network": object()}, drops=2).drops == 2
