"""One new file is one new method: each is written into an empty folder here, and nothing else is touched.

The folder joins the kind's package by its ``__path__``, as a package of somebody else may extend it, and once more
each file is a module of its own under the name ``"module:Class"``.
"""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import hardy
from hardy import cli, recipe, schema
from hardy.data.labels import label_space
from hardy.data.loader import evaluation_batches
from hardy.data.sources import domains
from hardy.errors import InputError
from hardy.pruning.units import Unit
from hardy.registry import KINDS
from hardy.types import Batch

METHODS = {
    "criterion": '''"""Keeps the channels that come last.

Source: written by a test.
"""
import torch
from hardy.pruning.criteria.base import Criterion

class Late(Criterion):
    needs_data = False

    def __init__(self, network, units, pixel_loss, *, slope: float = 1.0):
        super().__init__(network, units, pixel_loss)
        self.slope = slope

    def scores(self):
        return {u.name: self.slope * torch.arange(u.size, dtype=torch.float64) for u in self.units}
''',
    "algorithm": '''"""Minimises the losses of the network on darker images.

Source: written by a test.
"""
from hardy.algorithms.base import Algorithm

class Darker(Algorithm):
    def __init__(self, network, pixel_loss, *, slope: float = 0.5):
        super().__init__(network)
        self.pixel_loss, self.slope = pixel_loss, slope

    def forward(self, batch):
        outputs = self.network.outputs(self.slope * batch.images)
        return self.network.losses(outputs, batch.labels, self.pixel_loss)
''',
    "loss": '''"""Cross-entropy, to a slope.

Source: written by a test.
"""
from torch.nn import functional as F
from hardy.losses.base import Loss

class Sloped(Loss):
    def __init__(self, class_count, *, slope: float = 2.0):
        super().__init__(class_count)
        self.slope = slope

    def __call__(self, logits, labels):
        return self.slope * F.cross_entropy(logits, labels, ignore_index=255)
''',
    "dataset": '''"""Two domains of plain colours: all road, all sky.

Source: written by a test.
"""
import numpy as np
from hardy.data.base import Dataset
from hardy.data.labels import label_space

class Plain(Dataset):
    def __init__(self, root, *, slope: int = 4):
        self.labels, self.count = label_space("camvid11"), slope

    def index(self):
        items = lambda name: tuple((name, number) for number in range(self.count))
        return {name: {"train": items(name)} for name in ("road", "sky")}

    def read(self, item):
        value = self.labels.index(item[0])
        return np.full((32, 64, 3), 20 * value, np.uint8), np.full((32, 64), value, np.uint8)
''',
}


@pytest.fixture(params=["in the package", "outside"])
def names(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """kind -> the name by which its new method is asked for; the files are there as long as the test."""
    before, found = set(sys.modules), {}
    monkeypatch.syspath_prepend(str(tmp_path))
    for kind, text in METHODS.items():
        file = tmp_path / f"new_{kind}.py"
        file.write_text(text, encoding="utf-8")
        package = importlib.import_module(KINDS[kind].package)
        if request.param == "in the package":
            monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
            found[kind] = file.stem
        else:
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
    assert names[kind] in json.dumps(schema.schema()) or kind == "dataset"


def test_a_recipe_takes_them_and_writes_their_options_out(names: dict[str, str]) -> None:
    values = {
        "network": {"name": "tiny"},
        "data": {"sources": [f"{names['dataset']}/road"]},
        "algorithm": {"name": names["algorithm"]},
        "loss": {"name": names["loss"], "slope": 3},
        "prune": {"criterion": {"name": names["criterion"]}},
    }
    complete = recipe.from_values(values)
    assert complete.algorithm.options == {"slope": 0.5}
    assert complete.loss.options == {"slope": 3.0}
    assert complete.prune is not None
    assert complete.prune.criterion.options == {"slope": 1.0}
    with pytest.raises(InputError, match="no option 'slop'"):
        recipe.from_values(values, ["prune.criterion.slop=1"])


def test_they_work_together(names: dict[str, str], tmp_path: Path) -> None:
    space = label_space("camvid11")
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


def test_they_train_measure_and_prune_through_the_front_door(names: dict[str, str], tmp_path: Path) -> None:
    data = {"sources": [names["dataset"]], "root": str(tmp_path), "crop": [32, 64], "scale": [1.0, 1.0]}
    here = {"optim": {"batch": 4}, "run": {"workers": 0, "device": "cpu"}}
    network = hardy.create("tiny", classes="camvid11")
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
        prune={"schedule": "one_shot", "min_width": 2},
        **here,
    )
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in network.parameters())
    # The criterion keeps the channels that come last: of the first layer's filters exactly those are left.
    first, left = (net.get_submodule("detail.0.0").weight for net in (network, small))
    assert len(left) < len(first)
    assert torch.equal(left, first[-len(left) :])
