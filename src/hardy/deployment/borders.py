"""Classes at full size from logits at a coarser stride, interpolated only where neighbouring cells disagree.

Between the centres of four cells, bilinear interpolation is a weighted mean of their logits with non-negative weights.
If one class is the best at all four corners, it is the best at every pixel between them. So pixels are interpolated and
compared only in squares whose corners differ: at the borders between classes. The classes are the same as after
resizing the complete map; the time is a fraction of that and grows with the length of the borders in the image.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["nodes"]


def nodes(onnx: Any, logits: str, shape: Sequence[int], size: Sequence[int]) -> tuple[list[Any], list[Any]]:
    """The ONNX nodes from the tensor ``logits`` to ``classes``, and their constants.

    Args:
        onnx: the package.
        logits: name of a float tensor.
        shape: its (B, K, h, w).
        size: (H, W) of the classes (B, H, W) uint8; multiples of (h, w).
    """
    (batch, classes, *cells), strides = shape, [side // count for side, count in zip(size, shape[2:], strict=True)]
    squares = [count + 1 for count in cells]
    corners = _corners(batch, cells)
    begin = [(stride + 1) // 2 for stride in strides]
    constants = {
        "borders_around": [0, 0, 1, 1, 0, 0, 1, 1],
        "borders_flat": [classes, -1],
        "borders_line": [-1],
        "borders_column": [-1, 1],
        "borders_last": [1],
        "borders_corners": corners,
        "borders_weights": _weights(strides),
        "borders_pixels": [len(corners), strides[0] * strides[1]],
        "borders_squares": [batch, *squares, *strides],
        "borders_whole": [batch, *(count * stride for count, stride in zip(squares, strides, strict=True))],
        "borders_begin": begin,
        "borders_end": [first + side for first, side in zip(begin, size, strict=True)],
        "borders_sides": [1, 2],
    }
    steps = [
        onnx.helper.make_node(*call, name=f"borders_{place}", **how) for place, (call, how) in enumerate(_steps(logits))
    ]
    return steps, [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]


def _steps(logits: str) -> list[tuple[tuple[str, list[str], list[str]], dict[str, Any]]]:
    """The operation, inputs, outputs and attributes of each node; n of the N squares have different corners."""
    byte = {"to": 2}  # TensorProto.UINT8

    def step(
        kind: str, inputs: str, output: str, **how: Any
    ) -> tuple[tuple[str, list[str], list[str]], dict[str, Any]]:
        return (kind, [f"borders_{name}" for name in inputs.split()], [f"borders_{output}"]), how

    return [
        (("Pad", [logits, "borders_around"], ["borders_padded"]), {"mode": "edge"}),
        step("Transpose", "padded", "classes_first", perm=[1, 0, 2, 3]),
        step("Reshape", "classes_first flat", "map"),  # (K, cells of the padded map)
        step("ArgMax", "map", "best_wide", axis=0, keepdims=0),
        step("Cast", "best_wide", "best", **byte),
        step("Gather", "best corners", "at_corners", axis=0),  # (N, 4)
        step("ReduceMax", "at_corners last", "most", keepdims=1),
        step("ReduceMin", "at_corners last", "least", keepdims=1),
        step("Equal", "most least", "alike"),
        step("Not", "alike", "differ"),
        step("Reshape", "differ line", "differ_line"),
        step("NonZero", "differ_line", "where_row"),
        step("Reshape", "where_row line", "where"),  # (n,)
        step("Gather", "corners where", "their_corners", axis=0),
        step("Gather", "map their_corners", "their_logits", axis=1),  # (K, n, 4)
        step("MatMul", "their_logits weights", "their_pixels"),  # (K, n, pixels of a square)
        step("ArgMax", "their_pixels", "their_best_wide", axis=0, keepdims=0),
        step("Cast", "their_best_wide", "their_best", **byte),
        step("Expand", "most pixels", "plain"),  # (N, pixels of a square)
        step("Reshape", "where column", "rows"),
        step("ScatterND", "plain rows their_best", "drawn"),
        step("Reshape", "drawn squares", "drawn_squares"),
        step("Transpose", "drawn_squares", "laid_out", perm=[0, 1, 3, 2, 4]),
        step("Reshape", "laid_out whole", "image"),
        (("Slice", [f"borders_{name}" for name in ("image", "begin", "end", "sides")], ["classes"]), {}),
    ]


def _corners(batch: int, cells: Sequence[int]) -> np.ndarray:
    """(N, 4): the four corners of each square between cell centres, in image order, as indices into the flattened maps
    padded by one repeated row and column on each side."""
    height, width = cells
    maps = np.arange(batch * (height + 2) * (width + 2), dtype=np.int64).reshape(batch, height + 2, width + 2)
    found = [maps[:, y : height + 1 + y, x : width + 1 + x].reshape(-1) for y in (0, 1) for x in (0, 1)]
    return np.stack(found, axis=1)


def _weights(strides: Sequence[int]) -> np.ndarray:
    """(4, pixels of a square): the weight of each corner for each pixel. The first pixel of a square is half a pixel
    from a cell's centre if the stride is even, and on the centre if it is odd."""
    down, right = ((np.arange(stride) + (0 if stride % 2 else 0.5)) / stride for stride in strides)
    sides = [(1 - down, down), (1 - right, right)]
    return np.stack([np.outer(y, x).reshape(-1) for y in sides[0] for x in sides[1]]).astype(np.float32)
