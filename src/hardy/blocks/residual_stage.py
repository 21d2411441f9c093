"""A stage of basic residual blocks with a ReLU between them and none after the last.

Source: He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016, table 1.
"""

from collections import OrderedDict

from torch import nn

from hardy.blocks.basic_block import BasicBlock

__all__ = ["ResidualStage"]


class ResidualStage(nn.Sequential):
    """``(B, C_in, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))``, the last sum without the ReLU after it.

    Parameters are named as in ImageNet checkpoints.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        count: number of blocks, at least one.
        stride: of the first block.
    """

    def __init__(self, in_channels: int, out_channels: int, count: int, *, stride: int = 1) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["0"] = BasicBlock(in_channels, out_channels, stride=stride)
        for index in range(1, count):
            layers[f"relu{index}"] = nn.ReLU()
            layers[str(index)] = BasicBlock(out_channels, out_channels)
        super().__init__(layers)
