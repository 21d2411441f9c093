"""A checkpoint is believed in nothing: every bit is under a checksum, its header and its tensors are checked."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from hardy.engine import optimiser
from hardy.engine.checkpoint import (
    Checkpoint,
    load_tensors,
    read,
    read_tensors,
    restore_optimiser,
    write,
    write_tensors,
)
from hardy.errors import InputError
from hardy.recipe import Optim

OPTIM = Optim(name="adamw")


def stepped(algorithm):
    made = optimiser.build(algorithm, OPTIM)
    for parameter in algorithm.parameters():
        parameter.grad = torch.full_like(parameter, 0.3)
    made.step()
    return made


@pytest.fixture
def file(shallow, tmp_path):
    algorithm = shallow()
    average = {name: value + 1 for name, value in algorithm.state_dict().items()}
    made = stepped(algorithm).state_dict()
    write(tmp_path / "c.safetensors", Checkpoint("o", 3, (0.25, 2), algorithm.state_dict(), made, average))
    return tmp_path / "c.safetensors"


def forged(file, change):
    """Write the checkpoint as ``change(state, tensors)`` left it, without a checksum, as before there were any."""
    with safe_open(file, framework="pt") as handle:
        header, tensors = handle.metadata(), {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    del header["sha256"]
    state = json.loads(header["state"])
    change(state, tensors)
    header["state"] = json.dumps(state)
    save_file(tensors, file, header)


def refusal(file):
    with pytest.raises(InputError) as caught:
        read(file, "o")
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{file}: ")
    assert "delete it" in text
    return text


def test_every_bit_that_flips_is_noticed(file):
    data = file.read_bytes()
    for place in range(0, len(data), 7):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        file.write_bytes(changed)
        refusal(file)
    file.write_bytes(data)
    assert read(file, "o").step == 3


def test_selected_weights_have_a_checksum_too(tmp_path):
    file = tmp_path / "best.safetensors"
    write_tensors(file, {"a": torch.arange(8.0)}, {"step": "3"})
    assert read_tensors(file)["a"].tolist() == list(range(8))
    data = bytearray(file.read_bytes())
    data[-3] ^= 4
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"best\.safetensors: damaged or missing \(it does not match its checksum\)"):
        read_tensors(file)


def test_selected_weights_of_another_network_are_refused(tmp_path):
    file, network = tmp_path / "best.safetensors", torch.nn.Linear(2, 2)
    odd = {"bias": torch.zeros(2, dtype=torch.complex64)}
    for change, why in (
        ({"bias": torch.zeros(3)}, "size mismatch for bias"),
        (odd, "bias is of torch.complex64, not of torch.float32"),
    ):
        write_tensors(file, {**network.state_dict(), **change}, {})
        with pytest.raises(InputError, match=rf"best\.safetensors: is of another network \(.*{why}"):
            load_tensors(file, network)
    write_tensors(file, {"weight": torch.ones(2, 2), "bias": torch.ones(2)}, {})
    load_tensors(file, network)
    assert network.weight.tolist() == [[1, 1], [1, 1]]


def test_a_checkpoint_from_before_there_were_checksums_goes_on(file):
    forged(file, lambda state, tensors: None)
    assert read(file, "o").step == 3


@pytest.mark.parametrize("part", ["algorithm", "average", "optimiser"])
def test_nan_is_refused(file, part):
    def change(state, tensors):
        name = next(name for name in tensors if name.startswith(part) and tensors[name].ndim)
        tensors[name].view(-1)[0] = torch.nan

    forged(file, change)
    assert "holds NaN or infinity" in refusal(file)


RUBBISH = ("x", -1, 1.5, True, [1], [[1]], {"a": []}, 10**30, [None, 2], 7)
RIGHT = {"owner": ("x",), "step": (7,), "best": (), "groups": (), "numbers": ()}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, right in RIGHT.items() for value in RUBBISH if value not in right]
)
def test_a_header_of_wrong_values_is_refused(file, key, value):
    forged(file, lambda state, tensors: state.update({key: value}))
    refusal(file)


@pytest.mark.parametrize("key", ["owner", "step", "best", "groups", "numbers"])
def test_a_header_that_lacks_a_key_is_refused(file, key):
    forged(file, lambda state, tensors: state.pop(key))
    assert "its header is damaged" in refusal(file)


@pytest.mark.parametrize("name", ["weight", "other/weight", "optimiser/x/step", "optimiser/0", "optimiser/0/a/b"])
def test_tensors_of_other_names_are_refused(file, name):
    forged(file, lambda state, tensors: tensors.update({name: torch.zeros(1)}))
    assert "its tensors are not a checkpoint's" in refusal(file)


def renamed(state, tensors):
    tensors["optimiser/0/momentum"] = tensors.pop("optimiser/0/exp_avg")


CHANGES = {
    "gone": lambda state, tensors: tensors.pop("optimiser/0/exp_avg"),
    "renamed": renamed,
    "scalar": lambda state, tensors: tensors.update({"optimiser/0/exp_avg": torch.tensor(1.0)}),
    "wider": lambda state, tensors: tensors.update({"optimiser/0/exp_avg": torch.zeros(9, 9)}),
    "no such parameter": lambda state, tensors: tensors.update({"optimiser/99/step": torch.tensor(1.0)}),
    "no group": lambda state, tensors: state["groups"].pop(),
    "another rate": lambda state, tensors: state["groups"][0].update(base_lr=5.0),
    "an unknown setting": lambda state, tensors: state["groups"][0].update(code="x"),
    "other parameters": lambda state, tensors: state["groups"][0].update(params=[5]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_state_of_another_optimiser_is_refused(file, shallow, change):
    forged(file, change)
    made = optimiser.build(shallow(), OPTIM)
    before = made.state_dict()
    with pytest.raises(ValueError, match=r"\S"):
        restore_optimiser(made, read(file, "o").optimiser)
    assert made.state_dict() == before
