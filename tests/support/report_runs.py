"""Runs for a report, written as the verbs write them but without training anything."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from hardy import counts, curves, pictures, records
from hardy.records import Record

CLASSES = ("road", "building", "sky", "car")
COLOURS = ((128, 64, 128), (70, 70, 70), (70, 130, 180), (0, 0, 142))
SEEN, UNSEEN = ("streets/day",), ("streets/night", "streets/fog")
VERSIONS = {"hardy": "0.1.0", "commit": "abc1234", "cpu": "A processor", "threads": "2", "torch": "2.15.0"}


def matrices(quality, images=6, classes=CLASSES, seed=0):
    """Confusion counts (images, K, K) in which about ``quality`` of the pixels are right."""
    draws = np.random.default_rng(seed)
    wrong = draws.multinomial(1000, [*[(1 - quality) / len(classes)] * len(classes), quality], images)
    found = np.tile(wrong[:, None, :-1], (1, len(classes), 1)).astype(np.int64)
    for place in range(len(classes)):
        found[:, place, place] += wrong[:, -1]
    return found


def iou(total):
    """The IoU of each class of summed counts."""
    hits = np.diagonal(total)
    return hits / (total.sum(0) + total.sum(1) - hits)


def scores(found):
    """(target, metric, value) as an evaluation records them."""
    values = []
    for domain, one in found.items():
        each = iou(one.matrices.sum(axis=0))
        values += [(domain, "miou", float(each.mean()))]
        values += [(domain, f"iou/{name}", float(value)) for name, value in zip(one.classes, each, strict=True)]
    mean = {domain: value for domain, metric, value in values if metric == "miou"}
    away = [mean[name] for name in UNSEEN if name in mean]
    seen = [mean[name] for name in SEEN if name in mean]
    return [
        *values,
        ("intra", "miou", sum(seen) / len(seen)),
        ("unseen", "miou", sum(away) / len(away)),
        ("worst", "miou", min(away)),
    ]


def picture(name, score, seed=0):
    """A picture of 64 x 32 pixels."""
    ids = np.random.default_rng(seed).integers(0, len(CLASSES), (4, 8)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    rgb = np.array(COLOURS, dtype=np.uint8)
    files = {}
    for part, values, kind in (
        ("image", rgb[ids] // 2 + 60, "JPEG"),
        ("truth", rgb[ids], "PNG"),
        ("prediction", rgb[ids[::-1]], "PNG"),
    ):
        packed = BytesIO()
        Image.fromarray(values).save(packed, kind)
        files[part] = packed.getvalue()
    return pictures.Picture(name, score, files)


def write_run(
    folder: Path, quality, *, stage="train", notes=None, cost=(), classes=CLASSES, kept=True, seed=0, took=None
):
    """A run of which ``quality`` of the pixels are right in the day, and fewer in the night and the fog."""
    found = {}
    for place, (domain, less) in enumerate(zip((*SEEN, *UNSEEN), (0.0, 0.1, 0.2), strict=True)):
        table = matrices(quality - less, classes=classes, seed=place)
        group = "source-val" if domain in SEEN else "unseen"
        found[domain] = counts.Counts(tuple(f"{n}.png" for n in range(len(table))), table, tuple(classes), group)
    values = [*scores(found), *(("cost", name, value) for name, value in dict(cost).items())]
    versions = {**VERSIONS, "command": f"hardy {stage} {folder.name}.yaml"}
    lines = [
        Record(f"r{folder.name}", stage, SEEN, target, seed, metric, value, took or {}, versions, notes or {})
        for target, metric, value in values
    ]
    records.append(folder / "records.jsonl", lines)
    if kept:
        counts.write(folder, found)
        worst = {name: [picture("3.png", 0.1, 1), picture("1.png", 0.2, 2)] for name in found}
        colours = dict(zip(classes, COLOURS, strict=False))
        pictures.write(folder / pictures.FOLDER, pictures.Worst(worst, colours))
        for step in range(0, 60, 20):
            curves.append(folder, "train", step, {"loss": 2.0 / (1 + step) + 1 - quality})
    return folder


def write_story(home: Path):
    """A dense run and two that were pruned from it, the smaller one exported."""
    write_run(
        home / "dense",
        0.9,
        cost={"parameters": 1e6, "gmacs": 0.5},
        notes={"network": "tiny"},
        took={"train_seconds": 80.0, "train_steps": 240},
    )
    for name, quality, after in (("half", 0.88, 6.0), ("quarter", 0.7, 3.0), ("beaten", 0.69, 8.0)):
        both = {
            "parameters": (1e6, 1e5 * after),
            "gmacs": (0.5, 0.05 * after),
            "milliseconds_p50_onnxruntime": (10.0, after),
        }
        cost = {
            f"{key}_{when}": value
            for key, pair in both.items()
            for when, value in zip(("before", "after"), pair, strict=True)
        }
        write_run(
            home / name,
            quality,
            stage="prune",
            notes={"network": str(home / "dense"), "criterion": "ior"},
            cost=cost,
            took={"score_seconds": 5.0, "recover_seconds": 20.0, "recover_steps": 60},
        )
    proof = {"agreement": 0.9999, "miou_torch": 0.5, "miou_onnx": 0.499}
    lines = [
        Record(
            "rquarter",
            "export",
            SEEN,
            "streets/night",
            0,
            metric,
            value,
            {},
            {**VERSIONS, "command": "hardy export quarter q.onnx"},
            {"file": "runs/q.onnx"},
        )
        for metric, value in proof.items()
    ]
    records.append(home / "quarter" / "records.jsonl", lines)
    return home
