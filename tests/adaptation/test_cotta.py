"""CoTTA against its steps in float64: views, mask, average and restoring."""

import pytest
import torch
from tiny_stream import Grey, OneNorm, frames, statistics
from torch.nn import functional as F

from hardy.adaptation.cotta import CoTTA
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.ops.views import classification_view
from hardy.seed import seeded

START = torch.tensor([[1.5, 1.0, 2.0], [0.5, 0.0, -0.2]]).double()


def by_source(images, learned):
    """The logits of `OneNorm` with its running statistics."""
    shape = (1, 3, 1, 1)
    mean, var = torch.tensor([0.4, 0.5, 0.6]).view(shape), torch.tensor([0.05, 0.1, 0.2]).view(shape)
    return learned[0].view(shape) * (images - mean) / (var + 1e-5).sqrt() + learned[1].view(shape)


def prediction(images, teacher, light, confidence):
    """The masked ensemble by the steps of the docstring."""
    size = images.shape[-2:]
    views = []
    for scale in (1.0,) if light else (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0):
        seen = (round(size[0] * scale), round(size[1] * scale))
        resized = F.interpolate(images, size=seen, mode="bilinear", align_corners=False)
        for flip in (False, True):
            z = by_source(resized.flip(-1) if flip else resized, teacher)
            z = F.interpolate(z.flip(-1) if flip else z, size=size, mode="bilinear", align_corners=False)
            views.append(z.exp() / z.exp().sum(1, keepdim=True))
    ensemble = sum(views) / len(views)
    alone = views[0] if light else views[4]
    sure = by_source(images, START).softmax(1).amax(1, keepdim=True) > confidence
    assert 0 < sure.sum() < sure.numel()
    return torch.where(sure, alone, ensemble)


@pytest.mark.parametrize("light", [False, True])
def test_two_steps_without_restoring_are_those_of_the_docstring(light):
    lr, options = 0.05, {"confidence": 0.69, "decay": 0.9, "restore": 0.0, "views": "light" if light else "full"}
    live = CoTTA(OneNorm().double(), lr=lr, **options)
    student, teacher = START.clone(), START.clone()
    first, second = torch.zeros(2, 3).double(), torch.zeros(2, 3).double()
    for step, images in enumerate(frames(2, size=(8, 12)), start=1):
        images = images.double()
        wanted = prediction(images, teacher, light, 0.69)
        torch.testing.assert_close(live(images).softmax(1), wanted)
        here = student.clone().requires_grad_(True)
        z = by_source(images, here)
        picked = z.gather(1, wanted.argmax(1, keepdim=True))[:, 0]
        (slope,) = torch.autograd.grad((z.exp().sum(1).log() - picked).mean(), here)
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        student = student - lr * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        teacher = 0.9 * teacher + 0.1 * student
        for network, values in ((live.network, student), (live.teacher, teacher), (live.source, START)):
            torch.testing.assert_close(torch.stack((network.norm.weight, network.norm.bias)).detach(), values)


def test_restoring_returns_a_share_of_all_weights_to_the_source_and_not_the_teacher():
    for share, wanted in ((1.0, 6), (0.0, 0)):
        live = CoTTA(OneNorm(), lr=0.1, restore=share, decay=0.5)
        live(frames(1)[0])
        pairs = zip(live.network.parameters(), live.source.parameters(), strict=True)
        assert sum(int((a == b).sum()) for a, b in pairs) == wanted
        assert not torch.equal(live.teacher.norm.weight, live.source.norm.weight)


def test_logits_stay_finite_where_a_probability_is_0():
    network = OneNorm()
    network.norm.weight.data.fill_(1000)
    assert CoTTA(network, views="light")(frames(1)[0]).isfinite().all()


def test_the_statistics_of_the_batch_are_an_option():
    live = CoTTA(OneNorm(), statistics="batch", views="light", confidence=0.0)
    image = frames(1)[0]
    expected = statistics(image, *START.float()).softmax(1)
    torch.testing.assert_close(live(image).softmax(1), expected)


@pytest.mark.slow
def test_image_level_networks_take_the_form_of_classification():
    with seeded(0, "network"):
        network = create("classifier", "pacs7", encoder="test_resnet").eval()
    images = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    live = CoTTA(network, views="light", confidence=1.0, restore=0.0)
    live.seed = 4
    teacher = CoTTA(network).teacher
    with seeded(4, "adapt", 0), torch.no_grad():
        wanted = torch.stack([teacher(classification_view(images)) for _ in range(4)]).mean(0)
        student = teacher(images)
    torch.testing.assert_close(live(images), wanted)
    started = CoTTA(network)
    loss = F.cross_entropy(started.network(images), wanted.softmax(1))
    torch.testing.assert_close(loss, -(wanted.softmax(1) * student.log_softmax(1)).sum(1).mean())
    start = list(started.network.parameters())
    both = zip(live.network.parameters(), live.teacher.parameters(), strict=True)
    for (mine, averaged), value, slope in zip(both, start, torch.autograd.grad(loss, start), strict=True):
        stepped = value - 1e-3 * slope / (slope.abs() + 1e-8)  # the first step of Adam
        torch.testing.assert_close(mine, stepped)
        torch.testing.assert_close(averaged, 0.999 * value + 0.001 * stepped)
    sure = CoTTA(network, confidence=0.0)
    torch.testing.assert_close(sure(images), student)
    assert sure.state()["optimisers"]["student"]["param_groups"][0]["lr"] == 1e-3


def test_networks_without_norms_adapt_and_options_out_of_range_are_refused():
    live = CoTTA(Grey(), lr=0.1, restore=0.0)
    live(frames(1)[0])
    assert not torch.equal(live.network.mix.weight, live.source.mix.weight)
    with pytest.raises(InputError, match=r"^adapt: cotta trains all weights, but OneNorm has none"):
        CoTTA(OneNorm(torch.nn.Identity()))
    with pytest.raises(InputError, match=r"^CoTTA\.restore: 2"):
        CoTTA(Grey(), restore=2)
