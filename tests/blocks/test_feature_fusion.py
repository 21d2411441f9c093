import torch

from hardy.blocks.feature_fusion import FeatureFusion


def test_channels_are_selected_by_their_average_and_added() -> None:
    torch.manual_seed(0)
    block = FeatureFusion(6, 8, reduction=2).double().eval()
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    y = torch.einsum("oc,bchw->bohw", block.mix[0].weight[..., 0, 0], x)
    y = (y / (1 + block.mix[1].eps) ** 0.5).relu()  # a batch norm that has seen nothing
    narrow, wide = block.attention[1].weight[..., 0, 0], block.attention[3].weight[..., 0, 0]
    share = ((y.mean((2, 3)) @ narrow.T).relu() @ wide.T).sigmoid()
    assert narrow.shape == (4, 8)
    torch.testing.assert_close(block(x), y * (1 + share[..., None, None]))


def test_without_the_selection_it_only_mixes() -> None:
    block = FeatureFusion(6, 8, reduction=None)
    x = torch.randn(2, 6, 5, 7)
    assert sum(value.numel() for value in block.parameters()) == 6 * 8 + 2 * 8
    assert torch.equal(block.eval()(x), block.mix(x))
