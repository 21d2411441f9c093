"""Networks that Hardy has never seen: how many prune, run, train, export and load again, beside Torch-Pruning.

Torchvision's, timm's and segmentation_models' own networks, and four of `foreign_networks`, with random weights are
pruned to half of their channels by filter norm: by `hardy.prune` on the plain module, and by Torch-Pruning's
high-level `MagnitudePruner` as its examples use it (output layers ignored; the heads of every attention that has `qkv`
and `num_heads` told, and set afterwards). Five checks: a tenth at least of the parameters that it uses went; it runs
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
import segmentation_models_pytorch as smp
import timm
import torch
import torch_pruning as tp
from timm.layers import Attention
from torch import Tensor, nn
from torchvision import models

from foreign_networks import OWN
from hardy.engine.foreign import prune_module
from hardy.pruning.remove import replay
from hardy.recipe import Prune
from hardy.timing.hardware import fingerprint

CLASSES = 7
CHECKS = ("prunes", "runs", "trains", "exports", "reloads")
RECORD = Path(__file__).parent / "records" / "foreign.jsonl"
QUICK = ("torchvision/shufflenet_v2_x0_5", "torchvision/squeezenet1_1")

TIMM = {
    "resnet18": 64, "resnext50_32x4d": 64, "regnety_002": 64, "densenet121": 64, "efficientnet_b0": 64,
    "mobilenetv2_100": 64, "mobilenetv3_small_100": 64, "mobilenetv4_conv_small": 64, "ghostnet_100": 64,
    "repvit_m0_9": 64, "mobileone_s0": 64, "hrnet_w18_small": 64, "convnext_atto": 64, "convnextv2_atto": 64,
    "edgenext_xx_small": 64, "fastvit_t8": 64, "poolformer_s12": 64, "caformer_s18": 64, "pvt_v2_b0": 64,
    "vit_small_patch14_reg4_dinov2": 56, "deit_tiny_patch16_224": 64, "swin_tiny_patch4_window7_224": 64,
    "efficientformerv2_s0": 64, "resnetv2_50x1_bit": 64, "nf_resnet26": 64, "eca_nfnet_l0": 64,
    "res2net50_26w_4s": 64, "resnest14d": 64, "skresnet18": 64, "swinv2_tiny_window8_256": 64, "davit_tiny": 64,
    "coat_tiny": 64, "levit_128s": 224, "tiny_vit_5m_224": 64, "mobilevit_xxs": 64,
}  # fmt: skip
FIXED = ("vit", "deit", "swin", "efficientformerv2", "coat")
"""timm's families that are built for one size of image."""

TORCHVISION = {"shufflenet_v2_x0_5": 64, "vgg11_bn": 64, "squeezenet1_1": 64, "mnasnet0_5": 64, "swin_v2_t": 64}
SEGMENTATION = {"deeplabv3_mobilenet_v3_large": 64, "lraspp_mobilenet_v3_large": 64, "fcn_resnet50": 64}
SMP = {
    "Unet/resnet18": 64, "UnetPlusPlus/mobilenet_v2": 64, "MAnet/resnet18": 64, "FPN/resnet18": 64,
    "PSPNet/resnet18": 64, "PAN/resnet18": 128, "Linknet/resnet18": 64, "DeepLabV3/resnet18": 64,
    "DeepLabV3Plus/efficientnet-b0": 64, "UPerNet/resnet18": 64, "Segformer/mit_b0": 64, "Unet/mit_b0": 64,
}  # fmt: skip


TRANSFORMER = {"image_size": 64, "patch_size": 16, "num_layers": 4, "num_heads": 4, "hidden_dim": 128, "mlp_dim": 256}
"""A small one: torchvision's own sizes begin at 86 million parameters."""


def networks() -> dict[str, int]:
    """Every network of the matrix, with the side of its images."""
    rooms = {"timm": TIMM, "torchvision": TORCHVISION, "torchvision/segmentation": SEGMENTATION, "smp": SMP}
    rooms |= {"torchvision/transformer": {"VisionTransformer": 64}, "torch": dict.fromkeys(OWN, 64)}
    return {f"{room}/{name}": side for room, found in rooms.items() for name, side in found.items()}


def built(name: str, side: int) -> nn.Module:
    """The network with random weights, in evaluation mode."""
    torch.manual_seed(0)
    room, _, rest = name.partition("/")
    if room == "timm":
        sized = {"img_size": side} if rest.startswith(FIXED) else {}
        network = timm.create_model(rest, num_classes=CLASSES, **sized)
    elif room == "smp":
        decoder, encoder = rest.split("/")
        network = getattr(smp, decoder)(encoder, encoder_weights=None, classes=CLASSES)
    elif room == "torch":
        network = OWN[rest](CLASSES)
    elif rest.startswith("transformer/"):
        network = models.VisionTransformer(num_classes=CLASSES, **TRANSFORMER)
        nn.init.normal_(network.heads.head.weight, std=0.02)  # a fresh one gives zeros
    elif rest.startswith("segmentation/"):
        build = getattr(models.segmentation, rest.partition("/")[2])
        network = build(weights=None, weights_backbone=None, num_classes=CLASSES)
    else:
        network = getattr(models, rest)(weights=None, num_classes=CLASSES)
    return network.eval()


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
    carved = prune_module(network, example, choice)
    lost = Counter(carved.kinds[unit] for unit, (before, after) in carved.widths.items() if after < before)
    told = " ".join(f"{kind} {count}" for kind, count in sorted(lost.items()))
    plan = json.loads(json.dumps(carved.plan))

    def again(fresh: nn.Module) -> None:
        replay(fresh, plan)
        fresh.load_state_dict(carved.module.state_dict(), strict=True)

    return carved.module, again, f"{told}; {len(carved.blocked)} whole"


def by_torch_pruning(
    network: nn.Module, example: Tensor, name: str
) -> tuple[nn.Module, Callable[[nn.Module], None], str]:  # fmt: skip
    small = copy.deepcopy(network)
    layers = [m for m in small.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    ignored = [m for m in layers if CLASSES in (getattr(m, "out_features", 0), getattr(m, "out_channels", 0))]
    attention = [m for m in small.modules() if isinstance(vars(m).get("num_heads"), int) and "qkv" in m._modules]
    attention = [m for m in attention if isinstance(m.qkv, nn.Linear)]
    pruner = tp.pruner.MagnitudePruner(
        small, example, importance=tp.importance.MagnitudeImportance(p=2), pruning_ratio=0.5, ignored_layers=ignored,
        num_heads={m.qkv: m.num_heads for m in attention}, prune_num_heads=True, head_pruning_ratio=0.5,
        customized_pruners={}, in_channel_groups={}, out_channel_groups={},
    )  # fmt: skip
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
    print(f"figure foreign_networks {len(names)} goal >={len(QUICK) if options.quick else 25}")
    print(f"figure foreign_hardy_share {len(whole['hardy']) / len(names):.2f} goal >=0.95")
    print(f"figure foreign_hardy_more {len(whole['hardy']) - len(whole['torch-pruning'])} goal >=0")


if __name__ == "__main__":
    main()
