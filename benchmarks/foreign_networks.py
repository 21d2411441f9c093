"""The networks of `foreign`: torchvision's, timm's and segmentation_models' own, and four small ones of a user's kind.

The four have what the others lack: weight norm, group norms beside grouped convolutions, a channel shuffle inside a
residual sum, torch's own transformer.
"""

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torchvision import models

__all__ = ["CLASSES", "built", "networks"]

CLASSES = 7


class Residual(nn.Module):
    """Its layers added to what they take."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.layers(x))


class Encoder(nn.Module):
    """Patches, torch's own transformer encoder, a classifier of the mean token."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 64, 8, 8)
        layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3, nn.LayerNorm(64), enable_nested_tensor=False)
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


def weight_normed(classes: int) -> nn.Module:
    """Convolutions with weight norm (Salimans and Kingma, NeurIPS 2016), no other norm."""

    def conv(into: int, out: int, stride: int = 1) -> nn.Module:
        return parametrizations.weight_norm(nn.Conv2d(into, out, 3, stride, 1))

    block = Residual(conv(64, 96), nn.ReLU(), conv(96, 64))
    return nn.Sequential(conv(3, 32, 2), nn.ReLU(), conv(32, 64, 2), nn.ReLU(), block, nn.Conv2d(64, classes, 1))


def group_normed(classes: int) -> nn.Module:
    """Group norms of 8 groups, and grouped convolutions, in residual blocks."""

    def block(width: int) -> nn.Module:
        layers = nn.Conv2d(width, width, 3, 1, 1, groups=8), nn.GroupNorm(8, width), nn.ReLU()
        return Residual(*layers, nn.Conv2d(width, width, 1), nn.GroupNorm(8, width))

    stem = nn.Conv2d(3, 64, 3, 2, 1), nn.GroupNorm(8, 64), nn.ReLU()
    down = nn.Conv2d(64, 128, 3, 2, 1), nn.GroupNorm(8, 128), nn.ReLU()
    return nn.Sequential(*stem, block(64), *down, block(128), nn.Conv2d(128, classes, 1))


def shuffled(classes: int) -> nn.Module:
    """Grouped convolutions with a channel shuffle between them, added to their input (Zhang et al., CVPR 2018)."""

    def block(width: int, groups: int) -> nn.Module:
        narrow = nn.Conv2d(width, width // 2, 1, groups=groups), nn.BatchNorm2d(width // 2), nn.ReLU()
        filtered = nn.Conv2d(width // 2, width // 2, 3, 1, 1, groups=width // 2), nn.BatchNorm2d(width // 2)
        widen = nn.Conv2d(width // 2, width, 1, groups=groups), nn.BatchNorm2d(width)
        return Residual(*narrow, nn.ChannelShuffle(groups), *filtered, *widen)

    stem = nn.Conv2d(3, 96, 3, 2, 1), nn.BatchNorm2d(96), nn.ReLU()
    down = nn.Conv2d(96, 192, 3, 2, 1), nn.BatchNorm2d(192), nn.ReLU()
    return nn.Sequential(*stem, block(96, 2), block(96, 2), *down, block(192, 2), nn.Conv2d(192, classes, 1))


OWN = {
    "weight_norm": weight_normed,
    "group_norm": group_normed,
    "channel_shuffle": shuffled,
    "TransformerEncoder": Encoder,
}
"""By name, a function of the number of classes; images of 64x64."""

TIMM = {
    "resnet18": 64,
    "resnext50_32x4d": 64,
    "regnety_002": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "mobilenetv2_100": 64,
    "mobilenetv3_small_100": 64,
    "mobilenetv4_conv_small": 64,
    "ghostnet_100": 64,
    "repvit_m0_9": 64,
    "mobileone_s0": 64,
    "hrnet_w18_small": 64,
    "convnext_atto": 64,
    "convnextv2_atto": 64,
    "edgenext_xx_small": 64,
    "fastvit_t8": 64,
    "poolformer_s12": 64,
    "caformer_s18": 64,
    "pvt_v2_b0": 64,
    "vit_small_patch14_reg4_dinov2": 56,
    "deit_tiny_patch16_224": 64,
    "swin_tiny_patch4_window7_224": 64,
    "efficientformerv2_s0": 64,
    "resnetv2_50x1_bit": 64,
    "nf_resnet26": 64,
    "eca_nfnet_l0": 64,
    "res2net50_26w_4s": 64,
    "resnest14d": 64,
    "skresnet18": 64,
    "swinv2_tiny_window8_256": 64,
    "davit_tiny": 64,
    "coat_tiny": 64,
    "levit_128s": 224,
    "tiny_vit_5m_224": 64,
    "mobilevit_xxs": 64,
}
FIXED = ("vit", "deit", "swin", "efficientformerv2", "coat")
"""timm's families that are built for one size of image."""

TORCHVISION = {"shufflenet_v2_x0_5": 64, "vgg11_bn": 64, "squeezenet1_1": 64, "mnasnet0_5": 64, "swin_v2_t": 64}
SEGMENTATION = {"deeplabv3_mobilenet_v3_large": 64, "lraspp_mobilenet_v3_large": 64, "fcn_resnet50": 64}
SMP = {
    "Unet/resnet18": 64,
    "UnetPlusPlus/mobilenet_v2": 64,
    "MAnet/resnet18": 64,
    "FPN/resnet18": 64,
    "PSPNet/resnet18": 64,
    "PAN/resnet18": 128,
    "Linknet/resnet18": 64,
    "DeepLabV3/resnet18": 64,
    "DeepLabV3Plus/efficientnet-b0": 64,
    "UPerNet/resnet18": 64,
    "Segformer/mit_b0": 64,
    "Unet/mit_b0": 64,
}


TRANSFORMER = {"image_size": 64, "patch_size": 16, "num_layers": 4, "num_heads": 4, "hidden_dim": 128, "mlp_dim": 256}
"""A small one: torchvision's own sizes begin at 86 million parameters."""


def networks() -> dict[str, int]:
    """Every network of the matrix, with the side of its images."""
    rooms = {"timm": TIMM, "torchvision": TORCHVISION, "torchvision/segmentation": SEGMENTATION, "smp": SMP}
    rooms |= {"torchvision/transformer": {"VisionTransformer": 64}, "torch": dict.fromkeys(OWN, 64)}
    return {f"{room}/{name}": side for room, found in rooms.items() for name, side in found.items()}


def built(name: str, side: int) -> nn.Module:
    """The network with random weights, in evaluation mode."""
    torch.manual_seed(0)
    room, _, rest = name.partition("/")
    if room == "timm":
        sized = {"img_size": side} if rest.startswith(FIXED) else {}
        network = timm.create_model(rest, num_classes=CLASSES, **sized)
    elif room == "smp":
        decoder, encoder = rest.split("/")
        network = getattr(smp, decoder)(encoder, encoder_weights=None, classes=CLASSES)
    elif room == "torch":
        network = OWN[rest](CLASSES)
    elif rest.startswith("transformer/"):
        network = models.VisionTransformer(num_classes=CLASSES, **TRANSFORMER)
        nn.init.normal_(network.heads.head.weight, std=0.02)  # a fresh one gives zeros
    elif rest.startswith("segmentation/"):
        build = getattr(models.segmentation, rest.partition("/")[2])
        network = build(weights=None, weights_backbone=None, num_classes=CLASSES)
    else:
        network = getattr(models, rest)(weights=None, num_classes=CLASSES)
    return network.eval()
