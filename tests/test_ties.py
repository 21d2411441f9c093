"""What a block's code fixes, said by itself or registered for its class: its heads and parts are pruned."""

import copy
import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hardy import ties
from hardy.errors import InputError
from hardy.pruning.masked import masked_copy
from hardy.pruning.remove import remove, replay
from hardy.pruning.units import survey
from hardy.ties import Coupling, couplings_of, head_rows, register

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Silent(nn.Module):
    """An attention of 4 heads over cells; its number of heads is an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.qkv, self.proj = 4, nn.Linear(16, 96), nn.Linear(32, 16)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def heads_now(self) -> tuple[Coupling, ...]:
        rows = self.proj.in_features // self.heads
        three, one = head_rows(self.heads, rows, 3), head_rows(self.heads, rows)
        return (Coupling("heads", self.heads, (("qkv", "out", three), ("proj", "in", one)), "proj"),)


class Saying(Silent):
    def channel_couplings(self):
        return self.heads_now()

    def follow_cut(self, side, count):
        if side == "heads":
            self.heads = count


class Net(nn.Module):
    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.stem, self.attention, self.head = nn.Conv2d(3, 16, 1), attention, nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.attention(self.stem(x).flatten(2).transpose(1, 2)))


def follow(module, side, count):
    if side == "heads":
        module.heads = count


@pytest.fixture
def registered(monkeypatch):
    """A registry of this test's own."""
    monkeypatch.setattr(ties, "_REGISTERED", {})
    return lambda: register(Silent, Silent.heads_now, follow)


def heads(network: nn.Module) -> list:
    return [unit for unit in survey(network, IMAGES).units if unit.kind == "heads"]


def test_a_class_that_says_nothing_keeps_its_heads(registered):
    torch.manual_seed(0)
    assert couplings_of(Silent()) is None
    assert heads(Net(Silent())) == []


@pytest.mark.parametrize("kind", [Saying, Silent])
def test_heads_that_are_said_or_registered_are_removed_as_masked(kind, registered):
    if kind is Silent:
        registered()
    torch.manual_seed(0)
    network = Net(kind()).eval()
    (unit,) = heads(network)
    assert unit.size == 4
    dense, removed = copy.deepcopy(network), {unit.name: [0, 2]}
    masked = masked_copy(network, [unit], removed)
    plan = remove(network, [unit], removed)
    assert (network.attention.heads, network.attention.qkv.out_features) == (2, 48)
    torch.testing.assert_close(network(IMAGES), masked(IMAGES))
    with torch.no_grad():
        assert float((network(IMAGES) - dense(IMAGES)).abs().max()) > 1e-3
    replay(dense, json.loads(json.dumps(plan)))
    dense.load_state_dict(network.state_dict())
    assert torch.equal(dense(IMAGES), network(IMAGES))


def test_a_plan_of_a_registered_class_needs_the_call_before_it_loads(registered):
    registered()
    network = Net(Silent()).eval()
    (unit,) = heads(network)
    plan = remove(network, [unit], {unit.name: [1]})
    ties._REGISTERED.clear()
    with pytest.raises(InputError, match=r"'attention' \(heads\), which has 0"):
        replay(Net(Silent()), plan)


def test_what_is_registered_holds_for_subclasses_and_before_what_the_class_says(registered):
    registered()

    class Child(Silent):
        pass

    assert couplings_of(Child()) == Silent().heads_now()
    register(Silent, lambda module: (), follow)
    assert (couplings_of(Child()), couplings_of(Saying())) == ((), Silent().heads_now()), "the nearest class counts"
    register(Saying, lambda module: (), follow)
    assert couplings_of(Saying()) == ()
    assert heads(Net(Saying())) == []


def test_parts_that_a_number_splits(registered):
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.width, self.first = 8, nn.Conv2d(8, 8, 1)

        def forward(self, x):
            one, other = x.split(self.width, 1)
            return torch.cat([self.first(one).relu(), other], 1)

    def narrowed(module, side, count):
        if side == "parts":
            module.width = count

    build = lambda: nn.Sequential(nn.Conv2d(3, 16, 1), Halves(), nn.Conv2d(16, 5, 1)).eval()  # noqa: E731
    torch.manual_seed(0)
    found = survey(build(), IMAGES)
    assert "0" in found.blocked
    one = tuple((channel,) for channel in range(8))
    taken = lambda width: (("first", "in", one[:width]),)  # noqa: E731
    register(Halves, lambda module: [Coupling("parts", module.width, taken(module.width))], narrowed)
    network = build()
    units = {unit.name: unit for unit in survey(network, IMAGES).units}
    assert units["0"].size == 8
    masked = masked_copy(network, [units["0"]], {"0": [0, 3]})
    remove(network, [units["0"]], {"0": [0, 3]})
    assert (network[1].width, network[0].out_channels) == (6, 12)
    torch.testing.assert_close(network(IMAGES), masked(IMAGES))


@pytest.mark.parametrize(
    ("coupling", "message"),
    [
        (Coupling("heads", 4, (("qvk", "out", head_rows(4, 8, 3)),), "proj"), "a layer 'qvk' .*mean 'qkv'"),
        (Coupling("heads", 4, (("qkv", "out", head_rows(4, 8, 3)),), "project"), "a layer 'project' .*mean 'proj'"),
        (Coupling("heads", 4, (("qkv", "out", head_rows(4, 9, 3)),), "proj"), "up to 107 of 'qkv' .*which has 96"),
        (Coupling("heads", 3, (("qkv", "out", head_rows(4, 8, 3)),), "proj"), "counts 3, but gives 4 rows"),
    ],
)
def test_a_coupling_that_cannot_be_meant(coupling, message, registered):
    register(Silent, lambda module: (coupling,), follow)
    with pytest.raises(InputError, match=f"Silent: its coupling of heads .*{message}"):
        survey(Net(Silent()), IMAGES)


def test_what_cannot_be_registered():
    with pytest.raises(InputError, match="is not a class"):
        register(Silent(), Silent.heads_now, follow)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="couplings of Silent is 3"):
        register(Silent, 3, follow)  # type: ignore[arg-type]
