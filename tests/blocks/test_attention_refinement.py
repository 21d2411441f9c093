import torch
from torch.nn import functional as F

from hardy.blocks.attention_refinement import AttentionRefinement


def test_channels_are_weighed_by_their_average() -> None:
    torch.manual_seed(0)
    block = AttentionRefinement(3, 4).double().eval()
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    norm = (1 + block.conv[1].eps) ** 0.5  # a batch norm that has seen nothing
    y = (F.conv2d(x, block.conv[0].weight, padding=1) / norm).relu()
    means = y.flatten(2).mean(2)
    share = (means @ block.attention[1].weight[..., 0, 0].T / norm).sigmoid()
    torch.testing.assert_close(block(x), y * share[..., None, None])


def test_one_image_can_train_it() -> None:
    block = AttentionRefinement(3, 4).train()
    before = block.attention[2].running_mean.clone()
    block(torch.rand(1, 3, 6, 6)).sum().backward()
    assert torch.equal(block.attention[2].running_mean, before)
    assert all(value.grad is not None and value.grad.isfinite().all() for value in block.parameters())
