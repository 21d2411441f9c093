import copy

import pytest
import torch
from tuned_networks import IMAGES, attached, learn, logits, small

import hardy
from hardy.errors import InputError

KINDS = ["plain", "registers", "split", "biased"]


@pytest.mark.parametrize("kind", ["plain", "registers"])
def test_shallow_prompts_pass_through_all_blocks(kind: str) -> None:
    """An independent run: tokens with positions, then the prompts between prefix and patches."""
    network = small(kind)
    dense = copy.deepcopy(network.body)
    attached(network, "vpt", tokens=3, deep=False)
    prefix, prompts = dense.num_prefix_tokens, network.body.prompts
    images = network.normalise(IMAGES)
    with torch.no_grad():
        x = dense._pos_embed(dense.patch_embed(images))
        x = torch.cat([x[:, :prefix], prompts.expand(2, 3, 24), x[:, prefix:]], dim=1)
        for block in dense.blocks:
            x = block(x)
        expected = dense.norm(x)[:, prefix + 3 :].transpose(1, 2).reshape(2, 24, 4, 6)
        (found,) = network.body.forward_intermediates(images, indices=[2], norm=True, intermediates_only=True)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", ["plain", "registers"])
def test_deep_prompts_are_new_before_every_block(kind: str) -> None:
    network = small(kind)
    dense = copy.deepcopy(network.body)
    attached(network, "vpt", tokens=3, deep=True)
    prefix = dense.num_prefix_tokens
    images = network.normalise(IMAGES)
    with torch.no_grad():
        x = dense._pos_embed(dense.patch_embed(images))
        for block, wrapped in zip(dense.blocks, network.body.blocks, strict=True):
            y = block(torch.cat([wrapped.prompts.expand(2, 3, 24), x], dim=1))  # attention does not read the order
            x = y[:, 3:]
        expected = dense.norm(x)[:, prefix:].transpose(1, 2).reshape(2, 24, 4, 6)
        (found,) = network.body.forward_intermediates(images, indices=[2], norm=True, intermediates_only=True)
    torch.testing.assert_close(found, expected)


def test_prompts_are_not_rotated_like_patches() -> None:
    """With rotated positions too: an independent run, in which the prompts are tokens of the prefix."""
    network = small("split")
    dense = copy.deepcopy(network.body)
    attached(network, "vpt", tokens=3, deep=False)
    images = network.normalise(IMAGES)
    with torch.no_grad():
        x, rope = dense._pos_embed(dense.patch_embed(images))
        x = torch.cat([network.body.prompts.expand(2, 3, 24), x], dim=1)
        for block in dense.blocks:
            block.attn.num_prefix_tokens = 4
            x = block(x, rope=rope)
        expected = dense.norm(x)[:, 4:].transpose(1, 2).reshape(2, 24, 4, 6)
        (found,) = network.body.forward_intermediates(images, indices=[2], norm=True, intermediates_only=True)
    torch.testing.assert_close(found, expected)


@pytest.mark.costly
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("deep", [False, True])
def test_prompts_learn_and_the_rest_of_the_encoder_stays(kind: str, deep: bool) -> None:
    network = attached(small(kind), "vpt", tokens=3, deep=deep)
    trained = {name for name, value in network.body.named_parameters() if value.requires_grad}
    assert trained == ({f"blocks.{block}.prompts" for block in range(3)} if deep else {"prompts"})
    before = {name: value.clone() for name, value in network.body.state_dict().items()}
    start = logits(network)
    for part in (network.middle, network.head):
        part.requires_grad_(False)
    learn(network, steps=3, rate=10.0)
    after = network.body.state_dict()
    assert {name for name in before if not torch.equal(after[name], before[name])} == trained
    assert (logits(network) - start).abs().max() > 1e-4 * start.abs().max()


@pytest.mark.costly
@pytest.mark.slow
@pytest.mark.parametrize("deep", [False, True])
def test_copies_graphs_and_other_sizes_agree(deep: bool, tmp_path) -> None:
    network = attached(small("plain"), "vpt", tokens=3, deep=deep)
    expected = logits(network)
    assert torch.equal(logits(copy.deepcopy(network)), expected)
    exported = torch.export.export(network, (IMAGES,)).module()
    torch.testing.assert_close(exported(IMAGES), expected, rtol=1e-4, atol=1e-5)
    trust = ["small_transformer"]
    assert torch.equal(logits(hardy.load(hardy.save(network, tmp_path), trust=trust)), expected)
    assert network(torch.rand(1, 3, 48, 40)).shape == (1, 11, 48, 40)


def test_the_published_count_and_the_start() -> None:
    """3.69M for 150 prompts before each of 24 blocks of width 1024; drawn from U(-v, v), v^2 = 6 / (3 * 8^2 + 24)."""
    network = attached(small("plain"), "vpt", tokens=150)
    prompts = torch.cat([block.prompts.detach() for block in network.body.blocks])
    assert prompts.numel() == 3 * 150 * 24
    bound = (6 / (3 * 64 + 24)) ** 0.5
    assert 0.99 * bound < float(prompts.abs().max()) <= bound
    assert float(prompts.std()) == pytest.approx(bound / 3**0.5, rel=0.03)


def test_what_cannot_be_is_refused_in_one_line() -> None:
    network = small("convolutions")
    with pytest.raises(
        InputError, match=r"^tuner: vpt needs a plain vision transformer \(timm's VisionTransformer or Eva\), and"
    ):
        attached(network, "vpt")
    assert network.resting == ()
    with pytest.raises(InputError, match=r"^tuner.tokens: 0 is out of range; it must be 1 or more"):
        attached(small("plain"), "vpt", tokens=0)
    with pytest.raises(InputError, match="cannot be merged"):
        hardy.merge(attached(small("plain"), "vpt"))
