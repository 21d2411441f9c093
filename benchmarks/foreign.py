"""Networks that Hardy has never seen: how many prune, run, train, export and load again, beside Torch-Pruning.

Torchvision's, timm's and segmentation_models' own networks, and four of `foreign_networks`, with random weights are
pruned to half of their channels by filter norm: by `hardy.prune` on the plain module, and by Torch-Pruning's
high-level `MagnitudePruner` as its examples use it (output layers ignored; the heads of every attention that has `qkv`
and `num_heads` named, and set afterwards). Five checks: a tenth at least of the parameters that it uses went; it runs
and gives outputs of the old shapes; a training step has finite gradients; onnxruntime gives the same outputs (to 1e-4
of the largest); and a fresh network cut by the plan (Torch-Pruning: by its `load_state_dict`; its other way is to
pickle the whole module) gives the same outputs.

Each network runs in a process of its own with a time limit. Results go to a record as they come, and what is there
is not run again.

    python benchmarks/foreign.py [--quick] [--record FILE] [--limit SECONDS] [--only NAME ...]
"""

import argparse
import copy
import io
import json
import logging
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import torch
import torch_pruning as tp
from timm.layers import Attention
from torch import Tensor, nn

from foreign_networks import CLASSES, built, networks
from hardy.engine.prune import prune_module
from hardy.pruning.remove import replay
from hardy.recipe import Prune
from hardy.timing.hardware import fingerprint

CHECKS = ("prunes", "runs", "trains", "exports", "reloads")
RECORD = Path(__file__).parent / "records" / "foreign.jsonl"
QUICK = ("torchvision/shufflenet_v2_x0_5", "torchvision/squeezenet1_1")


def first(result: Any) -> Tensor:
    """The first tensor that a network returns."""
    while not isinstance(result, Tensor):
        result = next(iter(result.values())) if isinstance(result, dict) else result[0]
    return result


def alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).abs().max() <= 1e-4 * max(float(one.abs().max()), 1e-12))


# the two tools: a smaller network, a function that cuts a fresh one to the same, and what was pruned ------------------


def by_hardy(network: nn.Module, example: Tensor, name: str) -> tuple[nn.Module, Callable[[nn.Module], None], str]:
    choice = Prune.model_validate({"criterion": {"name": "l2"}, "schedule": {"name": "one_shot"}, "round_to": 1})
    small, surgery = prune_module(network, example, choice)
    lost = Counter(surgery.kinds[unit] for unit, (before, after) in surgery.pruned.widths.items() if after < before)
    removed = " ".join(f"{kind} {count}" for kind, count in sorted(lost.items()))
    plan = json.loads(json.dumps(small.hardy_plan))

    def again(fresh: nn.Module) -> None:
        replay(fresh, plan)
        fresh.load_state_dict(small.state_dict(), strict=True)

    return small, again, f"{removed}; {len(surgery.blocked)} whole"


def by_torch_pruning(
    network: nn.Module, example: Tensor, name: str
) -> tuple[nn.Module, Callable[[nn.Module], None], str]:
    small = copy.deepcopy(network)
    layers = [m for m in small.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    ignored = [m for m in layers if CLASSES in (getattr(m, "out_features", 0), getattr(m, "out_channels", 0))]
    attention = [m for m in small.modules() if isinstance(vars(m).get("num_heads"), int) and "qkv" in m._modules]
    attention = [m for m in attention if isinstance(m.qkv, nn.Linear)]
    pruner = tp.pruner.MagnitudePruner(
        small,
        example,
        importance=tp.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=ignored,
        num_heads={m.qkv: m.num_heads for m in attention},
        prune_num_heads=True,
        head_pruning_ratio=0.5,
        customized_pruners={},
        in_channel_groups={},
        out_channel_groups={},
    )
    pruner.step()
    for module in attention:
        module.num_heads = pruner.num_heads[module.qkv]
        if isinstance(module, Attention):
            module.head_dim = module.qkv.out_features // (3 * module.num_heads)
            module.attn_dim = module.qkv.out_features // 3
    kept = tp.state_dict(small)
    return small, lambda fresh: tp.load_state_dict(fresh, kept), ""


TOOLS = {"hardy": by_hardy, "torch-pruning": by_torch_pruning}


# one network --------------------------------------------------------------------------------------------------------


def trains(small: nn.Module, example: Tensor) -> bool:
    """True when a step of gradient descent can be taken: there are gradients and all are finite."""
    small = copy.deepcopy(small).train()
    first(small(example)).square().mean().backward()
    gradients = [p.grad for p in small.parameters() if p.grad is not None]
    torch.optim.SGD(small.parameters(), lr=1e-3).step()
    return bool(gradients) and all(bool(torch.isfinite(g).all()) for g in gradients)


def used(network: nn.Module, example: Tensor) -> int:
    """How many parameters the first output depends on: some decoders leave the end of their encoder unused."""
    trial = copy.deepcopy(network).eval().requires_grad_(True)
    first(trial(example)).sum().backward()
    return sum(p.numel() for p in trial.parameters() if p.grad is not None)


def exports(small: nn.Module, example: Tensor, expected: Tensor) -> bool:
    """True when onnxruntime computes what the network does."""
    buffer = io.BytesIO()
    torch.onnx.export(small, (example,), dynamo=True, verbose=False).save(buffer)
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    (found, *_) = session.run(None, {session.get_inputs()[0].name: example.numpy()})
    return alike(expected, torch.from_numpy(found))


def measured(name: str, tool: str) -> dict[str, Any]:
    """One row: what of `CHECKS` holds, the share of parameters left, and the first thing that went wrong."""
    side = networks()[name]
    network, example = built(name, side), torch.rand(2, 3, side, side)
    row: dict[str, Any] = {"network": name, "tool": tool, **dict.fromkeys(CHECKS, False), "left": None, "error": ""}
    start = time.perf_counter()
    small: nn.Module = network
    expected = torch.empty(0)

    def prune() -> bool:
        nonlocal small, again
        small, again, row["note"] = TOOLS[tool](network, example, name)
        row["seconds"] = round(time.perf_counter() - start, 1)
        row["left"] = used(small, example) / used(network, example)
        return row["left"] < 0.9

    def run() -> bool:
        nonlocal expected
        with torch.no_grad():
            expected = first(small.eval()(example))
        return expected.shape == first(network(example)).shape and bool(torch.isfinite(expected).all())

    def reload() -> bool:
        fresh = built(name, side)
        again(fresh)
        with torch.no_grad():
            return torch.equal(first(fresh.eval()(example)), expected)

    again: Callable[[nn.Module], None] = lambda fresh: None  # noqa: E731
    steps = (prune, run, lambda: trains(small, example), lambda: exports(small.eval(), example, expected), reload)
    for check, step in zip(CHECKS, steps, strict=True):
        try:
            row[check] = bool(step())
        except Exception as error:
            row["error"] = row["error"] or f"{check}: {type(error).__name__}: {' '.join(str(error).split())[:120]}"
        if check in ("prunes", "runs") and not row[check]:
            break
    return row


def apart(name: str, tool: str, limit: float) -> dict[str, Any]:
    """`measured` in a process of its own."""
    command = [sys.executable, __file__, "--one", name, tool]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=True)
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        error = f"no end within {limit:g} s"
    except (subprocess.CalledProcessError, IndexError, ValueError) as failure:
        error = f"the process died: {' '.join((getattr(failure, 'stderr', '') or str(failure)).split())[-120:]}"
    return {"network": name, "tool": tool, **dict.fromkeys(CHECKS, False), "left": None, "error": error}


# the matrix ---------------------------------------------------------------------------------------------------------


def shown(rows: dict[tuple[str, str], dict[str, Any]], names: list[str]) -> None:
    """One line a network: for both tools the share left and which of the five checks hold."""
    print(f"checks: {', '.join(CHECKS)}\n")
    print(
        f"{'network':48}{'hardy':>7}{'left':>6}  {'torch-pruning':>13}{'left':>6}  what Hardy pruned; what went wrong"
    )
    for name in names:
        cells, notes = [], []
        for tool in TOOLS:
            row = rows[name, tool]
            left = "-" if row["left"] is None else f"{row['left']:.2f}"
            cells.append((f"{''.join('x' if row[check] else '.' for check in CHECKS)}", left))
            notes += [note for note in (row.get("note", ""), row["error"] and f"[{tool}] {row['error']}") if note]
        (ours, our_left), (theirs, their_left) = cells
        print(f"{name:48}{ours:>7}{our_left:>6}  {theirs:>13}{their_left:>6}  {'; '.join(notes)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two small networks: under 50 seconds")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--limit", type=float, default=180, help="seconds for one network and tool")
    parser.add_argument("--only", nargs="+", default=None)
    parser.add_argument("--tool", choices=tuple(TOOLS), default=None, help="run this one only")
    parser.add_argument("--one", nargs=2, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.one:
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        print(json.dumps(measured(*options.one)))
        return
    names = list(QUICK if options.quick else options.only or networks())
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    if options.record.exists() and not options.quick:
        for line in options.record.read_text().splitlines():
            row = json.loads(line)
            rows[row["network"], row["tool"]] = row
    for name in names:
        for tool in [options.tool] if options.tool else TOOLS:
            if (name, tool) not in rows:
                row = rows[name, tool] = apart(name, tool, options.limit)
                if not options.quick:
                    with options.record.open("a") as file:
                        file.write(json.dumps(row) + "\n")
    if options.tool:
        return
    shown(rows, names)
    whole = {tool: [name for name in names if all(rows[name, tool][check] for check in CHECKS)] for tool in TOOLS}
    print()
    for tool in TOOLS:
        counts = ", ".join(f"{check} {sum(rows[name, tool][check] for name in names)}" for check in CHECKS)
        print(f"{tool}: {counts}; all five {len(whole[tool])} of {len(names)}")
    print()
    print(f"{fingerprint()}\n")
    print(f"figure foreign_networks {len(names)} goal >={len(QUICK) if options.quick else 60}")
    print(f"figure foreign_hardy_share {len(whole['hardy']) / len(names):.2f} goal >=0.95")
    print(f"figure foreign_hardy_more {len(whole['hardy']) - len(whole['torch-pruning'])} goal >=0")


if __name__ == "__main__":
    main()
