"""Files as training loops leave them: endings, prefixes, wrappers, numbers beside the tensors; and what is refused."""

import json
import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_more_names import ddrnet, pidnet
from published_names import espnet, swiftnet, values
from safetensors.torch import save_file
from torch import Tensor

import hardy
from hardy.errors import InputError
from hardy.networks.building.importing import imported
from hardy.networks.building.numpy_numbers import numpy_numbers
from hardy.networks.building.weights import is_file, read_weights
from hardy.registry import PUBLICATIONS

WEIGHTS = {"conv.weight": torch.ones(2, 3), "conv.bias": torch.zeros(2)}

PARITY = Path(__file__).parent / "parity"


@pytest.mark.parametrize("ending", [".tar", ".pth.tar", ".pkl", ".pth", ".pt", ".bin", ".ckpt"])
def test_every_ending_of_a_torch_checkpoint(ending: str, tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / f"a{ending}")
    assert is_file(tmp_path / f"a{ending}")
    found = read_weights(tmp_path / f"a{ending}")
    assert found.keys() == WEIGHTS.keys()
    assert torch.equal(found["conv.weight"], WEIGHTS["conv.weight"])


@pytest.mark.parametrize("prefix", ["module.", "module.module."])
def test_the_prefix_of_parallel_training_goes(prefix: str, tmp_path: Path) -> None:
    save_file({f"{prefix}{name}": value for name, value in WEIGHTS.items()}, tmp_path / "a.safetensors")
    assert read_weights(tmp_path / "a.safetensors").keys() == WEIGHTS.keys()
    save_file({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "b.safetensors")
    assert read_weights(tmp_path / "b.safetensors").keys() == {"module.a", "b"}


@pytest.mark.parametrize(
    "keys", [["state_dict"], ["model"], ["model_state_dict"], ["model_state"], ["net"], ["ema"], ["ema", "state_dict"]]
)
def test_wrappers(keys: list[str], tmp_path: Path) -> None:
    whole: Any = WEIGHTS
    for key in reversed(keys):
        whole = {"epoch": 7, "optimizer": {"param_groups": [{"lr": 0.1}]}, key: whole}
    torch.save(whole, tmp_path / "a.pth")
    assert read_weights(tmp_path / "a.pth").keys() == WEIGHTS.keys()


def test_a_file_that_holds_itself(tmp_path: Path) -> None:
    whole: dict[str, Any] = {}
    whole["model"] = whole
    torch.save(whole, tmp_path / "a.pth")
    with pytest.raises(InputError, match="other than named tensors"):
        read_weights(tmp_path / "a.pth")


def test_of_two_wrappers_the_log_names_the_one_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save({"ema": {"a": torch.zeros(1)}, "model": {"a": torch.ones(1)}}, tmp_path / "a.pth")
    with caplog.at_level(logging.INFO, "hardy"):
        assert read_weights(tmp_path / "a.pth")["a"] == 1
    assert "weights are under 'model', not 'ema'" in caplog.text


@pytest.mark.parametrize("zipped", [True, False])
def test_numbers_beside_the_tensors(zipped: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scores = [np.float64(0.7), np.float32(0.5), np.int64(3), np.uint8(2), np.bool_(True), np.dtype(">f8").type(1)]
    whole = {"best": scores, "epoch": np.int32(3), "net": WEIGHTS}
    torch.save(whole, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    assert read_weights(tmp_path / "a.pth").keys() == WEIGHTS.keys()
    with numpy_numbers():
        found = torch.load(tmp_path / "a.pth", weights_only=True)
    assert found["best"] == [0.7, 0.5, 3, 2, True, 1]
    torch.save({**WEIGHTS, "best": np.float64(0.7), "name": "x"}, tmp_path / "b.pth")
    with caplog.at_level(logging.INFO, "hardy"):
        assert read_weights(tmp_path / "b.pth").keys() == WEIGHTS.keys()
    assert "left out, because they are not tensors: best, name" in caplog.text


class _Runs:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def test_nothing_of_numpy_runs_but_numbers(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    scalar = np.float64(1).__reduce__()[0]
    wrong = [
        _Runs(scalar, np.dtype("O"), b"01234567"),
        _Runs(scalar, np.dtype("f8"), b"0123"),
        _Runs(scalar, 3, b"01234567"),
        _Runs(np.dtype, [("a", "O")]),
        np.zeros(3),
        _Runs(open, str(marker), "w"),
    ]
    for value in wrong:
        torch.save({"best": value, "net": WEIGHTS}, tmp_path / "a.pth")
        with pytest.raises(InputError, match="which is not run") as refused:
            read_weights(tmp_path / "a.pth")
        assert "\n" not in str(refused.value)
    assert not marker.exists()
    assert not any("numpy" in str(known) for known in torch.serialization.get_safe_globals())
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "a.pth", weights_only=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(value: float, tmp_path: Path) -> None:
    weights = values(espnet(12, 1, 1))
    weights["encoder.level2.0.d4.conv.weight"][0, 0, 0, 0] = value
    save_file(weights, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"encoder\.level2\.0\.d4\.conv\.weight holds NaN or infinite numbers"):
        hardy.import_weights(tmp_path / "a.safetensors", "camvid11")


@pytest.mark.parametrize("prefix", ["model.", "module.model.", "model.module."])
@pytest.mark.parametrize("publication", list(PUBLICATIONS))
def test_the_prefixes_of_training_loops_for_every_publication(publication: str, prefix: str) -> None:
    one = PUBLICATIONS.build(publication)
    shapes = json.loads((PARITY / f"{publication}.json").read_text())["shapes"]
    weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    wrapped = {f"{prefix}{name}": value for name, value in weights.items()}
    assert [name for name in PUBLICATIONS if PUBLICATIONS.build(name).recognises(wrapped)] == [publication]
    assert one.published(wrapped).keys() == one.published(weights).keys()


def test_a_wrapped_file_is_imported(tmp_path: Path) -> None:
    weights = values(espnet(12, 1, 1))
    whole = {"best": np.float64(0.5), "model_state_dict": {f"module.model.{k}": v for k, v in weights.items()}}
    torch.save(whole, tmp_path / "best.pth.tar")
    found = imported(tmp_path / "best.pth.tar", "camvid11")
    assert (found.publication, found.used) == ("espnet", len(weights))


def refusal(weights: dict[str, Tensor], tmp_path: Path) -> str:
    save_file(weights, tmp_path / "a.safetensors")
    with pytest.raises(InputError) as refused:
        hardy.import_weights(tmp_path / "a.safetensors", "cityscapes19")
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_nearest_publication_and_what_is_missing_are_named(tmp_path: Path) -> None:
    for publication, sign, missing in (
        (pidnet(), "pag3.f_x.0.weight", "pag3.f_x.0.weight"),
        (ddrnet(), "down3.0.weight", "down3.0.weight"),
        (swiftnet(), "backbone.upsample.0.bottleneck.conv.weight", "backbone.upsample.0.bottleneck.conv.weight"),
    ):
        less = {name: torch.zeros(1) for name in publication if name != sign}
        line = refusal(less, tmp_path)
        name = {"pag3": "pidnet", "down": "ddrnet", "back": "swiftnet"}[sign[:4]]
        assert f"nearest is {name}, but {missing} is missing; known are: " in line
