"""Drawing by epsilon: the gradient against a finite difference, the calibration, and the step up a loss."""

import pytest
import torch
from torch import nn

from hardy.ops.dsp import Moments, Perturbation, ascend
from hardy.ops.style_vae import DVAE, mirror


class Halved(nn.Module):
    """An encoder of 4 channels at stride 2."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, stride=2, padding=1)

    def forward(self, images):
        return [torch.tanh(self.layer(images))]


@pytest.fixture
def perturbation():
    torch.manual_seed(0)
    root = torch.rand(4, 4)
    return Perturbation(Halved(), DVAE(4).decoder, mirror(4, 2), torch.randn(4), root @ root.T).double()


def test_the_gradient_reaches_epsilon_through_decoder_adain_and_fc(perturbation):
    torch.manual_seed(1)
    images, weight = torch.rand(2, 3, 8, 10, dtype=torch.float64), torch.randn(2, 3, 8, 10, dtype=torch.float64)
    with torch.no_grad():  # keep what is drawn inside [0, 1], where nothing is cut off
        perturbation.decoder[-1].weight *= 0.02
        perturbation.decoder[-1].bias += 0.5

    def loss(epsilon):
        drawn = perturbation.stylise(images, epsilon)
        return (weight * drawn.square()).sum()

    epsilon = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    drawn = perturbation.stylise(images, epsilon)
    assert drawn.min() > 0
    assert drawn.max() < 1
    (gradient,) = torch.autograd.grad(loss(epsilon), epsilon)
    step = 1e-6 * torch.eye(8, dtype=torch.float64).view(8, 2, 4)
    numeric = torch.stack([(loss(epsilon + d) - loss(epsilon - d)) / 2e-6 for d in step]).view(2, 4)
    assert gradient.abs().min() > 0
    torch.testing.assert_close(gradient, numeric, rtol=1e-5, atol=1e-9)


def test_a_style_by_hand(perturbation):
    epsilon = torch.tensor([[1.0, -2.0, 0.5, 0.0]], dtype=torch.float64)
    style = perturbation.style_decoder(perturbation.centre + perturbation.root @ epsilon[0])  # S^(1/2) is symmetric
    mean, deviation = perturbation.style(epsilon)
    torch.testing.assert_close(torch.cat([mean, deviation], 1)[0], style)


def test_copies_have_the_size_and_range_of_images(perturbation):
    images = torch.rand(3, 3, 13, 17, dtype=torch.float64)
    torch.manual_seed(0)
    copies = perturbation.stylise(images, 5 * perturbation.sample(3))
    assert copies.shape == images.shape
    assert copies.min() == 0
    assert copies.max() == 1


def test_it_stays_frozen(perturbation):
    holder = nn.ModuleList([perturbation]).train()
    assert not any(module.training for module in perturbation.modules())
    assert not any(parameter.requires_grad for parameter in holder.parameters())


def test_calibration_whitens_the_codes_of_styles():
    """Codes psi + n xi of a tilted, shifted cloud: after whitening mean 0 and covariance I."""
    torch.manual_seed(0)
    tilt = torch.tensor([[2.0, 0.0, 0.0], [1.5, 0.5, 0.0], [0.0, 0.3, 0.1]])
    moments = Moments(3)
    codes = []
    for _ in range(80):
        psi, xi = torch.randn(64, 3) @ tilt.T + torch.tensor([5.0, 0.0, -1.0]), 0.3 * torch.randn(64, 3)
        moments.update(psi, xi)
        codes.append(psi + torch.randn_like(xi) * xi)
    centre, root = moments.whitening()
    white = torch.linalg.solve(root, (torch.cat(codes) - centre).T)
    torch.testing.assert_close(white.mean(1), torch.zeros(3), rtol=0, atol=0.05)
    torch.testing.assert_close(white.cov(), torch.eye(3), rtol=0, atol=0.05)
    torch.testing.assert_close(root, root.T)


def test_moments_of_one_batch_by_hand():
    moments = Moments(2)
    moments.update(torch.tensor([[1.0, 0.0], [3.0, 2.0]]), torch.tensor([[0.0, 1.0], [2.0, -1.0]]))
    centre, root = moments.whitening()
    assert centre.tolist() == [2.0, 1.0]
    # Covariance of psi over the batch [[1, 1], [1, 1]], and the means of xi^2, 2 and 1, on the diagonal.
    torch.testing.assert_close(root @ root, torch.tensor([[3.0, 1.0], [1.0, 2.0]]))


def test_a_step_up_by_hand():
    """20 / L times the gradient of each image's own loss, which is B times that of the mean."""
    epsilon = torch.tensor([[30.0, 40.0], [3.0, 4.0]])
    gradient = torch.tensor([[0.25, 0.0], [0.0, 1.0]])
    moved, share = ascend(epsilon, gradient, torch.tensor(2.0))
    assert moved[0].tolist() == [35.0, 40.0]  # 2 * 20 / 2 * 0.25
    assert moved[1].tolist() == [3.0, 9.0]  # 20 up, held to its own length of 5
    assert share.tolist() == pytest.approx([0.1, 1.0])
    assert ascend(epsilon, 0 * gradient, torch.tensor(0.0))[0].equal(epsilon)
    halved, _ = ascend(epsilon, gradient, torch.tensor(2.0), rate=10.0, limit=0.5)
    assert halved.tolist() == [[32.5, 40.0], [3.0, 6.5]]


def test_the_step_of_an_image_does_not_depend_on_its_company():
    epsilon = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    aims = torch.ones(5, dtype=torch.float64)

    def step(rows):
        given = rows.clone().requires_grad_(True)
        loss = (given - aims).square().sum(1).mean()
        (gradient,) = torch.autograd.grad(loss, given)
        return ascend(rows, gradient, torch.tensor(1000.0))[0]

    alone = torch.cat([step(row[None]) for row in epsilon])
    torch.testing.assert_close(step(epsilon), alone)
