"""The names and shapes of published state dicts, layer by layer as their repositories build them, and random values."""

from collections.abc import Mapping

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


def conv(name: str, out: int, into: int, kernel: int = 1, *, bias: bool = False) -> Shapes:
    return {f"{name}.weight": (out, into, kernel, kernel)} | ({f"{name}.bias": (out,)} if bias else {})


def linear(name: str, out: int, into: int) -> Shapes:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def layer_norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def norm(name: str, width: int) -> Shapes:
    every = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{leaf}": (width,) for leaf in every} | {f"{name}.num_batches_tracked": ()}


def values(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Random tensors of ``shapes``; small weights, variances above 0."""
    draw = torch.Generator().manual_seed(seed)
    renamed: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            renamed[name] = torch.tensor(7)
        elif name.endswith(("running_var", "img_std")):
            renamed[name] = torch.rand(shape, generator=draw) + 0.5
        else:
            fan_in = max(1, torch.Size(shape[1:]).numel())
            renamed[name] = torch.randn(shape, generator=draw) / fan_in**0.5
    return renamed


def espnet(classes: int, p: int, q: int, *, skip: int = 16, decoder: bool = True) -> Shapes:
    """sacmehta/ESPNet; ``skip`` channels of the finest map go into its decoder: 16, or 19 with the image."""
    e = "encoder." if decoder else ""
    shapes = conv(f"{e}level1.conv", 16, 3, 3) | prelu_norm(f"{e}level1", 16) | prelu_norm(f"{e}b1", 19)
    shapes |= pyramid(f"{e}level2_0", 19, 64, 3) | prelu_norm(f"{e}level2_0", 64)
    for place in range(p):
        shapes |= pyramid(f"{e}level2.{place}", 64, 64) | prelu_norm(f"{e}level2.{place}.bn", 64)
    shapes |= prelu_norm(f"{e}b2", 131) | pyramid(f"{e}level3_0", 131, 128, 3) | prelu_norm(f"{e}level3_0", 128)
    for place in range(q):
        shapes |= pyramid(f"{e}level3.{place}", 128, 128) | prelu_norm(f"{e}level3.{place}.bn", 128)
    shapes |= prelu_norm(f"{e}b3", 256) | conv(f"{e}classifier.conv", classes, 256)
    if decoder:
        shapes |= conv("level3_C.conv", classes, 131) | norm("br", classes)
        shapes |= conv("conv.conv", classes, classes + skip, 3) | prelu_norm("conv", classes)
        shapes |= conv("up_l3.0", classes, classes, 2) | prelu_norm("combine_l2_l3.0", 2 * classes)
        shapes |= pyramid("combine_l2_l3.1", 2 * classes, classes) | prelu_norm("combine_l2_l3.1.bn", classes)
        shapes |= conv("up_l2.0", classes, classes, 2) | prelu_norm("up_l2.1", classes)
        shapes |= conv("classifier", classes, classes, 2)
    return {name: shape for name, shape in shapes.items() if not name.endswith("num_batches_tracked")}


def prelu_norm(name: str, width: int) -> Shapes:
    return norm(f"{name}.bn", width) | {f"{name}.act.weight": (width,)}


def pyramid(name: str, into: int, out: int, kernel: int = 1) -> Shapes:
    n = out // 5
    wide = {"d1": out - 4 * n, "d2": n, "d4": n, "d8": n, "d16": n}
    shapes = conv(f"{name}.c1.conv", n, into, kernel)
    for branch, width in wide.items():
        shapes |= conv(f"{name}.{branch}.conv", width, n, 3)
    return shapes


def separable(name: str, into: int, out: int) -> Shapes:
    shapes = conv(f"{name}.conv.0", into, 1, 3) | norm(f"{name}.conv.1", into)
    return shapes | conv(f"{name}.conv.3", out, into) | norm(f"{name}.conv.4", out)


def fast_scnn(classes: int = 19, *, aux: bool = False) -> Shapes:
    """Tramac/Fast-SCNN-pytorch."""
    start, middle, fuse = "learning_to_downsample", "global_feature_extractor", "feature_fusion"
    shapes = conv(f"{start}.conv.conv.0", 32, 3, 3) | norm(f"{start}.conv.conv.1", 32)
    shapes |= separable(f"{start}.dsconv1", 32, 48) | separable(f"{start}.dsconv2", 48, 64)
    for stage, (into, out) in enumerate(((64, 64), (64, 96), (96, 128)), start=1):
        for place in range(3):
            name, narrow = f"{middle}.bottleneck{stage}.{place}.block", into if place == 0 else out
            wide = 6 * narrow
            shapes |= conv(f"{name}.0.conv.0", wide, narrow) | norm(f"{name}.0.conv.1", wide)
            shapes |= conv(f"{name}.1.conv.0", wide, 1, 3) | norm(f"{name}.1.conv.1", wide)
            shapes |= conv(f"{name}.2", out, wide) | norm(f"{name}.3", out)
    for number in range(1, 5):
        shapes |= conv(f"{middle}.ppm.conv{number}.conv.0", 32, 128) | norm(f"{middle}.ppm.conv{number}.conv.1", 32)
    shapes |= conv(f"{middle}.ppm.out.conv.0", 128, 256) | norm(f"{middle}.ppm.out.conv.1", 128)
    shapes |= conv(f"{fuse}.dwconv.conv.0", 128, 1, 3) | norm(f"{fuse}.dwconv.conv.1", 128)
    shapes |= conv(f"{fuse}.conv_lower_res.0", 128, 128, bias=True) | norm(f"{fuse}.conv_lower_res.1", 128)
    shapes |= conv(f"{fuse}.conv_higher_res.0", 128, 64, bias=True) | norm(f"{fuse}.conv_higher_res.1", 128)
    shapes |= separable("classifier.dsconv1", 128, 128) | separable("classifier.dsconv2", 128, 128)
    shapes |= conv("classifier.conv.1", classes, 128, bias=True)
    if aux:
        shapes |= conv("auxlayer.0", 32, 64, 3) | norm("auxlayer.1", 32) | conv("auxlayer.4", classes, 32, bias=True)
    return shapes


def unit(name: str, into: int, out: int, kernel: int = 1, *, bias: bool = False) -> Shapes:
    return norm(f"{name}.norm", into) | conv(f"{name}.conv", out, into, kernel, bias=bias)


def swiftnet(classes: int = 19, *, levels: int = 0) -> Shapes:
    """orsic/swiftnet: the single-scale network, or with an image pyramid of ``levels``."""

    def norms(name: str, width: int) -> Shapes:
        each = [norm(f"{name}.{level}", width) for level in range(levels)] or [norm(name, width)]
        return {key: shape for one in each for key, shape in one.items()}

    b = "backbone"
    shapes: Shapes = {f"{b}.img_mean": (1, 3, 1, 1), f"{b}.img_std": (1, 3, 1, 1)}
    shapes |= conv(f"{b}.conv1", 64, 3, 7) | norms(f"{b}.bn1", 64)
    for stage, (into, out) in enumerate(((64, 64), (64, 128), (128, 256), (256, 512)), start=1):
        for place, narrow in enumerate((into, out)):
            name = f"{b}.layer{stage}.{place}"
            shapes |= conv(f"{name}.conv1", out, narrow, 3) | norms(f"{name}.bn1", out)
            shapes |= conv(f"{name}.conv2", out, out, 3) | norms(f"{name}.bn2", out)
            if narrow != out:
                shapes |= conv(f"{name}.downsample.0", out, narrow) | norm(f"{name}.downsample.1", out)
    shapes |= unit("logits", 128, classes, bias=True)
    if levels:
        for place, wide in enumerate((512, 256, 128, 64)):
            shapes |= conv(f"{b}.upsample_bottlenecks.{place}", 128, wide)
        for place in range(levels + 2):
            shapes |= unit(f"{b}.upsample_blends.{place}.blend_conv", 128, 128, 3)
        return shapes
    shapes |= unit(f"{b}.spp.spp.spp_bn", 512, 128) | unit(f"{b}.spp.spp.spp_fuse", 254, 128)
    for place, wide in enumerate((256, 128, 64)):
        shapes |= unit(f"{b}.spp.spp.spp{place}", 128, 42)
        shapes |= unit(f"{b}.upsample.{place}.bottleneck", wide, 128)
        shapes |= unit(f"{b}.upsample.{place}.blend_conv", 128, 128, 3)
    return shapes
