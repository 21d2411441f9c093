"""The front door of Python: ten names that work together, on Hardy's networks and on a module of the user's."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

import hardy
from hardy.commands import prune as pruning
from hardy.errors import InputError
from hardy.networks.base import Network

pytestmark = pytest.mark.slow

ONCE = {"schedule": "one_shot", "min_width": 2, "round_to": 2}


@pytest.fixture(scope="module")
def streets() -> dict[str, object]:
    """Two small drawn domains as a recipe's ``data`` section."""
    few = {"streets": {"size": [32, 64], "train": 4, "val": 1, "test": 1}}
    return {"sources": ["streets/sim", "streets/day"], "datasets": few, "crop": [32, 64]}


@pytest.fixture
def place() -> dict[str, object]:
    """A recipe's ``run`` section for tests."""
    return {"workers": 0, "device": "cpu", "seed": 3}


def images(*size: int) -> torch.Tensor:
    return torch.rand(*size[:1], 3, *size[1:], generator=torch.Generator().manual_seed(0))


def answer(file: Path, batch: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": batch.numpy()})[0]


@pytest.mark.costly
def test_from_nothing_to_a_shipped_file(streets, place, tmp_path, monkeypatch):
    monkeypatch.setattr(pruning, "costs", lambda *_: ([], []))  # the ten lines of the README measure them
    net = hardy.create("tiny", "cityscapes19", width=8)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert hardy.train(net, data=streets, steps=2, optim={"batch": 4}, run=place, folder=tmp_path / "dense") is net
    assert not net.training
    assert any(not torch.equal(before[name], value) for name, value in net.state_dict().items())

    again = hardy.load(tmp_path / "dense")
    assert torch.equal(again(images(1, 32, 64)), net(images(1, 32, 64)))

    wide = sum(parameter.numel() for parameter in net.parameters())
    small = hardy.prune(
        net,
        criterion="ior",
        data=streets,
        ratio=0.4,
        prune={"schedule": {"name": "iterative", "every": 1}, "min_width": 2, "recovery": 1},
        optim={"batch": 4},
        run=place,
        folder=tmp_path / "small",
    )
    assert sum(parameter.numel() for parameter in net.parameters()) == wide, "the dense network stays as it is"
    assert sum(parameter.numel() for parameter in small.parameters()) < wide
    shipped = hardy.load(tmp_path / "small" / "network.json")
    assert shipped.plan == small.plan != {}
    assert torch.equal(shipped(images(2, 48, 80)), small(images(2, 48, 80)))

    night = {"data": ["streets/night"], "datasets": streets["datasets"], "splits": ["test"], "device": "cpu"}
    table = hardy.evaluate(shipped, **night)
    assert table.unseen == hardy.evaluate(small, **night).unseen
    assert table.unseen == table.worst == table.rows[0].scores.miou
    assert table.rows[0].images == 1

    rows = hardy.bench(small, against=net, size=(32, 64), runs=3, warm_up=1)
    assert [row.network for row in rows] == ["network", "against"]
    assert rows[0].ratio == pytest.approx(1 / rows[1].ratio), "medians of the same three pairs"

    proof = hardy.export(small, tmp_path / "small.onnx", size=(32, 64))
    assert proof.agreement == 1.0
    assert np.array_equal(
        answer(tmp_path / "small.onnx", images(1, 32, 64)), small(images(1, 32, 64)).argmax(1).numpy()
    )

    (file,) = hardy.predict(small, np.full((40, 60, 3), 99, np.uint8), tmp_path / "masks")
    assert file.parent == tmp_path / "masks"


@pytest.mark.costly
def test_what_python_trains_is_what_the_command_line_trains(streets, place, tmp_path):
    from hardy.commands import train
    from hardy.recipe import from_values

    values = {
        "network": {"name": "tiny", "width": 8},
        "data": streets,
        "optim": {"steps": 2, "batch": 4},
        "run": {**place, "folder": str(tmp_path / "by_recipe")},
    }
    by_recipe = hardy.load(train.run(from_values(values), show=False))
    from hardy.seed import seed_all

    seed_all(3, "network")
    net = hardy.create("tiny", "cityscapes19", width=8)
    hardy.train(net, data=streets, steps=2, optim={"batch": 4}, run=place)
    for name, value in by_recipe.state_dict().items():
        assert torch.equal(value, net.state_dict()[name]), name


def test_without_a_folder_nothing_is_left_on_disk(streets, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = hardy.create("tiny", "cityscapes19", width=8)
    hardy.train(net, data=streets, steps=1, optim={"batch": 4}, run=place)
    hardy.prune(net, criterion="l2", ratio=0.3, prune=ONCE, run=place, show=False)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------ a module of the user's


def unet() -> nn.Module:
    """A network that knows nothing of Hardy: a residual encoder with skip connections."""
    torch.manual_seed(0)
    return smp.Unet(
        "tu-test_resnet", encoder_weights=None, encoder_depth=3, decoder_channels=(24, 16, 8), classes=11
    ).eval()


def cut(network: Network, ratio: float) -> Network:
    return hardy.prune(network, criterion="l2", ratio=ratio, prune=ONCE, run={"device": "cpu"}, show=False)


@pytest.fixture(scope="module")
def pruned() -> Network:
    """The foreign module, wrapped, with a third of its filters gone."""
    return cut(hardy.wrap(unet(), "camvid11"), 0.3)


def test_a_foreign_module_is_pruned_physically(pruned):
    dense = hardy.wrap(unet(), "camvid11")
    assert sum(p.numel() for p in pruned.parameters()) < 0.7 * sum(p.numel() for p in dense.parameters())
    assert pruned(images(2, 32, 48)).shape == dense(images(2, 32, 48)).shape == (2, 11, 32, 48)


def test_a_foreign_module_is_saved_and_loaded_with_its_module(pruned, tmp_path):
    hardy.save(pruned, tmp_path / "theirs")
    with pytest.raises(InputError, match="needs its module, or a factory"):
        hardy.load(tmp_path / "theirs")
    again = hardy.load(tmp_path / "theirs", module=unet())
    assert again.plan == pruned.plan
    assert torch.equal(again(images(2, 32, 48)), pruned(images(2, 32, 48)))
    smaller = cut(again, 0.2)
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in again.parameters())


def test_a_foreign_module_is_trained_and_measured(streets, place):
    net = hardy.wrap(
        nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 19, 1)), "cityscapes19"
    )
    hardy.train(net, data=streets, steps=1, optim={"batch": 4}, run=place)
    table = hardy.evaluate(net, ["streets/fog"], datasets=streets["datasets"], splits=["test"], device="cpu")
    assert 0 <= table.unseen <= 1


@pytest.mark.exhaustive  # the next one holds it at every size
def test_a_foreign_module_is_exported_at_one_size(pruned, tmp_path):
    proof = hardy.export(pruned, tmp_path / "theirs.onnx", size=(32, 48))
    assert (proof.agreement, proof.dynamic) == (1.0, False)
    batch = images(1, 32, 48)
    assert np.array_equal(answer(tmp_path / "theirs.onnx", batch), pruned(batch).argmax(1).numpy())


@pytest.mark.costly
def test_a_foreign_module_is_exported_at_every_size_and_batch(pruned, tmp_path):
    proof = hardy.export(pruned, tmp_path / "open.onnx", size=(32, 48), dynamic=True, output="logits")
    assert (proof.agreement, proof.dynamic) == (1.0, True)
    for batch in (images(1, 32, 48), images(3, 40, 64), images(2, 64, 32)):
        with torch.no_grad():
            expected = pruned(batch)
        torch.testing.assert_close(torch.from_numpy(answer(tmp_path / "open.onnx", batch)), expected)


class Bessel(nn.Module):
    """Logits made with a function that ONNX does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 11, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.last(self.first(x).relu())
        return y + torch.special.bessel_j0(x).mean()


@pytest.mark.costly
def test_a_module_that_cannot_be_exported_is_pruned_all_the_same(capsys, caplog, tmp_path):
    net = hardy.wrap(Bessel().eval(), "camvid11")
    small = hardy.prune(net, criterion="l2", data={"crop": [32, 48]}, ratio=0.3, prune=ONCE, run={"device": "cpu"})
    assert small.module.first.out_channels < 16
    assert "milliseconds p50 eager" in capsys.readouterr().out
    assert "not measured in onnxruntime" in caplog.text
    with pytest.raises(InputError, match="the network cannot be exported: No ONNX function found for"):
        hardy.export(small, tmp_path / "bessel.onnx", size=(32, 48))
    assert list(tmp_path.iterdir()) == []
