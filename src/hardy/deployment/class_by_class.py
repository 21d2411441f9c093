"""The best class of every pixel, computed class by class: the same classes as ArgMax, in less time on a CPU.

onnxruntime's ArgMax over the class axis takes one value at a time, its elementwise operations take vectors. And the map
of K classes at the size of the image does not stay in the cache, that of one class does. So the last resizing is done
for each class alone, then the largest logit is taken over all classes, and the first class whose logit equals it:
``classes = min {k : x_k = max_j x_j}``, as `torch.argmax` does. ``benchmarks/epilogue.py`` times both.

It needs a graph of fixed size for one image that ends in resizing as a product; see `hardy.deployment.products`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["MOST_CLASSES", "Best", "best", "first_largest"]

MOST_CLASSES = 64
"""With more classes the graph keeps ArgMax: it would have six operations a class."""


class Best(NamedTuple):
    """What replaces the end of a graph.

    Attributes:
        nodes: from the coarse logits to the classes (1, h, w), uint8.
        constants: initializers that they read.
        replaced: names of the outputs that no node needs any more.
    """

    nodes: list[Any]
    constants: list[Any]
    replaced: frozenset[str]


def best(onnx: Any, graph: Any, logits: str, output: str) -> Best | None:
    """The nodes that compute ``output`` class by class; None where the graph does not end as this needs.

    Args:
        onnx: the package.
        graph: with the shapes of its values.
        logits: name of the tensor (1, K, h, w) at the end of the graph.
        output: name of the classes.
    """
    shapes = {value.name: _shape(value) for value in (*graph.value_info, *graph.output)}
    count = (shapes[logits] + [0, 0])[1]
    if not 1 < count <= MOST_CLASSES:
        return None
    held = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    coarse, chain = _chain(graph, shapes, held, logits, count)
    if not any(node.op_type == "MatMul" for node in chain):
        return None
    make, array = onnx.helper.make_node, onnx.numpy_helper.from_array
    nodes = [
        make(
            "Split", [coarse], [f"{coarse}_{k}" for k in range(count)], axis=1, num_outputs=count, name="classes_apart"
        )
    ]
    constants = [
        array(np.array([1, 1, *held[node.input[1]][2:]], np.int64), f"{node.input[1]}_of_one")
        for node in chain
        if node.op_type == "Reshape"
    ]
    inside = {coarse, *(node.output[0] for node in chain)}
    for k in range(count):
        for node in chain:
            one = onnx.NodeProto()
            one.CopyFrom(node)
            one.name = f"{node.name}_{k}"
            one.input[:] = [f"{name}_{k}" if name in inside else name for name in node.input]
            if node.op_type == "Reshape":
                one.input[1] = f"{node.input[1]}_of_one"
            one.output[:] = [f"{node.output[0]}_{k}"]
            nodes.append(one)
    ends, values = first_largest(onnx, [f"{logits}_{k}" for k in range(count)], output)
    return Best(nodes + ends, constants + values, frozenset(node.output[0] for node in chain))


def first_largest(onnx: Any, found: Sequence[str], output: str, own: str = "") -> tuple[list[Any], list[Any]]:
    """The nodes from the logits of each class (1, 1, h, w) to the first class with the largest, and their constants.

    Args:
        onnx: the package.
        found: names of the logits.
        output: name of the classes (1, h, w), uint8.
        own: what the names of all nodes and constants begin with.
    """
    make, array = onnx.helper.make_node, onnx.numpy_helper.from_array
    constants = [array(np.full((1, 1, 1, 1), k, np.uint8), f"{own}class_{k}") for k in range(len(found))]
    nodes = [make("Max", found, [f"{own}largest"], name=f"{own}largest")]
    last = constants[-1].name
    for k in reversed(range(len(found) - 1)):
        nodes.append(make("Equal", [found[k], f"{own}largest"], [f"{own}is_{k}"], name=f"{own}is_{k}"))
        chosen = [f"{own}is_{k}", constants[k].name, last]
        nodes.append(make("Where", chosen, [f"{own}best_{k}"], name=f"{own}best_{k}"))
        last = f"{own}best_{k}"
    constants.append(array(np.array([1], np.int64), f"{own}class_axis"))
    return [*nodes, make("Squeeze", [last, constants[-1].name], [output], name=f"{own}to_map")], constants


def _chain(
    graph: Any, shapes: dict[str, list[int]], held: dict[str, np.ndarray], logits: str, count: int
) -> tuple[str, list[Any]]:
    """The tensor from which the operations at the end treat each class alone, and these operations in order."""
    makers = {output: node for node in graph.node for output in node.output}
    readers: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    name, chain = logits, []
    while (node := makers.get(name)) is not None:
        data = [each for each in node.input if len(shape := shapes.get(each, [])) >= 4 and shape[:2] == [1, count]]
        if len(data) != 1 or readers[data[0]] > 1 or not _alone(node, shapes, held, len(shapes[data[0]])):
            break
        name = data[0]
        chain.append(node)
    return name, chain[::-1]


def _alone(node: Any, shapes: dict[str, list[int]], held: dict[str, np.ndarray], rank: int) -> bool:
    """Whether ``node`` treats every class alone, and its other input does not depend on the class.

    In a product the axes of both inputs are aligned at the end: a matrix with ``rank - 2`` axes does not reach the
    class axis.
    """
    if node.op_type == "MatMul":
        ranks = [held[name].ndim if name in held else len(shapes.get(name, [0] * rank)) for name in node.input]
        return min(ranks) <= rank - 2
    if node.op_type == "Gather":
        (axis,) = [attribute.i for attribute in node.attribute if attribute.name == "axis"] or [0]
        return bool(axis % rank > 1)
    return node.op_type == "Reshape" and node.input[1] in held and len(held[node.input[1]]) > 2


def _shape(value: Any) -> list[int]:
    """The sides of ``value``; 0 where one is open."""
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
