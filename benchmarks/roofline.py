"""Where the time of a pruned Fast-SCNN goes, operation by operation, beside the least time the processor allows.

A Fast-SCNN with classes at full size, dense and with half of its work removed (by l2, the same share of each layer,
widths multiples of 8; untrained, time does not depend on the weights), as onnxruntime runs it on one thread: each
operation of the optimised graph is timed by onnxruntime's own profile, the two networks in turns, the least of all
runs taken. Its least time, the roofline (Williams, Waterman and Patterson, CACM 2009), is the longer of two: its
multiply-accumulates at the fastest rate of a matrix product here, and the bytes of its inputs, weights and outputs at
the fastest rate of an elementwise operation here. Convolutions follow the widths; ``fixed`` operations (normalising
the image, resizing the logits and the argmax) are the same in both networks.

    python benchmarks/roofline.py [--quick]
"""

import argparse
import json
import logging
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hardy
from _cut import cut
from hardy.deployment import graph
from hardy.networks.base import Network
from hardy.ops import cost
from hardy.pruning.cost_goal import CostGoal
from hardy.pruning.select import Limits
from hardy.pruning.shapes import Layers
from hardy.pruning.units import find_units
from hardy.timing.hardware import fingerprint

LIMITS = Limits("layer", 8, 8)
GOAL = 0.8
ROWS = 14


@dataclass(frozen=True)
class Operation:
    """One operation of a graph: what it multiplies and moves, and its least time over all runs.

    Attributes:
        name, kind: as onnxruntime gives them.
        shape: of its first output.
        macs: multiply-accumulates, with the channels that onnxruntime pads.
        moved: bytes of inputs, weights and outputs.
        ms: the least of its times.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    macs: int
    moved: int
    ms: float


def halved(dense: Network, size: Sequence[int]) -> Network:
    """A copy of ``dense`` with half of its multiply-accumulates."""
    units = find_units(dense)
    goal = CostGoal(units, Layers(dense, units, size).gmacs, cost.gmacs(dense, size) / 2, LIMITS)
    return cut(dense, units, goal, LIMITS)[0]


class Profiled:
    """A graph in onnxruntime on one thread, every operation timed."""

    def __init__(self, file: Path | bytes, folder: Path) -> None:
        runtime = graph.package("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        given = str(file) if isinstance(file, Path) else file
        self.session = runtime.InferenceSession(given, options, providers=["CPUExecutionProvider"])

    def run(self, **inputs: np.ndarray) -> None:
        """One timed run."""
        self.session.run(None, inputs)

    def operations(self) -> list[Operation]:
        """What was run, in the graph's order; ends the profile."""
        events = json.loads(Path(self.session.end_profiling()).read_text(encoding="utf-8"))
        spent: dict[str, list[float]] = defaultdict(list)
        what: dict[str, Mapping[str, Any]] = {}
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                name = event["name"].removesuffix("_kernel_time")
                spent[name].append(event["dur"] / 1e3)
                what[name] = event["args"]
        return [_operation(name, what[name], min(times)) for name, times in spent.items()]


def _operation(name: str, what: Mapping[str, Any], ms: float) -> Operation:
    """One operation from the arguments of its event in the profile."""
    kind = str(what["op_name"])
    inputs, outputs = (
        [tuple(next(iter(each.values()))) for each in what[f"{way}_type_shape"]] for way in ("input", "output")
    )
    per_value = {"Conv": lambda: prod(inputs[1][1:]), "MatMul": lambda: inputs[0][-1]}.get(kind, lambda: 0)()
    moved = sum(int(what[f"{part}_size"]) for part in ("activation", "parameter", "output"))
    return Operation(name, kind, outputs[0], prod(outputs[0]) * per_value, moved, ms)


def peaks(folder: Path, runs: int) -> tuple[float, float]:
    """Multiply-accumulates a ms of a matrix product, bytes a ms of a sum; the best of several sizes."""
    onnx = graph.package("onnx")
    make, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info

    def fastest(kind: str, shape: Sequence[int], of: str) -> float:
        names = ["a", "b"]
        body = onnx.helper.make_graph(
            [make(kind, names, ["c"], name="only")],
            "one",
            [value(name, onnx.TensorProto.FLOAT, shape) for name in names],
            [value("c", onnx.TensorProto.FLOAT, shape)],
        )
        model = onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", graph.OPSET)], ir_version=10)
        profiled = Profiled(model.SerializeToString(), folder)
        given = {name: np.ones(shape, np.float32) for name in names}
        for _ in range(runs):
            profiled.run(**given)
        (only,) = profiled.operations()
        return float(getattr(only, of) / only.ms)

    macs = max(fastest("MatMul", (side, side), "macs") for side in (256, 384, 512))
    moved = max(fastest("Add", (count,), "moved") for count in (2**15, 2**17, 2**19))
    return macs, moved


def profiles(
    networks: Mapping[str, Network], size: Sequence[int], folder: Path, runs: int
) -> dict[str, list[Operation]]:
    """The operations of each network with classes at full size, run in turns."""
    made = {}
    for name, network in networks.items():
        graph.write(network, folder / f"{name}.onnx", size=size)
        graph.with_classes(folder / f"{name}.onnx", folder / f"{name}_classes.onnx")
        made[name] = Profiled(folder / f"{name}_classes.onnx", folder)
    image = np.random.default_rng(0).random((1, 3, *size), np.float32)
    for _ in range(runs):
        for each in made.values():
            each.run(images=image)
    return {name: each.operations() for name, each in made.items()}


def shown(
    dense: Sequence[Operation], small: Sequence[Operation], rates: tuple[float, float], work: float
) -> dict[str, float]:
    """Print the table of the longest operations and the sums; the figures by name."""
    before = {one.name: one for one in dense}
    least = {one.name: max(one.macs / rates[0], one.moved / rates[1]) for one in small}
    pairs = [(before.get(one.name, one), one) for one in small]
    print(
        "operation                         output              dense ms     ms   work   time  least ms  attained  bound"
    )
    for old, one in sorted(pairs, key=lambda pair: -pair[1].ms)[:ROWS]:
        left = one.macs / old.macs if old.macs else one.moved / old.moved
        bound = "multiply" if one.macs / rates[0] > one.moved / rates[1] else "memory"
        print(
            f"{f'{one.kind} {one.name}':<34.33}{'x'.join(map(str, one.shape)):<20}{old.ms:>8.3f}{one.ms:>7.3f}"
            f"{left:>7.2f}{one.ms / old.ms:>7.2f}{least[one.name]:>10.3f}{least[one.name] / one.ms:>10.2f}  {bound}"
        )
    totals = [sum(one.ms for one in each) for each in (dense, small)]
    fixed = [one for old, one in pairs if (old.macs, old.moved) == (one.macs, one.moved)]
    kept, best = sum(one.ms for one in fixed), sum(least[one.name] for one in fixed)
    figures = {
        "ratio": totals[0] / totals[1] / work,
        "fixed": (totals[0] - kept + best) / (totals[1] - kept + best) / work,
        "shrinking": (totals[0] - kept) / (totals[1] - kept) / work,
    }
    print(
        f"\nall operations: {totals[0]:.2f} ms dense, {totals[1]:.2f} ms small, work by {work:.2f}: "
        f"ratio {figures['ratio']:.2f}\n"
        f"fixed operations, the same in both: {kept:.2f} ms, {best:.2f} ms at their roofline\n"
        f"ratio with fixed operations at their roofline {figures['fixed']:.2f}, without them {figures['shrinking']:.2f}"
    )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="images of 128x256 and fewer runs")
    quick = parser.parse_args().quick
    sizes, runs = ([(128, 256)], 5) if quick else ([(360, 480), (512, 1024)], 80)
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    dense = hardy.create("fast_scnn", classes="camvid11").eval()
    figures = {}
    for size in sizes:
        small = halved(dense, size)
        work = cost.gmacs(dense, size) / cost.gmacs(small, size)
        with tempfile.TemporaryDirectory() as place:
            rates = peaks(Path(place), runs)
            found = profiles({"dense": dense, "small": small}, size, Path(place), runs)
        print(
            f"one image of {size[0]}x{size[1]}; fastest here: {rates[0] / 1e6:.1f} GMACs/s, {rates[1] / 1e6:.1f} GB/s"
        )
        figures[size] = shown(found["dense"], found["small"], rates, work)
        print(flush=True)
    print(f"{fingerprint()}\n")
    first = figures[sizes[0]]
    print(f"figure roofline_ratio {first['ratio']:.2f} goal >={GOAL}")
    print(f"figure roofline_ratio_with_fixed_at_roofline {first['fixed']:.2f} goal >={GOAL}")


if __name__ == "__main__":
    main()
