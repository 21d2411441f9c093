"""Batch norm after a global pooling, where a batch of one image has a single value per channel.

A single value has no variance: with batch statistics every output would be the bias, and PyTorch raises an error. Such
a batch is normalised by the running statistics, in training too, and does not change them. A small image can have a
single value anywhere in an encoder, so `hardy.create` converts all plain batch norms of a network
(`spare_single_values`).

Source: Ioffe and Szegedy, "Batch normalization", ICML 2015; the exception is Hardy's.
"""

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PooledNorm", "spare_single_values"]


class PooledNorm(nn.BatchNorm2d):
    """``(B, C, H, W) -> (B, C, H, W)``; see the module."""

    only_normalises = True  # see hardy.ops.batch_statistics.install

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x``, by the running statistics if it has one value per channel."""
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def spare_single_values(network: nn.Module) -> None:
    """Make every plain 2D batch norm of ``network`` a `PooledNorm`, in place; parameters and names do not change."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = PooledNorm  # it adds no state, and references to the module stay valid
