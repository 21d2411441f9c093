"""What was learned goes through a file: a new method continues with the same bits."""

import pytest
import torch
from stream_method import Learning

import hardy
from hardy.engine.adaptation_state import load_state, save_state
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.seed import seeded


def network(width=8):
    with seeded(0, "network"):
        return create("tiny", "camvid11", width=width)


def stream(count):
    return torch.rand(count, 1, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def learned(seed=4):
    live = hardy.adapt(network(), "stream_method:Learning", seed=seed)
    for images in stream(3):
        live(images)
    return live


def test_a_new_one_continues_with_the_same_bits(tmp_path):
    live = learned()
    live.enter("day")
    save_state(live, tmp_path / "live.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["live.safetensors"]
    other = hardy.adapt(network(), "stream_method:Learning")
    load_state(other, tmp_path / "live.safetensors")
    assert other.step == 3
    assert other.domain == "day"
    assert other.optimiser.state_dict()["param_groups"] == live.optimiser.state_dict()["param_groups"]
    for images in stream(5)[3:]:
        assert torch.equal(other(images), live(images))
    other.reset()
    assert torch.equal(other(stream(1)[0]), hardy.adapt(network(), "stream_method:Learning")(stream(1)[0]))


def test_what_learns_nothing_has_a_file_too(tmp_path):
    live = hardy.adapt(network(), "source")
    live(stream(1)[0])
    save_state(live, tmp_path / "live.safetensors")
    other = hardy.adapt(network(), "source")
    load_state(other, tmp_path / "live.safetensors")
    assert other.step == 1


def test_files_of_others_and_torn_ones_are_refused_and_change_nothing(tmp_path):
    live, file = learned(), tmp_path / "live.safetensors"
    save_state(live, file)
    before = live.state()["tensors"]
    for other, said in (
        (
            hardy.adapt(network(), "source"),
            "is the state of stream_method:Learning, not of hardy.adapt",
        ),
        (hardy.adapt(network(16), "stream_method:Learning"), "state: its tensor 'network"),
    ):
        with pytest.raises(InputError, match=f"live.safetensors: {said}"):
            load_state(other, file)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    torn = tmp_path / "torn.safetensors"
    for content, said in (
        (bytes(data), "does not match its checksum"),
        (b"", "damaged"),
        (bytes(data[:300]), "damaged"),
    ):
        torn.write_bytes(content)
        with pytest.raises(InputError, match=f"torn.safetensors: .*{said}"):
            load_state(live, torn)
    with pytest.raises(InputError, match=r"gone\.safetensors: damaged, or not the state"):
        load_state(live, tmp_path / "gone.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in live.state()["tensors"].items())
    assert isinstance(live, Learning)
