"""A checkpoint gives back every bit, is whole or absent, and refuses what is not its own."""

import errno
import json
import os
import pickle
import re

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from hardy.engine import checkpoint, optimiser
from hardy.engine.checkpoint import Checkpoint, read, restore_optimiser, write, write_tensors
from hardy.errors import InputError
from hardy.recipe import Optim


def stepped(algorithm, optim, count=3):
    """An optimiser of ``algorithm`` that has made ``count`` steps."""
    made = optimiser.build(algorithm, optim)
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        optimiser.set_rate(made, 0.7)
        for parameter in algorithm.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        made.step()
    return made


def state_of(algorithm, made, average=None):
    return Checkpoint("owner/0/train", 3, (0.25, 2), algorithm.state_dict(), made.state_dict(), average or {})


OPTIMISERS = [
    Optim(name="sgd"),
    Optim(name="sgd", momentum=0.0),
    Optim(name="adam"),
    Optim(name="adamw", weight_decay=0.1),
    Optim(name="rmsprop"),
]


@pytest.mark.parametrize("optim", OPTIMISERS, ids=lambda optim: f"{optim.name}-{optim.momentum}")
def test_weights_optimiser_and_average_come_back_bit_for_bit(shallow, tmp_path, optim):
    algorithm = shallow(norm=True)
    made = stepped(algorithm, optim)
    average = {name: value.clone() + 1 for name, value in algorithm.state_dict().items()}
    write(tmp_path / "c.safetensors", state_of(algorithm, made, average))
    back = read(tmp_path / "c.safetensors", "owner/0/train")

    assert (back.step, back.best) == (3, (0.25, 2))
    other = shallow(norm=True, seed=5)
    other.load_state_dict(dict(back.algorithm))
    again = optimiser.build(other, optim)
    restore_optimiser(again, back.optimiser)
    for name, value in algorithm.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
        assert torch.equal(average[name], back.average[name]), name
        assert value.dtype == back.average[name].dtype
    was, now = made.state_dict(), again.state_dict()
    assert was["param_groups"] == now["param_groups"]
    assert was["state"].keys() == now["state"].keys()
    for index, slots in was["state"].items():
        assert slots.keys() == now["state"][index].keys()
        for name, value in slots.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(now["state"][index][name])), (index, name)


@pytest.mark.parametrize("optim", OPTIMISERS, ids=lambda optim: f"{optim.name}-{optim.momentum}")
def test_a_restored_optimiser_goes_on_with_the_same_bits(shallow, tmp_path, optim):
    algorithm, other = shallow(), shallow(seed=5)
    made = stepped(algorithm, optim)
    write(tmp_path / "c.safetensors", state_of(algorithm, made))
    back = read(tmp_path / "c.safetensors", "owner/0/train")
    other.load_state_dict(dict(back.algorithm))
    again = optimiser.build(other, optim)
    restore_optimiser(again, back.optimiser)
    for trained, stepping in ((algorithm, made), (other, again)):
        for parameter in trained.parameters():
            parameter.grad = torch.full_like(parameter, 0.3)
        stepping.step()
    assert all(torch.equal(a, b) for a, b in zip(algorithm.parameters(), other.parameters(), strict=True))


def test_no_best_score_and_an_undefined_one_come_back(shallow, tmp_path):
    algorithm = shallow()
    file = tmp_path / "c.safetensors"
    write(file, Checkpoint("o", 0, None, algorithm.state_dict(), optimiser.build(algorithm, Optim()).state_dict(), {}))
    assert read(file, "o").best is None
    assert read(file, "o").optimiser["state"] == {}


# --------------------------------------------------------------------------------------------- what is refused


def refusal(file, owner="owner/0/train"):
    with pytest.raises(InputError) as caught:
        read(file, owner)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(str(file))
    return text


@pytest.fixture
def file(shallow, tmp_path):
    algorithm = shallow()
    write(tmp_path / "c.safetensors", state_of(algorithm, stepped(algorithm, Optim())))
    return tmp_path / "c.safetensors"


@pytest.mark.parametrize("share", [0.0, 0.001, 0.2, 0.6, 0.999])
def test_a_torn_checkpoint_is_refused(file, share):
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    assert "damaged or not a checkpoint" in refusal(file)
    assert "delete it to start again" in refusal(file)


def test_a_pickle_is_refused_and_not_run(file, tmp_path):
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harmed"),)

    for data in (pickle.dumps(Harm()), b"\x80\x02}q\x00."):
        file.write_bytes(data)
        assert "damaged or not a checkpoint" in refusal(file)
    torch.save({"weight": torch.zeros(2), "harm": Harm()}, file)
    assert "damaged or not a checkpoint" in refusal(file)
    assert not (tmp_path / "harmed").exists()


def test_a_folder_and_a_missing_file_are_refused(tmp_path):
    (tmp_path / "c.safetensors").mkdir()
    assert "damaged or not a checkpoint" in refusal(tmp_path / "c.safetensors")
    assert "damaged or not a checkpoint" in refusal(tmp_path / "gone.safetensors")


def test_another_version_and_other_tensors_are_refused(file):
    save_file({"weight": torch.zeros(2)}, file, {"format": "hardy-checkpoint/9"})
    assert "format 'hardy-checkpoint/9', but this Hardy reads 'hardy-checkpoint/1'" in refusal(file)
    save_file({"weight": torch.zeros(2)}, file)
    assert "format None" in refusal(file)


def test_the_checkpoint_of_another_run_is_refused(file):
    text = refusal(file, "other/1/train")
    assert "belongs to another run (owner/0/train, not other/1/train)" in text
    assert "use another run.folder" in text


# ---------------------------------------------------------------------------------------------- whole or absent


def _full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _rust_full(tensors, place, header):
    place.write_bytes(b"half of it")
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(("what", "failing"), [("save_file", _rust_full), ("os.replace", _full), ("os.fsync", _full)])
def test_a_full_disk_leaves_the_checkpoint_before_and_nothing_else(file, shallow, monkeypatch, what, failing):
    before = file.read_bytes()
    algorithm = shallow(seed=3)
    place = checkpoint.os if what.startswith("os.") else checkpoint
    monkeypatch.setattr(place, what.removeprefix("os."), failing)
    with pytest.raises(OSError, match=re.compile("no space left", re.IGNORECASE)):
        write(file, state_of(algorithm, stepped(algorithm, Optim())))
    monkeypatch.undo()
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_weights_that_two_layers_share_are_written(tmp_path):
    whole = torch.arange(6.0)
    write_tensors(tmp_path / "t.safetensors", {"a": whole, "b": whole, "c": whole[2:4], "d": whole.view(2, 3).T}, {})
    from safetensors.torch import load_file

    back = load_file(tmp_path / "t.safetensors")
    assert back["a"].tolist() == back["b"].tolist() == whole.tolist()
    assert back["c"].tolist() == [2.0, 3.0]
    assert back["d"].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]


def test_the_file_can_be_read_by_others_as_any_file_of_the_user(file):
    assert file.stat().st_mode & 0o777 == 0o644


def test_the_header_is_plain_json(file):
    from safetensors import safe_open

    with safe_open(file, framework="pt") as handle:
        state = json.loads(handle.metadata()["state"])
    assert (state["owner"], state["step"], state["best"]) == ("owner/0/train", 3, [0.25, 2])
