"""ResNet-18 and ResNet-34 as encoders: the residual sums of the four stages, before the ReLU.

Source: He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016, table 1.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.residual_stage import ResidualStage
from hardy.networks.building.weights import fill
from hardy.networks.parts.pyramid import load_encoder

__all__ = ["DEPTHS", "ResNet", "fill_resnet"]

DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
"""Name -> number of blocks of each stage."""


class ResNet(nn.Module):
    """Normalised images (B, 3, H, W) -> maps (B, C, h, w) at strides 4, 8, 16, 32; sides round up.

    Parameters are named as in ImageNet checkpoints.

    Attributes:
        channels: channels of each map as built.
        strides: stride of each map.

    Args:
        name: one of `DEPTHS`.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.channels, self.strides = [64, 128, 256, 512], [4, 8, 16, 32]
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        one, two, three, four = DEPTHS[name]
        self.layer1 = ResidualStage(64, 64, one)
        self.layer2 = ResidualStage(64, 128, two, stride=2)
        self.layer3 = ResidualStage(128, 256, three, stride=2)
        self.layer4 = ResidualStage(256, 512, four, stride=2)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The residual sums of the stages, finest first."""
        return self.stages(self.stem(images))

    def stem(self, images: Tensor) -> Tensor:
        """The map before the first stage, (B, 64, H/4, W/4)."""
        return F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, 2, 1)

    def stages(self, x: Tensor) -> list[Tensor]:
        """The residual sums of the stages, from the map of `stem`."""
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
            x = F.relu(x)
        return maps


def fill_resnet(encoder: nn.Module, name: str, weights: str) -> None:
    """Load the ImageNet ``weights`` of ``name`` into an ``encoder`` with the same layers, in place.

    Args:
        encoder: a module with the parameter names and shapes of timm's and torchvision's model ``name``.
        name: a timm ResNet.
        weights: a weights file with the names of torchvision or timm; ``"timm"`` or a timm tag.

    Raises:
        InputError: for weights that are neither a file nor a tag, or that do not fit.
    """
    trained = load_encoder(name, weights, lambda model: model.reset_classifier(0))
    fill(encoder, trained.state_dict(), weights)
