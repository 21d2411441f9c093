"""The rules by which Hardy's networks and public code are filled and fed alike, and the places where they are compared.

All draws are of NumPy's legacy generator, whose stream is frozen.
"""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from hardy.networks.base import Network

COUNT = 64
"""Numbers compared of each output."""

FIXED = {"img_mean": (73.15, 82.90, 72.3), "img_std": (47.67, 48.49, 47.73)}
"""Values of buffers, by the last part of their name: the normalisation that SwiftNet's configurations give."""


def state(shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """A tensor in float32 for each name and shape: the same for the same name and shape, whatever stands beside it.

    Weights of two dimensions and more are uniform with the variance 2 / fan-in, other weights lie in [0.75, 1.25],
    running variances in [0.5, 1.5], biases and running means in [-0.1, 0.1], the slopes of PReLU in [0.1, 0.4].
    """
    return {name: _drawn(name, tuple(shape)) for name, shape in shapes.items()}


def _drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    leaf = name.rsplit(".", 1)[-1]
    if leaf in FIXED:
        return torch.tensor(FIXED[leaf]).view(shape)
    if leaf == "num_batches_tracked":
        return torch.tensor(1)
    unit = np.random.RandomState(zlib.crc32(f"{name} {list(shape)}".encode())).random_sample(shape)
    if leaf == "running_var":
        values = 0.5 + unit
    elif leaf != "weight" and not leaf.endswith("_weight"):
        values = 0.2 * unit - 0.1
    elif len(shape) > 1:
        values = (2 * unit - 1) * (6 / np.prod(shape[1:])) ** 0.5
    else:
        values = 0.1 + 0.3 * unit if name.endswith("act.weight") else 0.75 + 0.5 * unit
    return torch.from_numpy(values).float()


def image(height: int, width: int) -> Tensor:
    """RGB values (1, 3, H, W), whole numbers in [0, 255], as float64: waves under noise."""
    draw = np.random.RandomState(1000 * height + width)
    rows, columns = np.mgrid[:height, :width]
    waves = np.stack([np.sin(rows / (7 + 4 * band) + columns / (19 - 5 * band) + band) for band in range(3)])
    values = np.rint(128 + 80 * waves + draw.randint(-40, 41, size=waves.shape)).clip(0, 255)
    return torch.from_numpy(values)[None]


def sample(output: Tensor) -> Tensor:
    """The `COUNT` values of ``output`` at fixed places, float64."""
    places = np.random.RandomState(output.numel() % 2**31).randint(0, output.numel(), COUNT)
    return output.detach().double().flatten()[torch.from_numpy(places)]


@torch.no_grad()
def agree(network: Network, outputs: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Hold ``network``, with its training heads but its running statistics, to ``outputs`` within 1e-6, relative to the
    largest value.

    Args:
        network: of Hardy's; in float64 and in training mode afterwards.
        outputs: size of the image, ``"HxW"`` -> ``"logits"`` or an extra -> its `sample` at the image's size.
    """
    network.double().train()
    for module in network.children():
        module.eval()
    for size, expected in outputs.items():
        rgb = image(*map(int, size.split("x")))
        found = network.outputs(rgb / 255)
        assert expected.keys() == {"logits", *found.extras}
        for name, numbers in expected.items():
            value = found.logits if name == "logits" else network.enlarged(found.extras[name], rgb.shape[-2:])
            recorded = torch.tensor(numbers).double()
            assert float((sample(value) - recorded).abs().max() / recorded.abs().max()) <= 1e-6, (size, name)
