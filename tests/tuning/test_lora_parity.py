"""LoRA against the library peft: the same forward and the same merged weights on a small transformer of timm."""

import copy

import pytest
import torch
from tuned_networks import attached, small

import hardy


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "targets", "layers"),
    [("plain", "all", "qkv|proj|fc1|fc2"), ("registers", "attention", "qkv|proj"), ("split", "qkv", "[qkv]_proj")],
)
def test_it_computes_and_merges_what_peft_does(kind: str, targets: str, layers: str) -> None:
    peft = pytest.importorskip("peft", reason="the parity with peft needs peft (pip install 'hardy[test]')")
    network = small(kind).double()
    config = peft.LoraConfig(
        r=4, lora_alpha=6, init_lora_weights=False, target_modules=rf"blocks\.\d+\.(?:attn|mlp)\.(?:{layers})"
    )
    theirs = peft.get_peft_model(copy.deepcopy(network.body), config).double().eval()
    attached(network, "lora", rank=4, alpha=6.0, targets=targets)
    pairs = {name: module for name, module in network.body.named_modules() if type(module).__name__ == "_LowRank"}
    assert len(pairs) == 3 * {"all": 4, "attention": 2, "qkv": 3}[targets]
    with torch.no_grad():
        for name, module in pairs.items():
            other = theirs.base_model.model.get_submodule(name)
            module.down.weight.copy_(other.lora_A["default"].weight)
            module.up.weight.copy_(other.lora_B["default"].weight)
        trained = sum(value.numel() for value in network.body.parameters() if value.requires_grad)
        assert trained == sum(value.numel() for value in theirs.parameters() if value.requires_grad)
        images = torch.rand(2, 3, 32, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        expected = theirs(images)
        assert (expected - copy.deepcopy(theirs).unload()(images)).abs().max() > 1e-3
        torch.testing.assert_close(network.body(images), expected, rtol=1e-12, atol=1e-12)
        merged = theirs.merge_and_unload().state_dict()
        hardy.merge(network)
        ours = network.body.state_dict()
        assert ours.keys() == merged.keys()
        for name, value in ours.items():
            torch.testing.assert_close(value, merged[name], rtol=1e-12, atol=1e-14, msg=name)
