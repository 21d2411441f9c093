"""The variance of gradients by hand and by its definition; the two forms rank images differently."""

import torch

from hardy.adaptation._vog import gradients, variance


def test_both_forms_are_their_definitions_for_two_states():
    draw = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 2, 4, 5, generator=draw)
    mean = (first + second) / 2
    squares = (first - mean) ** 2 + (second - mean) ** 2
    torch.testing.assert_close(variance(first, second), (squares / 2).sqrt().mean((1, 2)))
    torch.testing.assert_close(variance(first, second, "printed"), (squares / 2**0.5).mean((1, 2)))
    assert variance(first, first).tolist() == [0, 0]


def test_they_rank_images_differently():
    """Differences of 4, 0, 0, 0 and of 2, 2, 2, 0: mean of sizes 1 and 1.5, of squares 4 and 3."""
    zero, one = torch.zeros(2, 1, 4), torch.tensor([[[4.0, 0, 0, 0]], [[2.0, 2, 2, 0]]])
    assert variance(zero, one).tolist() == [0.5, 0.75]
    printed = variance(zero, one, "printed")
    assert printed[0] > printed[1]


def test_the_gradient_of_the_predicted_classs_mean_logit_by_hand():
    """Logits 2 r, 3 g and b of an image where b is largest in one of two pixels: G = std / 3 times the factor / 2."""
    image = torch.tensor([[0.5, 0.1], [0.1, 0.1], [0.1, 0.9]]).view(1, 3, 1, 2)
    factors, std = torch.tensor([2.0, 3.0, 1.0]).view(1, 3, 1, 1), torch.tensor([0.5, 1.0, 2.0]).view(1, 3, 1, 1)
    gradient, classes = gradients(lambda x: x * factors, image, std)
    assert classes.tolist() == [[[0, 2]]]
    torch.testing.assert_close(gradient, torch.tensor([[[2 * 0.5 / 2 / 3, 1 * 2.0 / 2 / 3]]]))
    fixed, _ = gradients(lambda x: x * factors, image, std, torch.ones(1, 1, 2, dtype=torch.int64))
    torch.testing.assert_close(fixed, torch.full((1, 1, 2), 3 * 1.0 / 2 / 3))
