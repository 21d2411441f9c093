"""The names and shapes of more published state dicts: two-branch networks and transformers; see `published_names`."""

from itertools import pairwise

from published_names import Shapes, conv, layer_norm, linear, norm


def basic(name: str, into: int, out: int, *, stride: int = 1) -> Shapes:
    shapes = conv(f"{name}.conv1", out, into, 3) | norm(f"{name}.bn1", out)
    shapes |= conv(f"{name}.conv2", out, out, 3) | norm(f"{name}.bn2", out)
    return shapes | (shortcut(name, into, out) if stride > 1 or into != out else {})


def bottleneck(name: str, into: int, middle: int, *, stride: int = 1) -> Shapes:
    shapes = conv(f"{name}.conv1", middle, into) | norm(f"{name}.bn1", middle)
    shapes |= conv(f"{name}.conv2", middle, middle, 3) | norm(f"{name}.bn2", middle)
    shapes |= conv(f"{name}.conv3", 2 * middle, middle) | norm(f"{name}.bn3", 2 * middle)
    return shapes | (shortcut(name, into, 2 * middle) if stride > 1 or into != 2 * middle else {})


def shortcut(name: str, into: int, out: int) -> Shapes:
    return conv(f"{name}.downsample.0", out, into) | norm(f"{name}.downsample.1", out)


def stage(name: str, into: int, out: int, count: int, *, stride: int = 1) -> Shapes:
    shapes = basic(f"{name}.0", into, out, stride=stride)
    for place in range(1, count):
        shapes |= basic(f"{name}.{place}", out, out)
    return shapes


def pre(name: str, into: int, out: int, kernel: int = 1, *, first: int = 0, groups: int = 1) -> Shapes:
    """Norm, ReLU, convolution in a list whose norm is number ``first``."""
    return norm(f"{name}.{first}", into) | conv(f"{name}.{first + 2}", out, into // groups, kernel)


def seg_head(name: str, into: int, middle: int, out: int) -> Shapes:
    shapes = norm(f"{name}.bn1", into) | conv(f"{name}.conv1", middle, into, 3)
    return shapes | norm(f"{name}.bn2", middle) | conv(f"{name}.conv2", out, middle, bias=True)


def trunk(c: int, early: int, late: int) -> Shapes:
    shapes = conv("conv1.0", c, 3, 3, bias=True) | norm("conv1.1", c)
    shapes |= conv("conv1.3", c, c, 3, bias=True) | norm("conv1.4", c)
    shapes |= stage("layer1", c, c, early) | stage("layer2", c, 2 * c, early, stride=2)
    shapes |= stage("layer3", 2 * c, 4 * c, late, stride=2) | stage("layer4", 4 * c, 8 * c, late, stride=2)
    shapes |= stage("layer3_", 2 * c, 2 * c, early) | stage("layer4_", 2 * c, 2 * c, early)
    shapes |= bottleneck("layer5.0", 8 * c, 8 * c, stride=2) | bottleneck("layer5_.0", 2 * c, 2 * c)
    shapes |= conv("compression3.0", 2 * c, 4 * c) | norm("compression3.1", 2 * c)
    return shapes | conv("compression4.0", 2 * c, 8 * c) | norm("compression4.1", 2 * c)


def pooling(c: int, width: int, *, parallel: bool) -> Shapes:
    shapes = (
        pre("spp.scale0", 16 * c, width) | pre("spp.shortcut", 16 * c, 4 * c) | pre("spp.compression", 5 * width, 4 * c)
    )
    for number in range(1, 5):
        shapes |= pre(f"spp.scale{number}", 16 * c, width, first=1)
        shapes |= {} if parallel else pre(f"spp.process{number}", width, width, 3)
    return shapes | (pre("spp.scale_process", 4 * width, 4 * width, 3, groups=4) if parallel else {})


def ddrnet(c: int = 32, head: int = 64, classes: int = 19, *, aux: bool = False) -> Shapes:
    """ydhongHIT/DDRNet, with ``augment`` or without."""
    shapes = trunk(c, 2, 2) | conv("down3.0", 4 * c, 2 * c, 3) | norm("down3.1", 4 * c)
    shapes |= conv("down4.0", 4 * c, 2 * c, 3) | norm("down4.1", 4 * c)
    shapes |= conv("down4.3", 8 * c, 4 * c, 3) | norm("down4.4", 8 * c)
    shapes |= pooling(c, 128, parallel=False) | seg_head("final_layer", 4 * c, head, classes)
    return shapes | (seg_head("seghead_extra", 2 * c, head, classes) if aux else {})


def pidnet(variant: str = "s", classes: int = 19, *, aux: bool = False) -> Shapes:
    """XuJiacong/PIDNet, with ``augment`` or without."""
    m, n, c, width, head = {"s": (2, 3, 32, 96, 128), "m": (2, 3, 64, 96, 128), "l": (3, 4, 64, 112, 256)}[variant]
    shapes = trunk(c, m, n) | bottleneck("layer5.1", 16 * c, 8 * c)
    for pag in ("pag3", "pag4"):
        for side in ("f_x", "f_y"):
            shapes |= conv(f"{pag}.{side}.0", c, 2 * c) | norm(f"{pag}.{side}.1", c)
    thin = c if m == 2 else 2 * c
    shapes |= basic("layer3_d", 2 * c, thin) | bottleneck("layer5_d.0", 2 * c, 2 * c)
    shapes |= bottleneck("layer4_d.0", c, c) if m == 2 else basic("layer4_d", 2 * c, 2 * c)
    shapes |= conv("diff3.0", thin, 4 * c, 3) | norm("diff3.1", thin)
    shapes |= conv("diff4.0", 2 * c, 8 * c, 3) | norm("diff4.1", 2 * c)
    shapes |= pooling(c, width, parallel=m == 2)
    if m == 2:
        for side in ("conv_p", "conv_i"):
            shapes |= conv(f"dfm.{side}.0", 4 * c, 4 * c) | norm(f"dfm.{side}.1", 4 * c)
    else:
        shapes |= pre("dfm.conv", 4 * c, 4 * c, 3)
    shapes |= seg_head("final_layer", 4 * c, head, classes)
    return shapes | (seg_head("seghead_p", 2 * c, head, classes) | seg_head("seghead_d", 2 * c, c, 1) if aux else {})


def conv_bn(name: str, into: int, out: int, kernel: int = 3) -> Shapes:
    return conv(f"{name}.conv", out, into, kernel) | norm(f"{name}.bn", out)


def pair(name: str, into: int, out: int, kernel: int = 3, *, first: int = 0, groups: int = 1) -> Shapes:
    return conv(f"{name}.{first}", out, into // groups, kernel) | norm(f"{name}.{first + 1}", out)


def gather(name: str, into: int, out: int) -> Shapes:
    wide = 6 * into
    shapes = conv_bn(f"{name}.conv1", into, into) | pair(f"{name}.conv2", wide, out, 1)
    if into == out:
        return shapes | pair(f"{name}.dwconv", into, wide, groups=into)
    shapes |= pair(f"{name}.dwconv1", into, wide, groups=into) | pair(f"{name}.dwconv2", wide, wide, groups=wide)
    return shapes | pair(f"{name}.shortcut", into, into, groups=into) | pair(f"{name}.shortcut", into, out, 1, first=2)


def bisenetv2(classes: int = 19, *, aux: bool = False) -> Shapes:
    """CoinCheung/BiSeNet, the network of its present release."""
    shapes: Shapes = {}
    for number, widths in enumerate(((3, 64, 64), (64, 64, 64, 64), (64, 128, 128, 128)), start=1):
        for place, (into, out) in enumerate(pairwise(widths)):
            shapes |= conv_bn(f"detail.S{number}.{place}", into, out)
    shapes |= conv_bn("segment.S1S2.conv", 3, 16) | conv_bn("segment.S1S2.left.0", 16, 8, 1)
    shapes |= conv_bn("segment.S1S2.left.1", 8, 16) | conv_bn("segment.S1S2.fuse", 32, 16)
    for name, into, out, count in (("S3", 16, 32, 2), ("S4", 32, 64, 2), ("S5_4", 64, 128, 4)):
        for place in range(count):
            shapes |= gather(f"segment.{name}.{place}", into if place == 0 else out, out)
    shapes |= norm("segment.S5_5.bn", 128) | conv_bn("segment.S5_5.conv_gap", 128, 128, 1)
    shapes |= conv_bn("segment.S5_5.conv_last", 128, 128)
    for name in ("left1", "right2"):
        shapes |= pair(f"bga.{name}", 128, 128, groups=128) | conv(f"bga.{name}.2", 128, 128)
    for name in ("left2", "right1", "conv"):
        shapes |= pair(f"bga.{name}", 128, 128)
    shapes |= conv_bn("head.conv", 128, 1024) | conv("head.conv_out.1", classes, 1024, bias=True)
    for name, into, factor in (("aux2", 16, 4), ("aux3", 32, 8), ("aux4", 64, 16), ("aux5_4", 128, 32)) if aux else ():
        shapes |= conv_bn(f"{name}.conv", into, 128) | conv_bn(f"{name}.conv_out.0.1", 128, factor**2)
        shapes |= conv(f"{name}.conv_out.1", classes, factor**2, bias=True)
    return shapes


WIDTHS, REDUCTIONS = (32, 64, 160, 256), (8, 4, 2, 1)


def segformer(classes: int = 19, depth: int = 2) -> Shapes:
    """NVlabs/SegFormer, B0."""
    shapes: Shapes = {}
    for s, (before, c, r) in enumerate(zip((3, *WIDTHS), WIDTHS, REDUCTIONS, strict=False), start=1):
        shapes |= conv(f"backbone.patch_embed{s}.proj", c, before, 7 if s == 1 else 3, bias=True)
        shapes |= layer_norm(f"backbone.patch_embed{s}.norm", c) | layer_norm(f"backbone.norm{s}", c)
        for b in range(depth):
            name = f"backbone.block{s}.{b}"
            shapes |= layer_norm(f"{name}.norm1", c) | layer_norm(f"{name}.norm2", c) | linear(f"{name}.attn.q", c, c)
            shapes |= linear(f"{name}.attn.kv", 2 * c, c) | linear(f"{name}.attn.proj", c, c)
            if r > 1:
                shapes |= conv(f"{name}.attn.sr", c, c, r, bias=True) | layer_norm(f"{name}.attn.norm", c)
            shapes |= linear(f"{name}.mlp.fc1", 4 * c, c) | conv(f"{name}.mlp.dwconv.dwconv", 4 * c, 1, 3, bias=True)
            shapes |= linear(f"{name}.mlp.fc2", c, 4 * c)
        shapes |= linear(f"decode_head.linear_c{s}.proj", 256, c)
    shapes |= conv("decode_head.conv_seg", classes, 128, bias=True) | conv("decode_head.linear_fuse.conv", 256, 1024)
    return shapes | norm("decode_head.linear_fuse.bn", 256) | conv("decode_head.linear_pred", classes, 256, bias=True)


def segformer_transformers(classes: int = 19) -> Shapes:
    """huggingface/transformers, `SegformerForSemanticSegmentation` of B0."""
    shapes: Shapes = {}
    for s, (before, c, r) in enumerate(zip((3, *WIDTHS), WIDTHS, REDUCTIONS, strict=False)):
        start = "segformer.encoder"
        shapes |= conv(f"{start}.patch_embeddings.{s}.proj", c, before, 7 if s == 0 else 3, bias=True)
        shapes |= layer_norm(f"{start}.patch_embeddings.{s}.layer_norm", c) | layer_norm(f"{start}.layer_norm.{s}", c)
        for b in range(2):
            name = f"{start}.block.{s}.{b}"
            shapes |= layer_norm(f"{name}.layer_norm_1", c) | layer_norm(f"{name}.layer_norm_2", c)
            for part in ("self.query", "self.key", "self.value", "output.dense"):
                shapes |= linear(f"{name}.attention.{part}", c, c)
            if r > 1:
                shapes |= conv(f"{name}.attention.self.sr", c, c, r, bias=True)
                shapes |= layer_norm(f"{name}.attention.self.layer_norm", c)
            shapes |= linear(f"{name}.mlp.dense1", 4 * c, c) | conv(f"{name}.mlp.dwconv.dwconv", 4 * c, 1, 3, bias=True)
            shapes |= linear(f"{name}.mlp.dense2", c, 4 * c)
        shapes |= linear(f"decode_head.linear_c.{s}.proj", 256, c)
    shapes |= conv("decode_head.linear_fuse", 256, 1024) | norm("decode_head.batch_norm", 256)
    return shapes | conv("decode_head.classifier", classes, 256, bias=True)


def segformer_mmseg(classes: int = 19) -> Shapes:
    """open-mmlab/mmsegmentation, B0."""
    shapes: Shapes = {}
    for s, (before, c, r) in enumerate(zip((3, *WIDTHS), WIDTHS, REDUCTIONS, strict=False)):
        start = f"backbone.layers.{s}"
        shapes |= conv(f"{start}.0.projection", c, before, 7 if s == 0 else 3, bias=True)
        shapes |= layer_norm(f"{start}.0.norm", c) | layer_norm(f"{start}.2", c)
        for b in range(2):
            name = f"{start}.1.{b}"
            shapes |= layer_norm(f"{name}.norm1", c) | layer_norm(f"{name}.norm2", c)
            shapes |= {f"{name}.attn.attn.in_proj_weight": (3 * c, c), f"{name}.attn.attn.in_proj_bias": (3 * c,)}
            shapes |= linear(f"{name}.attn.attn.out_proj", c, c)
            if r > 1:
                shapes |= conv(f"{name}.attn.sr", c, c, r, bias=True) | layer_norm(f"{name}.attn.norm", c)
            shapes |= conv(f"{name}.ffn.layers.0", 4 * c, c, bias=True) | conv(
                f"{name}.ffn.layers.4", c, 4 * c, bias=True
            )
            shapes |= conv(f"{name}.ffn.layers.1", 4 * c, 1, 3, bias=True)
        shapes |= conv(f"decode_head.convs.{s}.conv", 256, c) | norm(f"decode_head.convs.{s}.bn", 256)
    shapes |= conv("decode_head.fusion_conv.conv", 256, 1024) | norm("decode_head.fusion_conv.bn", 256)
    return shapes | conv("decode_head.conv_seg", classes, 256, bias=True)
