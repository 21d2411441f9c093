"""How long the page of ``hardy report`` takes to write and to open.

Makes invented runs as the verbs write them: a dense network and others pruned from it, with the scores of 19 classes on
nine drawn domains, costs and curves; eight of them with counts and the two worst images of every domain. Writes their
page and opens it in headless Chromium. Opening begins with the navigation, so the start of the browser is not in it,
and ends when the page is loaded, its scripts have run, and all of it that is in sight is laid out: the median of
several openings. There is a page of at least 500 records and one of 500 networks.

    python benchmarks/report.py [--quick] [--openings N] [--keep FOLDER]
"""

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from hardy import counts, curves, pictures, records
from hardy.data.datasets.streets import Streets
from hardy.data.label_spaces import LabelSpace, find_label_space
from hardy.records import Record
from hardy.report.page import build
from hardy.timing.hardware import fingerprint

SEEN = ("streets/sim", "streets/day")
UNSEEN = tuple(f"streets/{name}" for name in ("dusk", "night", "fog", "rain", "snow", "city_b", "camera_b"))
WITH_PICTURES = 8
"""Runs with counts and pictures: as many as the page shows in detail."""

MEASURE = """<script>addEventListener("load", () => {
  document.body.offsetHeight;
  const said = document.createElement("script"); said.type = "text/plain"; said.id = "opened";
  said.textContent = String(performance.now()); document.body.append(said);
});</script>"""


def matrices(label_space: LabelSpace, quality: float, seed: int) -> np.ndarray:
    """Confusion counts (20, K, K) of images in which ``quality`` of the pixels are right."""
    draws, size = np.random.default_rng(seed), len(label_space.classes)
    wrong = draws.dirichlet(np.full(size, 0.3), size) * (1 - quality)
    np.fill_diagonal(wrong, wrong.diagonal() + quality)
    frequency = draws.dirichlet(np.full(size, 1.0), 20)[:, :, None] * 1e5
    return (frequency * wrong).astype(np.int64)


def drawn(label_space: LabelSpace) -> dict[str, list[pictures.Picture]]:
    """Two pictures of each domain; what is predicted is the truth in coarse blocks."""
    streets = Streets(size=(144, 288), train=0, val=0, test=2)
    palette = np.array(label_space.colours, dtype=np.uint8)
    found: dict[str, list[pictures.Picture]] = {}
    for domain in (*SEEN, *UNSEEN):
        for item in streets.index()[domain.split("/")[1]]["test"]:
            image, ids = streets.read(item)
            truth = np.where(ids < len(palette), ids, 0)
            said = truth[::12, ::12].repeat(12, 0).repeat(12, 1)
            files = {
                "image": packed(image, "JPEG"),
                "truth": packed(palette[truth], "PNG"),
                "prediction": packed(palette[said], "PNG"),
            }
            found.setdefault(domain, []).append(pictures.Picture(f"{item[1]}.png", 0.3, files))
    return found


def packed(pixels: np.ndarray, kind: str) -> bytes:
    buffer = BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def write_run(home: Path, place: int, label_space: LabelSpace, worst: pictures.Worst) -> int:
    """Write run number ``place``; returns the number of its records."""
    folder, stage = home / f"r{place:03}", "prune" if place else "train"
    quality = 0.85 - 0.3 * (place * 0.618 % 1) ** 2
    tables = {
        name: matrices(label_space, quality - 0.05 * far, 100 * place + far)
        for far, name in enumerate((*SEEN, *UNSEEN))
    }
    values, means = [], {}
    for domain, table in tables.items():
        total = table.sum(axis=0)
        hits = np.diagonal(total)
        iou = hits / (total.sum(0) + total.sum(1) - hits)
        means[domain] = float(iou.mean())
        values += [(domain, "miou", means[domain])]
        values += [(domain, f"iou/{name}", float(value)) for name, value in zip(label_space.classes, iou, strict=True)]
    values += [
        ("intra", "miou", statistics.fmean(means[name] for name in SEEN)),
        ("unseen", "miou", statistics.fmean(means[name] for name in UNSEEN)),
        ("worst", "miou", min(means[name] for name in UNSEEN)),
    ]
    share = 0.2 + 0.75 * (place * 0.382 % 1) if place else 1.0
    for name, dense in (("parameters", 1.1e6), ("gmacs", 0.9), ("milliseconds_p50_onnxruntime", 14.0)):
        ends = (("_before", 1.0), ("_after", share)) if place else (("", 1.0),)
        values += [("cost", name + end, dense * part) for end, part in ends]
    notes = {"network": str(home / "r000"), "criterion": "ior"} if place else {"network": "fast_scnn"}
    versions = {"hardy": "0.1.0", "cpu": "invented", "command": f"hardy {stage} r{place:03}.yaml"}
    took = {f"{'recover' if place else 'train'}_seconds": 60.0, f"{'recover' if place else 'train'}_steps": 400.0}
    lines = [
        Record(f"r{place}", stage, SEEN, to, 0, metric, value, took, versions, notes) for to, metric, value in values
    ]
    records.append(folder / "records.jsonl", lines)
    for step in range(0, 400, 20):
        curves.append(folder, stage, step, {"loss": 2.5 / (1 + step / 40) + 1 - quality})
    if place < WITH_PICTURES:
        names = tuple(f"{number}.png" for number in range(20))
        groups = {name: "source-val" if name in SEEN else "unseen" for name in tables}
        kept = {name: counts.Counts(names, table, label_space.classes, groups[name]) for name, table in tables.items()}
        counts.write(folder, kept)
        pictures.write(folder / pictures.FOLDER, worst)
    return len(lines)


def opened(page: Path, browser: str) -> float:
    """Seconds from the navigation to ``page`` until all of it in sight is laid out."""
    measured = page.with_name("measured.html")
    text = page.read_text(encoding="utf-8").replace("<head>", f"<head>{MEASURE}", 1)
    measured.write_text(text, encoding="utf-8")
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,900", "--dump-dom"]
    done = subprocess.run([browser, *words, measured.as_uri()], capture_output=True, text=True, check=True)
    said = re.search(r'id="opened">([\d.]+)<', done.stdout)
    if said is None:
        sys.exit(f"{page}: the page did not say that it is open")
    return float(said.group(1)) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100 networks in place of 500")
    parser.add_argument("--openings", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="a folder that keeps the runs and the pages")
    options = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("chromium is not installed, so nothing can be opened")
    label_space = find_label_space("cityscapes19")
    worst = pictures.Worst(drawn(label_space), dict(zip(label_space.classes, label_space.colours, strict=True)))
    rows = []
    with tempfile.TemporaryDirectory() as passing:
        home = options.keep or Path(passing)
        for name, networks in (("records", 3), ("networks", 100 if options.quick else 500)):
            total = sum(write_run(home / name, place, label_space, worst) for place in range(networks))
            page, began = home / f"{name}.html", time.perf_counter()
            build.write([home / name], page)
            wrote = time.perf_counter() - began
            times = [opened(page, browser) for _ in range(options.openings)]
            rows.append((name, networks, total, page.stat().st_size / 2**20, wrote, statistics.median(times)))
    print(f"{'networks':>8} {'records':>8} {'MiB':>6} {'write s':>8} {'open s':>7}")
    for _, networks, total, size, wrote, opening in rows:
        print(f"{networks:8} {total:8,} {size:6.1f} {wrote:8.1f} {opening:7.2f}")
    print(f"\n{fingerprint()}\n")
    print(f"figure report_open_s_500_records {rows[0][-1]:.2f} goal <=2")
    if not options.quick:
        print(f"figure report_open_s_500_networks {rows[1][-1]:.2f} goal <=2")


if __name__ == "__main__":
    main()
