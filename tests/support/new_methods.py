"""The source of a new method of every kind, and of a new kind, as `test_extension` writes them into empty folders."""

METHODS = {
    "criterion": '''"""Keeps the channels that come last.

Source: written by a test.
"""
import torch
from hardy.pruning.criteria.base import Criterion

class Late(Criterion):
    needs_data = False

    def __init__(self, network, units, pixel_loss, *, slope: float = 1.0):
        super().__init__(network, units, pixel_loss)
        self.slope = slope

    def scores(self):
        return {u.name: self.slope * torch.arange(u.size, dtype=torch.float64) for u in self.units}
''',
    "algorithm": '''"""Minimises the losses of the network on darker images.

Source: written by a test.
"""
from hardy.algorithms.base import Algorithm

class Darker(Algorithm):
    def __init__(self, network, pixel_loss, *, slope: float = 0.5):
        super().__init__(network)
        self.pixel_loss, self.slope = pixel_loss, slope

    def forward(self, batch):
        outputs = self.network.outputs(self.slope * batch.images)
        return self.network.losses(outputs, batch.labels, self.pixel_loss)
''',
    "loss": '''"""Cross-entropy, to a slope.

Source: written by a test.
"""
from torch.nn import functional as F
from hardy.losses.base import Loss

class Sloped(Loss):
    def __init__(self, class_count, *, slope: float = 2.0):
        super().__init__(class_count)
        self.slope = slope

    def __call__(self, logits, labels):
        return self.slope * F.cross_entropy(logits, labels, ignore_index=255)
''',
    "dataset": '''"""Two domains of plain colours: all road, all sky.

Source: written by a test.
"""
import numpy as np
from hardy.data.base import Dataset
from hardy.data.label_spaces import find_label_space

class Plain(Dataset):
    def __init__(self, root, *, slope: int = 4):
        self.label_space, self.count = find_label_space("camvid11"), slope

    def index(self):
        items = lambda name: tuple((name, number) for number in range(self.count))
        return {name: {"train": items(name)} for name in ("road", "sky")}

    def read(self, item):
        value = self.label_space.index(item[0])
        return np.full((32, 64, 3), 20 * value, np.uint8), np.full((32, 64), value, np.uint8)
''',
    "adaptation": '''"""Predicts with the norms of each batch.

Source: written by a test.
"""
from hardy.adaptation.base import TestTimeAdaptation

class Batchwise(TestTimeAdaptation):
    predicts = "after"

    def __init__(self, network, *, slope: float = 1.0):
        super().__init__(network)
        self.network.train()
        self.slope = slope

    def adapt(self, images):
        return self.slope * self.network(images)
''',
    "encoder": '''"""Two maps by pooled convolutions.

Source: written by a test.
"""
from torch import nn
from torch.nn import functional as F
from hardy.networks.encoders.base import Encoder

class Pooled(Encoder):
    variants = ("new_pooled",)

    def __init__(self, name, *, slope: int = 8):
        super().__init__(name, (slope, 2 * slope), (4, 8))
        self.fine, self.coarse = nn.Conv2d(3, slope, 3, padding=1), nn.Conv2d(slope, 2 * slope, 3, padding=1)

    def forward(self, images):
        fine = self.fine(F.avg_pool2d(images, 4, ceil_mode=True)).relu()
        return [fine, self.coarse(F.avg_pool2d(fine, 2, ceil_mode=True)).relu()]
''',
    "decoder": '''"""Classifies the coarsest map, to a slope.

Source: written by a test.
"""
from torch import nn
from hardy.networks.decoders.base import Decoded, Decoder

class Coarsest(Decoder):
    def __init__(self, channels, strides, class_count, *, slope: float = 1.0):
        super().__init__(channels, strides, class_count)
        self.slope, self.classify = slope, nn.Conv2d(channels[-1], class_count, 1)

    def decode(self, maps):
        return Decoded(maps[-1], self.slope * self.classify(maps[-1]))
''',
    "network": '''"""Two convolutions.

Source: written by a test.
"""
from torch import nn
from hardy.networks.base import Network, resize
from hardy.types import Outputs

class Twice(Network):
    def __init__(self, label_space, *, slope: int = 16):
        super().__init__(label_space)
        self.first, self.head = nn.Conv2d(3, slope, 3, stride=2, padding=1), nn.Conv2d(slope, len(label_space), 1)

    def outputs(self, images):
        seen = self.first(self.normalise(images)).relu()
        logits = self.head(seen)
        return Outputs(resize(logits, images.shape[-2:]), {"seen": seen}, coarse=logits, embedding=seen)
''',
    "weights": '''"""Of a small ResNet.

Source: written by a test.
"""
from hardy.networks.shipped.base import ShippedWeights

class Small(ShippedWeights):
    encoder, package, file = "test_resnet", "new-weights", "new_weights.pth"
    licence, origin, sha256 = "CC0-1.0", "a test", "SHA256"
    mean = std = (0.25, 0.25, 0.25)

    def __init__(self, *, slope: float = 1.0):
        self.slope = slope

    def named(self, weights, own):
        return {name: self.slope * value for name, value in super().named(weights, own).items()}
''',
    "schedule": '''"""Removes by the scores of the weights, at once.

Source: written by a test.
"""
from hardy.pruning.goal import choose
from hardy.pruning.schedules.base import Schedule, remove_and_check

class Now(Schedule):
    trains = False

    def __init__(self, *, slope: int = 1):
        self.slope = slope

    def run(self, work):
        scores = {name: self.slope * value for name, value in work.criterion.scores().items()}
        return remove_and_check(work, choose(scores, work.units, work.goal, {}, work.limits), scores, self.slope)
''',
    "tuner": '''"""Trains the last parameters.

Source: written by a test.
"""
from hardy.tuning.base import Tuner

class Last(Tuner):
    def __init__(self, *, slope: int = 2):
        self.slope = slope

    def attach(self, network):
        network.requires_grad_(False)
        for value in list(network.parameters())[-self.slope :]:
            value.requires_grad_(True)
''',
    "distillation": '''"""The mean difference of the logits, to a slope.

Source: written by a test.
"""
from hardy.distillation.base import DistillationLoss

class Apart(DistillationLoss):
    def __init__(self, class_count, *, slope: float = 1.0):
        super().__init__(slope / class_count)
        self.slope = slope

    def forward(self, outputs):
        return (outputs.student - outputs.teacher).float().abs().mean()
''',
    "publication": '''"""The network of the test, as nobody published it.

Source: written by a test.
"""
from hardy.networks.published.base import Publication

class TwicePublication(Publication):
    network = "NETWORK"
    repository = "nobody/nothing"
    signs = (r"stem[.]weight",)
    layers = {"stem": "first", "classifier": "head"}

    def __init__(self, *, slope: int = 1):
        self.slope = slope

    def class_count(self, weights):
        return len(weights["classifier.weight"])

    def options(self, weights):
        return {"slope": self.slope * len(weights["stem.weight"])}
''',
}

KIND = '''"""A kind made up by a test."""
from abc import ABC

class Weather(ABC):
    """How wet it is."""
'''

RAIN = '''"""Rain.

Source: written by a test.
"""
from made_up_kind.base import Weather

class Rain(Weather):
    def __init__(self, network, *, drops: int = 3):
        self.drops = drops
'''
