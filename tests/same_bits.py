"""Proof that a change of design changes no result: checksums of short seeded runs and of what exported files answer.

Runs on one thread: Fast-SCNN on drawn streets, its styles, pruned by ior and by npdg, a study of two cells, and a PACS
classifier trained with mixup; then three exported files on one fixed image. Everything goes through the command line,
so the same script runs before and after a change of the code behind it:

    python tests/same_bits.py before.json          # writes the checksums
    python tests/same_bits.py after.json before.json    # writes them, compares, and exits with 1 where one differs

Checksums depend on the processor and on the versions of the libraries: compare only what one machine made.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("HARDY_DATA", ROOT.parent / "shared" / "data")).resolve()
STREETS = [
    "data.datasets={streets: {size: [64, 128], train: 8, val: 2, test: 2}}",
    "data.crop=[64, 128]",
    "optim.batch=4",
]
SHORT = ["run.threads=1", "run.workers=0", "run.device=cpu"]
STUDY = """
study: {folder: cells, cpus: 1, keep: all}
stages: {dense: {verb: train, recipe: RECIPE, set: {SETTINGS}}}
grid: {seed: {key: run.seed, values: [0, 1]}}
table: {rows: [stage], columns: []}
"""


def hardy(place: Path, *words: str) -> None:
    """Run one command of Hardy in ``place``; stop with its message when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "hardy", *words],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HARDY_DATA": str(DATA), "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise SystemExit(f"hardy {' '.join(words)}: {done.returncode}\n{done.stderr[-2000:]}")


def checksum(data: bytes) -> str:
    """The sha256 of ``data`` in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def runs(place: Path) -> dict[str, str]:
    """Make every run below ``place``; the checksum of each one's weights."""
    recipes = ROOT / "recipes"
    dense = [str(recipes / "streets_dense.yaml"), *STREETS, *SHORT, "optim.steps=12", "evaluate.every=6"]
    hardy(place, "train", *dense, "run.folder=dense")
    hardy(
        place,
        "train",
        str(recipes / "streets_style.yaml"),
        *STREETS,
        *SHORT,
        "network.run=dense",
        "optim.steps=6",
        "algorithm.pictures=''",
        "run.folder=style",
    )
    prune = ["prune", str(recipes / "streets_prune.yaml"), *STREETS, *SHORT, "network.run=dense"]
    goal = ["prune.target_gmacs=null", "prune.ratio=0.3", "prune.recovery=4"]
    hardy(place, *prune, *goal, "prune.schedule={name: iterative, every: 2, per_round: 200}", "run.folder=ior")
    npdg = "prune.criterion={name: npdg, style: style, copies: 1}"
    sparse = "prune.schedule={name: sparse, steps: 6, beta: 0.08, adapt: 0, fill: true}"
    hardy(place, *prune, *goal, npdg, sparse, "run.folder=npdg")
    settings = (
        "optim.steps: 4, optim.batch: 4, data.crop: [64, 128], evaluate.every: 0, run.threads: 1, run.device: cpu"
    )
    streets = "data.datasets: {streets: {size: [64, 128], train: 8, val: 2, test: 2}}"
    text = STUDY.replace("RECIPE", str(recipes / "streets_dense.yaml")).replace("SETTINGS", f"{settings}, {streets}")
    (place / "study.yaml").write_text(text, encoding="utf-8")
    hardy(place, "study", "study.yaml")
    hardy(
        place,
        "train",
        str(recipes / "pacs_pretrain.yaml"),
        *SHORT,
        "algorithm.name=mixup",
        "optim.steps=3",
        "optim.batch=6",
        "data.unseen=[]",
        "data.holdout=0.01",
        "data.size=[64, 64]",
        "data.crop=[64, 64]",
        "run.folder=pacs",
        "data.check=false",
    )
    folders = {name: place / name for name in ("dense", "ior", "npdg", "pacs")}
    folders |= {f"study {path.name}": path for path in sorted((place / "cells" / "cells").iterdir())}
    return {name: checksum((folder / "network.safetensors").read_bytes()) for name, folder in folders.items()}


def exports(place: Path) -> dict[str, str]:
    """Export three of the runs; the checksum of what each file answers to one fixed image."""
    import onnxruntime as ort

    found = {}
    for name, size, options in (("dense", (64, 128), ["--logits"]), ("ior", (96, 128), []), ("pacs", (64, 64), [])):
        file = place / f"{name}.onnx"
        hardy(place, "export", name, str(file), "--size", f"{size[0]}x{size[1]}", *options)
        image = np.random.default_rng(0).random((1, 3, *size), dtype=np.float32)
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = 1
        session = ort.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
        (answer,) = session.run(None, {session.get_inputs()[0].name: image})
        found[f"{name}.onnx"] = checksum(np.ascontiguousarray(answer).tobytes())
    return found


def main() -> int:
    """Write the checksums; compare them with earlier ones where a second file is named."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("out", type=Path, help="where the checksums go, as JSON")
    parser.add_argument("earlier", type=Path, nargs="?", help="the checksums to compare with")
    words = parser.parse_args()
    with TemporaryDirectory() as scratch:
        found = {**runs(Path(scratch)), **exports(Path(scratch))}
    words.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    earlier = json.loads(words.earlier.read_text(encoding="utf-8")) if words.earlier else found
    different = [name for name in sorted({*found, *earlier}) if found.get(name) != earlier.get(name)]
    for name, value in found.items():
        print(f"{'differs' if name in different else 'same   ' if words.earlier else 'written'} {value[:16]} {name}")
    return int(bool(different))


if __name__ == "__main__":
    raise SystemExit(main())
