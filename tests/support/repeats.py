"""Networks without the blocks that repeat the block before them: every kind of layer, in a fraction of the depth."""

import re

from torch import nn

__all__ = ["without_repeats"]


def without_repeats(network: nn.Module) -> nn.Module:
    """Drop from each plain chain of ``network``, in place, the blocks that are built as the block before them.

    What a test says of the structure of a network then costs less and says the same: a block of the same layers with
    the same widths and strides keeps the shape of its input, so that a network runs without it. How often a residual
    branch is left out while training may differ.
    """
    for module in list(network.modules()):
        if type(module).forward is nn.Sequential.forward:
            blocks = list(module)
            for number in range(len(blocks) - 1, 0, -1):
                if list(blocks[number].parameters()) and _built(blocks[number]) == _built(blocks[number - 1]):
                    del module[number]
    return network


def _built(block: nn.Module) -> str:
    return re.sub(r"(StochasticDepth|DropPath)\(.*\)|drop_path\d?\): Identity\(\)", "", repr(block))
