"""What holds for every tuner: the rest keeps its bits, and copying, exporting, saving, pruning and merging work.

A tuner of the tests (`low_rank_tuner`) inserts modules and merges exactly, so that the contract is tried on all that
the interface offers, whatever methods there are.
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from tuned_networks import IMAGES, learn, logits

import hardy
from hardy.deployment.folding import fold
from hardy.engine import changes
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.pruning.mask import mask
from hardy.pruning.remove import remove
from hardy.pruning.units import find_units
from hardy.registry import TUNERS
from hardy.sections import Method
from hardy.seed import seeded
from hardy.tuning.base import Tuner

INSERTS = "low_rank_tuner:LowRank"
NETWORKS = ("two_part_network:TwoPart", "small_transformer:SmallTransformer")
"""The second for tuners of transformers, which refuse the first."""

TRUST = ["low_rank_tuner", "two_part_network", "small_transformer"]


@pytest.fixture(params=[INSERTS, *TUNERS])
def method(request: pytest.FixtureRequest) -> Method:
    return Method(name=request.param)


@pytest.fixture
def network(request: pytest.FixtureRequest) -> Network:
    name = NETWORKS[0]
    if "method" in request.fixturenames:
        name = network_for(request.getfixturevalue("method"))
    return made(name)


def network_for(method: Method) -> str:
    """The first of the networks that the tuner supports."""
    return next(name for name in NETWORKS if name == NETWORKS[-1] or not refused(made(name), method))


def refused(network: Network, method: Method) -> bool:
    """Whether the tuner refuses ``network``: in one line, and without changing it."""
    said = None
    try:
        changes.attach(network, method)
    except InputError as reason:
        said = str(reason)
    if said is None:
        return False
    assert said.startswith("tuner")
    assert "\n" not in said
    assert network.resting == ()
    assert network.changes == []
    assert all(value.requires_grad for value in network.parameters())
    return True


def made(name: str) -> Network:
    with seeded(0, "network"):
        network = hardy.create(name, "camvid11")
        network.train()(torch.rand(4, 3, 32, 48))
    return network.eval()


@pytest.fixture
def tuned(network: Network, method: Method) -> Network:
    attach(network, method)
    learn(network)
    return network


def attach(network: Network, method: Method) -> None:
    with seeded(0, "tuner"):
        changes.attach(network, method)


def prune(network: Network, seed: int) -> None:
    """Cut a quarter of the channels of every unit out, in place; which, the seed draws."""
    draw = torch.Generator().manual_seed(seed)
    units = find_units(network)
    removed = {u.name: torch.randperm(u.size, generator=draw)[: u.size // 4].tolist() for u in units}
    removed = {name: sorted(channels) for name, channels in removed.items() if channels}
    masked = copy.deepcopy(network)
    mask(masked, units, removed)
    remove(network, units, removed)
    torch.testing.assert_close(logits(network), logits(masked), rtol=0, atol=1e-5)


def back(network: Network, folder: Path) -> Network:
    """What a folder gives back of ``network``."""
    loaded = hardy.load(hardy.save(network, folder), trust=TRUST)
    assert loaded.changes == network.changes
    assert loaded.plan == network.plan
    assert loaded.state_dict().keys() == network.state_dict().keys()
    assert torch.equal(logits(loaded), logits(network))
    return loaded


def test_some_is_trained_and_the_rest_keeps_its_bits(network: Network, method: Method) -> None:
    attach(network, method)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trained = TUNERS.build(method.name).trained(network)
    assert trained <= before.keys()
    learn(network)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert changed <= trained
    parameters = {name for name, value in network.named_parameters() if value.requires_grad}
    assert parameters <= changed


def test_the_form_follows_from_the_options_alone(network: Network, method: Method) -> None:
    other = hardy.create(network.architecture["name"], "camvid11")
    attach(network, method)
    changes.attach(other, method)
    shapes = [{name: value.shape for name, value in each.state_dict().items()} for each in (network, other)]
    assert shapes[0] == shapes[1]
    assert [changes.untrained(each) for each in (network, other)] == [changes.untrained(network)] * 2


def test_modules_are_inserted_and_no_hooks(tuned: Network) -> None:
    for module in tuned.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks


@pytest.mark.costly
def test_an_exported_graph_says_the_same(tuned: Network) -> None:
    exported = torch.export.export(tuned, (IMAGES,)).module()
    torch.testing.assert_close(exported(IMAGES), logits(tuned), rtol=1e-4, atol=1e-5)


def test_a_copy_says_the_same_and_learns_apart(tuned: Network) -> None:
    copied = copy.deepcopy(tuned)
    expected = logits(tuned)
    assert torch.equal(logits(copied), expected)
    learn(copied)
    assert torch.equal(logits(tuned), expected)
    assert not torch.equal(logits(copied), expected)


def test_there_is_no_graph_below_what_is_trained_first(network: Network, method: Method) -> None:
    """Nothing is kept for the backward pass before a module runs that owns a trained parameter."""
    attach(network, method)
    reached: list[str] = []
    kept_after: list[int] = []
    for name, module in network.train().named_modules():
        if any(value.requires_grad for value in module.parameters(recurse=False)):
            module.register_forward_pre_hook(lambda *_, name=name: (reached.append(name), None)[1])

    def keep(value: torch.Tensor) -> torch.Tensor:
        kept_after.append(len(reached))
        return value

    with saved_tensors_hooks(keep, lambda value: value):
        network(IMAGES).sum().backward()
    assert kept_after
    assert min(kept_after) > 0
    assert reached


def test_the_mode_of_what_rests_does_not_follow(tuned: Network) -> None:
    tuned.train()
    resting = [module for name in tuned.resting for module in tuned.get_submodule(name).modules()]
    assert not any(module.training for module in resting)
    assert tuned.head.training


def merges(method: Method) -> bool:
    """Whether the method says how to merge."""
    return TUNERS.get(method.name).merge is not Tuner.merge  # type: ignore[attr-defined]


def merged(network: Network) -> None:
    before = logits(network)
    assert hardy.merge(network) is network
    apart = (logits(network) - before).abs().max() / before.abs().max()
    assert apart <= 1e-5


def test_merging_is_exact_or_refused(network: Network, method: Method) -> None:
    names = set(network.state_dict())
    attach(network, method)
    learn(network)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    if not merges(method):
        with pytest.raises(InputError, match="cannot be merged"):
            changes.merge(network)
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
        return
    merged(network)
    assert set(network.state_dict()) == names
    assert all(value.requires_grad for value in network.parameters())
    assert changes.tuner_of(network) is None
    assert network.train().body.training


STEPS = {
    "tuned": ["tune"],
    "tuned, pruned": ["tune", "prune"],
    "pruned, tuned": ["prune", "tune"],
    "pruned, tuned, pruned twice": ["prune", "tune", "prune", "prune"],
    "tuned, pruned, merged": ["tune", "prune", "merge"],
    "tuned, merged, pruned": ["tune", "merge", "prune"],
    "tuned, merged, tuned": ["tune", "merge", "tune"],
    "folded, tuned, pruned": ["fold", "tune", "prune"],
    "pruned, tuned, folded": ["prune", "tune", "fold"],
    "tuned, merged, folded, pruned": ["tune", "merge", "fold", "prune"],
}


@pytest.mark.costly
@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_changes_in_any_order_load_with_the_same_logits(
    network: Network, method: Method, steps: Sequence[str], tmp_path: Path
) -> None:
    def tune() -> None:
        attach(network, method)
        learn(network)

    def fold_it() -> None:
        nonlocal network
        before = logits(network)
        network = fold(network, size=(32, 48)).network
        torch.testing.assert_close(logits(network), before, rtol=0, atol=1e-5)

    seeds = iter(range(9))
    does: dict[str, Callable[[], None]] = {
        "tune": tune,
        "prune": lambda: prune(network, next(seeds)),
        "merge": lambda: merged(network),
        "fold": fold_it,
    }
    if "merge" in steps and not merges(method):
        return
    for step in steps:
        does[step]()
    noted = [change["change"] for change in network.changes]
    assert noted == [
        step for place, step in enumerate(steps) if step != "prune" or steps[place - 1 : place] != ["prune"]
    ]
    loaded = back(network, tmp_path / "run")
    assert {name: value.requires_grad for name, value in loaded.named_parameters()} == {
        name: value.requires_grad for name, value in network.named_parameters()
    }
    learn(loaded)
    learn(network)
    assert torch.equal(logits(loaded), logits(network))


@pytest.mark.costly
def test_a_transformer_is_tuned_pruned_and_merged(method: Method, tmp_path: Path) -> None:
    """Heads, hidden widths and the residual stream; what is merged is pruned again."""
    network = made(NETWORKS[1])
    if refused(copy.deepcopy(network), method):
        return
    attach(network, method)
    learn(network)
    assert {unit.kind for unit in find_units(network)} >= {"heads", "hidden", "embedding"}
    prune(network, 0)
    back(network, tmp_path / "pruned")
    if merges(method):
        merged(network)
        prune(network, 1)
        back(network, tmp_path / "merged")


def test_what_it_inserts_is_cut_like_any_other(network: Network, tmp_path: Path) -> None:
    attach(network, Method(name=INSERTS))
    learn(network)
    dense = {name: value.shape for name, value in network.named_parameters()}
    prune(network, 0)
    for name, module in network.named_modules():
        if type(module).__name__ == "_Beside":
            assert module.up.weight.shape[0] == module.layer.weight.shape[0] < dense[f"{name}.layer.weight"][0]
            assert module.down.weight.shape[1] == module.layer.weight.shape[1]


def test_a_network_without_an_encoder_is_refused_in_one_line() -> None:
    network = hardy.create("tiny", "camvid11", width=8)
    for name in ("frozen", INSERTS):
        with pytest.raises(InputError, match=r"^tuner: Tiny names no encoder"):
            changes.attach(network, Method(name=name))
    assert network.changes == []
    assert all(value.requires_grad for value in network.parameters())


def test_a_network_that_is_tuned_is_not_tuned_again(tuned: Network, method: Method) -> None:
    with pytest.raises(InputError, match=rf"^tuner: the network is tuned by {method.name} already; leave tuner out"):
        changes.attach(tuned, Method(name="frozen"))
    plain = hardy.create("tiny", "camvid11", width=8)
    with pytest.raises(InputError, match=r"^tuner: none is attached to this network"):
        changes.merge(plain)


def test_describes_itself() -> None:
    for name in TUNERS:
        assert TUNERS.describe(name).source
        assert TUNERS.describe(name).supplied == ()
