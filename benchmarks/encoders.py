"""Every family of encoders under every decoder: what runs, what it costs; and backbones beside their published sizes.

First each backbone of the table of published sizes as an image classifier with 1000 classes: parameters, and GMACs at
224x224. Then one encoder of each family with each decoder: whether one step forward and backward at 64x96 and a forward
pass at 97x131 work, with millions of parameters and GMACs at 512x1024 for 19 classes. Last, whether each encoder and
each decoder goes through `torch.export` at one size and the graph says the same as the network.

    python benchmarks/encoders.py [--quick]
"""

import argparse
import copy
import logging
import warnings

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import hardy
from hardy.networks.base import Network
from hardy.ops import cost
from hardy.registry import DECODERS
from hardy.timing.hardware import fingerprint

SIZE = (512, 1024)
PUBLISHED = """
resnet18 11689512 1.814, resnet34 21797672 3.664, resnet50 25557032 4.089, shufflenet_v2_x0_5 1366792 0.040,
shufflenet_v2_x1_0 2278604 0.145, shufflenet_v2_x1_5 3503624 0.296, shufflenet_v2_x2_0 7393996 0.583,
shufflenet_v1_x1_0_g1 1531936 0.143, shufflenet_v1_x1_0_g2 1733848 0.141, shufflenet_v1_x1_0_g3 1865728 0.137,
shufflenet_v1_x1_0_g4 1968344 0.134, shufflenet_v1_x1_0_g8 2434768 0.138, shufflenet_v1_x0_5_g3 718324 0.038,
shufflenet_v1_x1_5_g3 3442168 0.292, shufflenet_v1_x2_0_g3 5450776 0.524, mobilenetv1_100 4231976 0.569,
mobilenetv2_100 3504872 0.301, mobilenetv3_small_100 2542856 0.057, mobilenetv3_large_100 5483032 0.217,
efficientnet_b0 5288548 0.386, efficientnet_lite0 4652008 0.385, poolformer_s12 11915176 1.812,
poolformer_s24 21388968 3.392, poolformer_s36 30862760 4.972, poolformer_m36 56172520 8.759,
poolformer_m48 73473448 11.533, efficientformer_l1 12289928 1.291, efficientformer_l3 31406000 3.907,
efficientformer_l7 82229328 10.119, efficientformerv2_s0 3600256 0.396, efficientformerv2_s1 6185560 0.652,
efficientformerv2_s2 12710112 1.247, efficientformerv2_l 26322288 2.553, repvit_m0_9 5489328 0.817,
repvit_m1_0 7302796 1.108, repvit_m1_1 8802912 1.339
"""
DISTILLED = ("efficientformer", "repvit")
"""Published with a second head, which learns from a teacher."""
ENCODERS = (
    "resnet18",
    "shufflenet_v1_x1_0_g3",
    "shufflenet_v2_x1_0",
    "mobilenetv1_100",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "efficientnet_b0",
    "efficientnet_lite0",
    "poolformer_s12",
    "efficientformer_l1",
    "efficientformerv2_s0",
    "mit_b0",
    "stdc1",
    "repvit_m0_9",
)
SEPARATE = [name for name in DECODERS if not DECODERS.get(name).joins]
"""The decoders that take the maps of any encoder: not `eomt`, whose queries join the encoder's own blocks."""
BRIEF = ("shufflenet_v1_x1_0_g3", "shufflenet_v2_x0_5", "efficientformerv2_s0")


def sizes(name: str) -> tuple[int, float]:
    """Parameters and GMACs at 224x224 of the classifier with 1000 classes, and with a second head where it has one."""
    with torch.device("meta"):
        network = hardy.create("classifier", classes="pacs7", encoder=name)
    width, heads = network.head.in_features, 2 if name.startswith(DISTILLED) else 1
    more = heads * 1000 - network.head.out_features
    norm = 2 * 2 * width if name.startswith("repvit") else 0  # a batch norm before each of its heads
    return (
        cost.parameters(network) + more * width + heads * 1000 - network.head.out_features + norm,
        cost.gmacs(network, (224, 224)) + more * width / 1e9,
    )


def macs(decoder: nn.Module, maps: list[Tensor]) -> float:
    """GMACs of a decoder for maps without data."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        decoder.eval()(maps)
    return counter.get_total_flops() / 2e9


def costs(name: str) -> dict[str, tuple[float, float]]:
    """For each decoder millions of parameters and GMACs of the whole network."""
    with torch.device("meta"), torch.no_grad():
        network = hardy.create("encoder_decoder", classes="cityscapes19", encoder=name, decoder="linear").eval()
        backbone = network.backbone
        own, maps = cost.gmacs(backbone, SIZE), backbone(torch.empty(1, 3, *SIZE))
        decoders = {
            each: DECODERS.build(each, {"channels": backbone.channels, "strides": backbone.strides, "class_count": 19})
            for each in SEPARATE
        }
    weights = cost.parameters(backbone)
    return {
        each: ((weights + cost.parameters(decoder)) / 1e6, own + macs(decoder, maps))
        for each, decoder in decoders.items()
    }


def with_decoder(network: Network, decoder: str) -> Network:
    """The network with another decoder, in place."""
    network.decoder = DECODERS.build(
        decoder, {"channels": network.backbone.channels, "strides": network.backbone.strides, "class_count": 19}
    )
    return network.train()


def runs(network: Network) -> str:
    """Nothing, or what went wrong in a step forward and backward and in a pass at another size."""
    try:
        network.zero_grad()
        network(torch.rand(2, 3, 64, 96)).square().mean().backward()
        dead = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        with torch.no_grad():
            right = network.eval()(torch.rand(1, 3, 97, 131)).shape == (1, 19, 97, 131)
        return f"no gradient for {dead[0]}" if dead else "" if right else "another shape"
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"


def exports(network: Network) -> str:
    """Nothing, or what is wrong with the exported graph."""
    images = torch.rand(1, 3, 64, 96)
    try:
        with torch.no_grad():
            expected = network.eval()(images)
            found = torch.export.export(copy.deepcopy(network), (images,)).module()(images)
        apart = float((found - expected).abs().max())
        return "" if apart <= 1e-5 * max(1.0, float(expected.abs().max())) else f"{apart:.1e} apart"
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"


def published(brief: bool) -> tuple[int, int]:
    """Print the table of published sizes; how many rows it has, and how many of them agree."""
    rows = [row.split() for row in PUBLISHED.split(",")]
    rows = [row for row in rows if not brief or row[0] in BRIEF]
    print(f"{'classifier, 1000 classes':26}{'parameters':>12}{'published':>12}{'GMACs @224':>12}{'published':>11}")
    same = 0
    for name, count, macs_reported in rows:
        parameters, gmacs = sizes(name)
        same += parameters == int(count) and abs(gmacs - float(macs_reported)) <= max(1e-3 * float(macs_reported), 6e-4)
        print(f"{name:26}{parameters:>12}{count:>12}{gmacs:>12.4f}{macs_reported:>11}")
    return len(rows), same


def matrix(names: tuple[str, ...]) -> dict[str, str]:
    """Print the matrix; what went wrong, by encoder and decoder."""
    print(f"\n{'M parameters / GMACs':24}" + "".join(f"{decoder:>14}" for decoder in SEPARATE))
    wrong: dict[str, str] = {}
    for name in names:
        cost, cells = costs(name), []
        network = hardy.create("encoder_decoder", classes="cityscapes19", encoder=name, decoder="linear")
        for decoder in SEPARATE:
            reason = runs(with_decoder(network, decoder))
            wrong |= {f"{name} + {decoder}": reason} if reason else {}
            millions, gmacs = cost[decoder]
            cells.append("fails" if reason else f"{millions:.1f} / {gmacs:.1f}")
        print(f"{name:24}" + "".join(f"{cell:>14}" for cell in cells), flush=True)
    return wrong


def exported(names: tuple[str, ...]) -> dict[str, str]:
    """What went wrong in exporting each encoder with a linear decoder and each decoder on a ResNet-18."""
    wrong: dict[str, str] = {}
    for name in names:
        network = hardy.create("encoder_decoder", classes="cityscapes19", encoder=name, decoder="linear")
        wrong |= {f"{name} + linear": exports(network)}
    network = hardy.create("encoder_decoder", classes="cityscapes19", encoder="resnet18", decoder="linear")
    for decoder in SEPARATE:
        wrong |= {f"resnet18 + {decoder}": exports(with_decoder(network, decoder))}
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three encoders")
    brief = parser.parse_args().quick
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    names = BRIEF if brief else ENCODERS
    rows, same = published(brief)
    wrong = matrix(names)
    graphs = exported(names)
    torn = {pair: reason for pair, reason in graphs.items() if reason}
    pairs = len(names) * len(SEPARATE)
    print(f"\n{pairs - len(wrong)} of {pairs} pairs run; {len(graphs) - len(torn)} of {len(graphs)} graphs agree")
    for pair, reason in {**wrong, **torn}.items():
        print(f"  {pair}: {reason}")
    print(f"\n{fingerprint()}\n")
    print(f"figure encoders_of_published_size {same / rows:.2f} goal >=1")
    print(f"figure encoders_pairs_that_run {1 - len(wrong) / pairs:.2f} goal >=1")
    print(f"figure encoders_graphs_that_agree {1 - len(torn) / len(graphs):.2f} goal >=1")


if __name__ == "__main__":
    main()
