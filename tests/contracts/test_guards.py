"""What holds for every test-time method under a guard: its state is exact, and what it undoes is undone to the bit."""

import pytest
import torch
from torch import Tensor

from hardy.adaptation._guard import Guarded
from hardy.engine.adaptation_state import load_state, save_state
from hardy.engine.adapting import adapted
from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.registry import ADAPTATIONS
from hardy.sections import Guard
from hardy.seed import seeded

GUARD = Guard(keep=1, sure=0, entropy=0, agreement=0, classes=0, prototypes=None, drift=0.5)


@pytest.fixture(scope="module")
def network() -> Network:
    with seeded(0, "network"):
        return create("tiny", "camvid11", width=8).eval()


def images(count: int) -> list[Tensor]:
    return [torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(i)) for i in range(count)]


def under(name: str, network: Network) -> Guarded:
    live = adapted(network, name, {}, 3, images(2), guard=GUARD)
    assert isinstance(live, Guarded)
    return live


def tensors_alike(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("name", [*ADAPTATIONS])
def test_a_guarded_method_is_saved_reset_and_rolled_back_to_the_bit(name: str, network: Network, tmp_path) -> None:
    live, seen = under(name, network), images(5)
    live.enter("a/day")
    start = live.state()
    first = [live(each) for each in seen[:3]]
    assert all(logits.isfinite().all() for logits in first)
    save_state(live, tmp_path / "state.safetensors")
    other = under(name, network)
    load_state(other, tmp_path / "state.safetensors")
    assert all(torch.equal(live(each), other(each)) for each in seen[3:])
    assert tensors_alike(live.state()["tensors"], other.state()["tensors"])
    good = live._good()["tensors"]
    live._undo("by the test")
    assert tensors_alike(dict(live.method._tensors()), good)
    live.reset()
    assert tensors_alike(live.state()["tensors"], start["tensors"])
    assert all(torch.equal(live(each), logits) for each, logits in zip(seen, first, strict=False))
