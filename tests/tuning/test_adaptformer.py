import pytest
import torch
from torch.nn import functional as F
from tuned_networks import attached, learn, logits, small

import hardy
from hardy.errors import InputError


def bottlenecks(network) -> list[str]:
    return [name for name, module in network.named_modules() if type(module).__name__ == "_Beside"]


def test_the_bottleneck_is_added_to_the_mlp() -> None:
    network = attached(small("plain"), "adaptformer", width=5, scale=0.3)
    wrapped = network.body.blocks[0].mlp
    for value in (wrapped.up.weight, wrapped.up.bias, wrapped.down.bias):
        torch.nn.init.normal_(value)
    x = torch.randn(2, 7, 24)
    inner = F.relu(x @ wrapped.down.weight.T + wrapped.down.bias)
    expected = wrapped.mlp(x) + 0.3 * (inner @ wrapped.up.weight.T + wrapped.up.bias)
    torch.testing.assert_close(wrapped(x), expected)


@pytest.mark.parametrize("kind", ["plain", "registers", "split", "biased"])
def test_it_stands_beside_each_mlp_starts_at_the_network_and_moves_it(kind: str) -> None:
    network = small(kind)
    start = logits(network)
    attached(network, "adaptformer", width=5)
    assert bottlenecks(network) == [f"body.blocks.{block}.mlp" for block in range(3)]
    assert torch.equal(logits(network), start)
    for part in (network.middle, network.head):
        part.requires_grad_(False)
    learn(network, steps=3)
    assert (logits(network) - start).abs().max() > 1e-3 * start.abs().max()


def test_the_published_count() -> None:
    """3.17M for 24 blocks of width 1024 and bottlenecks of 64: 24 * (2 * 1024 * 64 + 64 + 1024)."""
    network = attached(small("plain"), "adaptformer")
    trained = sum(value.numel() for value in network.body.parameters() if value.requires_grad)
    assert trained == 3 * (2 * 24 * 64 + 64 + 24)


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "count"), [("convnext_tiny", 18), ("mit_b0", 8)])
def test_encoders_of_stages_have_one_beside_each_mlp_with_linear_layers(encoder: str, count: int) -> None:
    network = hardy.create("encoder_decoder", "camvid11", encoder=encoder, decoder="linear").eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = network(images)
        assert len(bottlenecks(attached(network, "adaptformer", width=4))) == count
        assert torch.equal(network(images), before)


def refusal(kind: str, **options: object) -> str:
    network = small(kind)
    with pytest.raises(InputError) as error:
        attached(network, "adaptformer", **options)
    assert network.resting == ()
    return str(error.value)


def test_what_cannot_be_is_refused_in_one_line() -> None:
    assert refusal("plain", width=0) == "tuner.width: 0 is out of range; it must be 1 or more"
    assert refusal("lite").startswith("tuner: the encoder of EncoderDecoder has no MLP of linear layers; use a transf")
    with pytest.raises(InputError, match="cannot be merged"):
        hardy.merge(attached(small("plain"), "adaptformer"))
