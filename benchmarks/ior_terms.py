"""Why IoR ranks as Taylor does: what the variance of the domain risks adds to the score, and how much of it is noise.

On the batches of a recipe, with a trained network, for every channel: m, the mean over batches of the squared effect on
the mean risk (Taylor's score), and v, the same of the effect on the variance of the risks, so that IoR's score is
``m + alpha v``. Printed are the median over channels of ``v / (m + v)``; for several alpha the rank correlation of IoR
with Taylor, and the share of the lowest 47 % of the channels that both would remove; and of m and v the share that is
signal: the square of the mean over batches, as a share of the mean of squares (1 / batches where there is only noise).

    python benchmarks/ior_terms.py [--quick]

Networks: Fast-SCNN on the drawn simulator and day (``recipes/streets_dense.yaml``, two domains), trained for 300 steps,
and MobileNetV2 x0.35 on three domains of PACS (``recipes/pacs_pretrain.yaml``, 150 steps) where the pictures are there.
"""

import argparse
import logging
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

import hardy
from hardy import recipe as recipes
from hardy.commands import train
from hardy.data.sources import data_root
from hardy.engine import protocol
from hardy.engine.protocol import Settings
from hardy.networks.base import Network
from hardy.pruning.units import find_units
from hardy.registry import CRITERIA, LOSSES
from hardy.timing.hardware import fingerprint
from hardy.types import Batch

ROOT = Path(__file__).parents[1]
SETTINGS = {
    "Fast-SCNN, streets": ("streets_dense", ["optim.steps=300", "data.unseen=[]", "evaluate.every=0"]),
    "MobileNetV2, PACS": (
        "pacs_pretrain",
        [
            "network.freeze_norm=false",
            "optim.lr=0.005",
            "optim.encoder_rate=0.2",
            "optim.schedule=cosine",
            "optim.steps=150",
            "optim.batch=33",
            "data.unseen=[]",
            "evaluate.every=0",
        ],
    ),
}
ALPHAS = (1, 30, 1000)
REMOVED = 0.47


def trained(name: str, quick: bool) -> tuple[Network, list[Batch]]:
    """The network and batches of its sources."""
    file, overrides = SETTINGS[name]
    with TemporaryDirectory() as folder:
        more = [f"run.folder={folder}/run", *(["optim.steps=20"] if quick else [])]
        recipe = recipes.read(ROOT / "recipes" / f"{file}.yaml", [*overrides, *more])
        network = hardy.load(train.run(recipe, show=False))
        parts = protocol.split(recipe.data, recipe.run.seed)
        stream = protocol.training(parts.train, network.label_space, Settings.of(recipe), stage="scores")
        return network, list(islice(stream(0, 0, 1), 4 if quick else 30))


def scores(network: Network, batches: list[Batch], name: str, **options: object) -> Tensor:
    """The scores (G,) of one criterion over ``batches``; the network does not learn."""
    network.train()
    criterion = CRITERIA.build(
        name,
        {
            "network": network,
            "units": find_units(network),
            "pixel_loss": LOSSES.build("cross_entropy", {"class_count": 0}),
        },
        **options,
    )
    for batch in batches:
        network.zero_grad(set_to_none=True)
        torch.stack(list(criterion.observe(batch).values())).sum().backward()
        criterion.collect()
    return torch.cat(list(criterion.scores().values()))


def ranks(values: Tensor) -> Tensor:
    return values.argsort().argsort().double()


def show(name: str, quick: bool) -> None:
    """Print one network's rows."""
    network, batches = trained(name, quick)
    state = {key: value.clone() for key, value in network.state_dict().items()}

    def of(criterion: str, square: str) -> Tensor:
        network.load_state_dict(state)
        return scores(network, batches, criterion, square=square)

    m, m_mean = of("taylor", "before"), of("taylor", "after")
    v, v_mean = of("ior", "before") - m, of("ior", "after") - m_mean
    seen = m > 0
    share = float((v / (m + v))[seen].median())
    print(f"{name}: {len(m)} channels, {len(batches)} batches of {len(batches[0])}")
    print(
        f"  v is {share:.1%} of m + v; signal in m {float((m_mean / m)[seen].median()):.2f}, "
        f"in v {float((v_mean / v)[v > 0].median()):.2f} (only noise: {1 / len(batches):.2f})"
    )
    count = int(REMOVED * len(m))
    for alpha in ALPHAS:
        ior = m + alpha * v
        apart = torch.corrcoef(torch.stack([ranks(ior), ranks(m)]))[0, 1]
        both = len(set(ior.argsort()[:count].tolist()) & set(m.argsort()[:count].tolist())) / count
        print(
            f"  alpha {alpha:>4}: rank correlation with Taylor {float(apart):.3f}, {both:.1%} of what goes is the same"
        )
    return {"share": share}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 steps, 4 batches, drawn streets only")
    quick = parser.parse_args().quick
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    for name in SETTINGS:
        if "PACS" not in name or (not quick and (data_root() / "pacs").is_dir()):
            show(name, quick)
    print(f"\n{fingerprint()}")


if __name__ == "__main__":
    main()
