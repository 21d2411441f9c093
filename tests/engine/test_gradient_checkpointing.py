"""Gradient checkpointing: the same bits with fewer tensors kept, for encoders with blocks; bf16 and fused attention."""

import copy

import pytest
import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from tuned_networks import attached, small

import hardy
from hardy.algorithms.erm import ERM
from hardy.engine.fit import Fit
from hardy.engine.gradient_checkpointing import blocks_of, checkpointed
from hardy.errors import InputError
from hardy.losses.cross_entropy import CrossEntropy
from hardy.networks.base import Network
from hardy.recipe import Optim, RunSection, from_values
from hardy.registry import TUNERS
from hardy.seed import seeded
from hardy.types import Batch

FAST = ("plain", "convolutions", "lite")
MORE = (
    "convnext_atto",
    "efficientformerv2_s0",
    "eva02_tiny_patch14_224",
    "mit_b0",
    "poolformer_s12",
    "resnet18",
    "shufflenet_v1_x1_0_g3",
    "swin_tiny_patch4_window7_224",
    "vit_small_patch14_reg4_dinov2",
    "vit_small_patch16_dinov3",
)
ENCODERS = [
    *FAST[:2],
    pytest.param("lite", marks=pytest.mark.costly),
    *(pytest.param(name, marks=pytest.mark.exhaustive) for name in MORE),
]


def made(encoder: str) -> Network:
    """A network in training mode."""
    if encoder in FAST:
        return small(encoder).train()
    with seeded(0, "network"):
        return hardy.create("encoder_decoder", "camvid11", encoder=encoder, decoder="linear").train()


def drawing(network: Network) -> Network:
    """``network``, in place, with dropout and drop path in each block of its transformer."""
    for block in network.body.blocks:
        block.attn.proj_drop, block.drop_path1, block.drop_path2 = nn.Dropout(0.2), DropPath(0.5), DropPath(0.5)
    return network.train()


def step(network: Network, side: int = 64) -> tuple[dict[str, Tensor], dict[str, Tensor], int]:
    """Gradients, the state and a random number after it, and the bytes kept for the backward pass, of one step."""
    kept = {}

    def keep(value: Tensor) -> Tensor:
        kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    with seeded(1, "step"):
        images, labels = torch.rand(2, 3, side, side), torch.randint(11, (2, side, side))
        with saved_tensors_hooks(keep, lambda value: value):
            loss = F.cross_entropy(network(images), labels)
        loss.backward()
        state = {**network.state_dict(), "draw": torch.rand(1)}
    return {n: p.grad for n, p in network.named_parameters() if p.grad is not None}, state, sum(kept.values())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def compare(plain: Network) -> tuple[int, int]:
    """The bytes kept without and with checkpointing; the bits of all else are the same."""
    other = copy.deepcopy(plain)
    gradients, state, all_kept = step(plain)
    with checkpointed(blocks_of([other])):
        found, after, kept = step(other)
    assert gradients
    assert same(found, gradients)
    assert same(after, state)
    assert not any("forward" in vars(module) for module in other.modules())
    return all_kept, kept


@pytest.mark.parametrize("encoder", ENCODERS)
def test_gradients_and_statistics_have_the_same_bits_and_less_is_kept(encoder: str) -> None:
    all_kept, kept = compare(made(encoder))
    assert kept < all_kept


def test_gradients_may_be_computed_twice() -> None:
    """As `distillation` does, which measures their norms before the step."""
    network = made(ENCODERS[0])
    other = copy.deepcopy(network)
    found = []
    for each, blocks in ((network, []), (other, blocks_of([other]))):
        with seeded(1, "step"), checkpointed(blocks):
            loss = each(torch.rand(2, 3, 64, 64)).square().mean()
            norm = torch.autograd.grad(loss, list(each.parameters()), retain_graph=True, allow_unused=True)
            loss.backward()
        found.append([value for value in norm if value is not None] + list(each.state_dict().values()))
    assert all(torch.equal(one, again) for one, again in zip(*found, strict=True))


def test_dropout_and_drop_path_draw_the_same_again() -> None:
    network = drawing(small("plain"))
    all_kept, kept = compare(network)
    assert kept < all_kept
    with seeded(2, "other draws"):
        network.zero_grad()
        F.cross_entropy(network(torch.rand(2, 3, 64, 64)), torch.randint(11, (2, 64, 64))).backward()
        once = network.body.blocks[0].mlp.fc1.weight.grad.clone()
        network.zero_grad()
    assert not torch.equal(step(network)[0]["body.blocks.0.mlp.fc1.weight"], once)


OTHERS = ("adaptformer", "bitfit", "full", "norms", "rein", "soma", "ssf", "vpt", "wise_ft")
"""`make test` tries the tuner that trains nothing, the one that adds to layers, and new ones."""


@pytest.mark.parametrize(
    "tuner", [pytest.param(name, marks=[pytest.mark.costly] * (name in OTHERS)) for name in TUNERS]
)
def test_so_it_is_with_a_tuner(tuner: str) -> None:
    options = {"rank": 4} if tuner in ("lora", "soma", "rein") else {}
    all_kept, kept = compare(attached(small("plain"), tuner, **options).train())
    assert kept < all_kept or tuner == "frozen"  # which keeps nothing of a block


# ------------------------------------------------------------------------------------------------------- training


def batches(start: int, rank: int, processes: int):
    while True:
        with seeded(start, "images"):
            yield Batch(torch.rand(2, 3, 32, 32), torch.randint(11, (2, 32, 32)), torch.zeros(2, dtype=torch.long))
        start += 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_ends_in_the_same_bits_and_attention_is_fused(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also that the blocks compute in bf16 where the run does, and that the weights stay float32."""
    calls: list[torch.dtype] = []
    fused = F.scaled_dot_product_attention

    def noted(query: Tensor, *args, **kwargs) -> Tensor:
        if type(query) is Tensor:  # not while the blocks are looked for
            calls.append(query.dtype)
        return fused(query, *args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", noted)
    states, counts = [], []
    for on in (False, True):
        network = drawing(small("plain"))
        calls.clear()
        place = RunSection(device="cpu", precision=precision, gradient_checkpointing=on)
        Fit(ERM(network, CrossEntropy(11)), batches, Optim(steps=2, lr=0.1), place).run()
        states.append(network.state_dict())
        counts.append(len(calls))
        assert set(calls) == {torch.float32 if precision == "fp32" else torch.bfloat16}
        assert {value.dtype for value in network.parameters()} == {torch.float32}
    assert same(*states)
    assert counts == [2 * 3, 2 * 2 * 3]  # steps, blocks, and each again in the backward pass


def test_without_blocks_it_is_refused_in_one_line(shallow, colours) -> None:
    place = RunSection(device="cpu", gradient_checkpointing=True)
    with pytest.raises(InputError, match=r"^run.gradient_checkpointing: true has no effect: \w+ has no encoder with"):
        Fit(shallow(), colours(), Optim(steps=1), place)


def test_a_stopped_run_may_go_on_with_it() -> None:
    values = {"network": {"name": "tiny", "classes": "camvid11"}, "data": {"sources": ["streets/sim"]}}
    first, second = (from_values({**values, "run": {"gradient_checkpointing": on}}) for on in (False, True))
    assert first.digest() == second.digest()
