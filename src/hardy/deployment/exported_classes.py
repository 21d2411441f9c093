"""An exported file that returns class ids, as a network: its logits are 1 for the class of a pixel and 0 for the rest.

So a mean over windows counts votes, and after resizing the class with the largest share is the best.
"""

from pathlib import Path

from torch import Tensor
from torch.nn import functional as F

from hardy.deployment.exported import Exported, described, opened
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.types import Outputs

__all__ = ["ExportedClasses", "read_exported"]


def read_exported(path: Path) -> "Exported | ExportedClasses":
    """The network in an ONNX file of `hardy.export`, whether it returns logits or class ids.

    Raises:
        InputError: if the file is missing, cannot be read, or does not name its classes.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give an ONNX file that hardy export wrote")
    description = described(path, opened(path).described)[1]
    return ExportedClasses(path) if description["output"] == "classes" else Exported(path)


class ExportedClasses(Network):
    """The network in the ONNX file ``path`` that returns class ids (B, h, w); it runs on the CPU.

    Args:
        path: a file of `hardy.export` with ``output="classes"``, at any ``upsample``.

    Attributes:
        takes: (B, H, W) of the images that the file takes; None for an open dimension.
        least_size: see `hardy.deployment.exported.Exported`.

    Raises:
        InputError: if onnxruntime is missing or cannot read the file, or if it holds no network with a class per pixel.
    """

    least_size = 1
    gives_features = False

    def __init__(self, path: Path) -> None:
        session = opened(path)
        label_space, description = described(path, session.described)
        super().__init__(label_space, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        self.least_size = description["least_size"]
        if len(session.takes) != 4 or len(session.gives) != 3:
            raise InputError(f"{path}: returns {len(session.gives)} dimensions, not a class per pixel")
        takes = session.takes
        self.takes = tuple(side if isinstance(side, int) else None for side in (takes[0], *takes[2:]))
        self.path, self._session = path, session

    def outputs(self, images: Tensor) -> Outputs:
        """The one-hot classes (B, K, h, w) float32 for images (B, 3, H, W).

        Raises:
            InputError: for a batch size or an image size that the file does not take.
        """
        self._check(images)
        given = (len(images), *images.shape[-2:])
        if any(want not in (None, have) for want, have in zip(self.takes, given, strict=True)):
            raise InputError(f"{self.path}: takes images of {self.takes} (batch, height, width), not {given}")
        ids = self._session(images.detach().float().cpu().contiguous()).long()
        return Outputs(F.one_hot(ids, len(self.label_space)).movedim(-1, 1).float().to(images.device))
