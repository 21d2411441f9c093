import pytest
import torch
from torch.nn import functional as F

from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.registry import LOSSES


def test_strides_and_widths() -> None:
    outputs = create("fast_scnn", "cityscapes19").eval().outputs(torch.rand(1, 3, 128, 256))
    shapes = {name: tuple(value.shape) for name, value in {**outputs.features, "logits": outputs.coarse}.items()}
    maps = {"detail": (1, 64, 16, 32), "context": (1, 128, 4, 8)}
    assert shapes == {**maps, "fused": (1, 128, 16, 32), "logits": (1, 19, 16, 32)}


def test_one_image_trains() -> None:
    network = create("fast_scnn", "pacs7", aux=True)
    outputs = network.outputs(torch.rand(1, 3, 75, 101))
    (outputs.logits.square().mean() + outputs.extras["aux_detail"].square().mean()).backward()
    assert all(value.grad is not None and bool(value.grad.isfinite().all()) for value in network.parameters())
    fresh = [name for name, value in network.named_buffers() if name.endswith("running_mean") and not value.any()]
    assert fresh == ["context.9.branches.0.1.running_mean"], "a single value per channel has no statistics"


def test_the_fusion_reaches_as_far_as_its_dilation() -> None:
    for dilation in (1, 4):
        network = create("fast_scnn", "cityscapes19", ffm_dilation=dilation).eval()
        x = torch.zeros(1, 128, 21, 21)
        x[..., 10, 10] = 1.0
        touched = (network.fusion.filter(x) != network.fusion.filter(torch.zeros_like(x))).any(dim=1)[0]
        rows = torch.nonzero(touched)[:, 0]
        assert set((rows - 10).tolist()) <= {-dilation, 0, dilation}


@pytest.mark.parametrize("align_corners", [False, True])
def test_the_auxiliary_term_is_weighed_and_resized(align_corners: bool) -> None:
    network = create("fast_scnn", "camvid11", aux=True, align_corners=align_corners)
    outputs = network.outputs(torch.rand(2, 3, 64, 96))
    labels = torch.randint(0, 11, (2, 64, 96))
    terms = network.losses(outputs, labels, LOSSES.build("cross_entropy", {"class_count": 11}))
    auxiliary = F.interpolate(outputs.extras["aux_detail"], (64, 96), mode="bilinear", align_corners=align_corners)
    assert outputs.extras["aux_detail"].shape == (2, 11, 8, 12)
    assert terms["segmentation"].item() == pytest.approx(F.cross_entropy(outputs.logits, labels).item(), rel=1e-5)
    assert terms["aux_detail"].item() == pytest.approx(0.4 * F.cross_entropy(auxiliary, labels).item(), rel=1e-5)


def test_a_width_multiplies_every_layer_and_stays_a_multiple_of_8() -> None:
    half = create("fast_scnn", classes="camvid11", width=0.5)
    features = half.eval().outputs(torch.rand(1, 3, 64, 64)).features
    assert [features[name].shape[1] for name in ("detail", "context", "fused")] == [32, 64, 64]
    widths = {module.out_channels for module in half.modules() if isinstance(module, torch.nn.Conv2d)} - {11}
    assert all(width % 8 == 0 for width in widths)
    with pytest.raises(InputError, match=r"FastSCNN\.width"):
        create("fast_scnn", classes="camvid11", width=0)
