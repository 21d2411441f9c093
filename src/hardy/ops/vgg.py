"""The VGG-19 of style transfer up to ``relu4_1``: maps images to the feature maps that define their style.

A 1x1 convolution scales colours to the range that the weights expect. Then come 3x3 convolutions with reflection
padding and ReLU: 64, 64, pool, 128, 128, pool, 256 four times, pool, 512. Pooling is 2x2 and rounds sizes up.

Source: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015, table
1, column E; its use as the encoder of AdaIN: Huang and Belongie, ICCV 2017, section 6.1.
"""

from torch import Tensor, nn

__all__ = ["VGG19"]

WIDTHS = ((64, 64), (128, 128), (256, 256, 256, 256), (512,))


class VGG19(nn.Sequential):
    """Images (B, 3, H, W) RGB in [0, 1] -> ``relu1_1``, ``relu2_1``, ``relu3_1`` and ``relu4_1``: 64, 128, 256 and 512
    channels at strides 1, 2, 4 and 8, sizes rounded up.

    Layers are numbered as in the public ``vgg_normalised`` weights. The weights are random until those are loaded.
    """

    channels, stride = 512, 8

    def __init__(self) -> None:
        layers: list[nn.Module] = [nn.Conv2d(3, 3, 1)]
        self.read: list[int] = []
        width = 3
        for widths in WIDTHS:
            if self.read:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            self.read.append(len(layers) + 2)
            for out in widths:
                layers += [nn.ReflectionPad2d(1), nn.Conv2d(width, out, 3), nn.ReLU()]
                width = out
        super().__init__(*layers)

    def forward(self, images: Tensor) -> list[Tensor]:  # type: ignore[override]
        """The four maps, finest first."""
        maps = []
        for number, layer in enumerate(self):
            images = layer(images)
            if number in self.read:
                maps.append(images)
        return maps
