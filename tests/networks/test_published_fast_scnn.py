"""Fast-SCNN's most used release, written here: no padding around the image, and maps enlarged corner to corner."""

from pathlib import Path

import torch
from published_names import fast_scnn, values
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

import hardy


def released(w: dict[str, Tensor], images: Tensor) -> Tensor:
    """Logits of RGB ``images`` in [0, 1], H and W multiples of 32 and large enough for four cells each way."""

    def conv(x: Tensor, name: str, stride: int = 1, padding: int = 0, *, depthwise: bool = False) -> Tensor:
        groups = x.shape[1] if depthwise else 1
        return F.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), stride, padding, groups=groups)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, scale, shift = (w[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, scale, shift)

    def unit(
        x: Tensor, name: str, stride: int = 1, padding: int = 0, *, depthwise: bool = False, first: int = 0
    ) -> Tensor:
        y = conv(x, f"{name}.{first}", stride, padding, depthwise=depthwise)
        return F.relu(norm(y, f"{name}.{first + 1}"))

    def separable(x: Tensor, name: str, stride: int = 1) -> Tensor:
        return unit(unit(x, f"{name}.conv", stride, 1, depthwise=True), f"{name}.conv", first=3)

    def enlarged(x: Tensor, size: torch.Size) -> Tensor:
        return F.interpolate(x, size, mode="bilinear", align_corners=True)

    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = unit((images - mean) / std, "learning_to_downsample.conv.conv", 2)
    x = separable(separable(x, "learning_to_downsample.dsconv1", 2), "learning_to_downsample.dsconv2", 2)
    fine, start = x, "global_feature_extractor"
    for stage, stride in ((1, 2), (2, 2), (3, 1)):
        for place in range(3):
            name, step = f"{start}.bottleneck{stage}.{place}.block", stride if place == 0 else 1
            y = unit(unit(x, f"{name}.0.conv"), f"{name}.1.conv", step, 1, depthwise=True)
            y = norm(conv(y, f"{name}.2"), f"{name}.3")
            x = x + y if step == 1 and x.shape == y.shape else y
    pools = [(n, F.adaptive_avg_pool2d(x, grid)) for n, grid in enumerate((1, 2, 3, 6), start=1)]
    levels = [enlarged(unit(pooled, f"{start}.ppm.conv{n}.conv"), x.shape[-2:]) for n, pooled in pools]
    x = unit(torch.cat([x, *levels], 1), f"{start}.ppm.out.conv")
    fuse = "feature_fusion"
    coarse = unit(enlarged(x, fine.shape[-2:]), f"{fuse}.dwconv.conv", 1, 1, depthwise=True)
    coarse = norm(conv(coarse, f"{fuse}.conv_lower_res.0"), f"{fuse}.conv_lower_res.1")
    x = F.relu(norm(conv(fine, f"{fuse}.conv_higher_res.0"), f"{fuse}.conv_higher_res.1") + coarse)
    x = conv(separable(separable(x, "classifier.dsconv1"), "classifier.dsconv2"), "classifier.conv.1")
    return enlarged(x, images.shape[-2:])


def test_the_same_logits(tmp_path: Path) -> None:
    weights = values(fast_scnn(aux=True))
    save_file(weights, tmp_path / "some.safetensors")
    network = hardy.import_weights(tmp_path / "some.safetensors", "cityscapes19", network="fast_scnn")
    images = torch.rand(1, 3, 128, 192, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(network(images), released(weights, images), rtol=1e-4, atol=1e-5)
        size = network.outputs(images).features["detail"].shape[-2:]
    assert size == (16, 24)
    aux = network.train().outputs(images).extras["aux_detail"]
    assert aux.shape == (1, 19, 16, 24)
