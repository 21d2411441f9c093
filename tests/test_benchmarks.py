"""The numbers in the pages are those in the records."""

import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


def script(name: str) -> ModuleType:
    """The module ``benchmarks/NAME.py``."""
    spec = importlib.util.spec_from_file_location(f"benchmark{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield script("_pages")
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def texts(pages):
    return pages.blocks()


@pytest.mark.costly
def test_pages_say_what_the_records_say(pages, texts):
    written = {path.name: path.read_text(encoding="utf-8") for path in pages.PAGES}
    stale = [name for name, text in written.items() if pages.filled(text, texts) != text]
    assert not stale, f"run: python benchmarks/_pages.py; differ: {stale}"


@pytest.mark.costly
@pytest.mark.slow
def test_every_block_has_its_place(pages, texts):
    text = "".join(path.read_text(encoding="utf-8") for path in pages.PAGES)
    placed = [f"<!-- {name} -->" in text and f"<!-- /{name} -->" in text for name in texts]
    assert all(placed), [name for name, found in zip(texts, placed, strict=True) if not found]


def test_the_example_of_the_page_on_studies_is_the_recorded_one():
    page = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8").split("| arm |")[1].split("\n\n")[0]
    record = (ROOT / "benchmarks" / "records" / "comparison.txt").read_text(encoding="utf-8")
    assert page == record.split("| arm |")[1].split("\n\n")[0]
    assert page.count("\n") == 5


def test_every_record_has_a_page_that_the_conclusions_link_to(pages):
    files = {path.stem for path in (ROOT / "benchmarks" / "records").iterdir()}
    made = {path.stem for path in pages.PAGES[:-1]}
    linked = set(re.findall(r"benchmarks/(\w+)\.md", (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")))
    assert files == made == linked


def test_the_table_of_the_readme_by_hand(pages):
    """Three seeds of a pruned network: mean and deviation of the scores, medians of the shares of work and time."""
    from hardy.records import Record

    cells, times = [], []
    for seed, (unseen, after) in enumerate([(0.2, 1.0), (0.3, 1.2), (0.4, 2.0)]):
        values = {("intra", "miou"): 0.5, ("unseen", "miou"): unseen}
        values |= {("cost", "gmacs_before"): 2.0, ("cost", "gmacs_after"): after}
        for removed in ("0.5", "0.7"):
            axes = {"method": "ior", "removed": removed}
            notes = {"study": "camvid_tiny", "of": "pruned_tiny", "axes": axes}
            cells += [
                Record("", "prune", (), to, seed, name, value, notes=notes) for (to, name), value in values.items()
            ]
        dense = {"study": "camvid_tiny", "of": "tiny", "axes": {}}
        cells += [Record("", "train", (), to, seed, "miou", 0.6, notes=dense) for to in ("intra", "unseen")]
        for bed, size in (("camvid", "360x480"), ("streets", "360x480"), ("camvid", "192x256")):
            notes = {"bed": bed, "stage": "pruned_tiny", "method": "ior", "removed": "0.5", "size": size}
            share = after if (bed, size) == ("camvid", "360x480") else 9.0
            times.append(Record("", "bench", (), "cost", seed, "ms_ratio", share, notes=notes))
    assert pages.pruned(cells, times, "camvid", "tiny", "360x480")[2:] == [
        "| dense | 60.0 ± 0.0 | 60.0 ± 0.0 | 3 | – | – |",
        "| ior | 50.0 ± 0.0 | 30.0 ± 10.0 | 3 | 0.60 | 1.20 |",
    ]


def test_a_table_row_by_hand(pages):
    """Mean and standard deviation over seeds, of invented records."""
    from hardy.records import Record

    made = []
    for seed, (intra, unseen) in enumerate([(0.5, 0.2), (0.7, 0.4)]):
        cell = {"network": "n", "unseen": "u", "seed": seed, "method": "dense", "removed": 0.0}
        made += [
            Record("", "train", (), target, seed, "miou", value, notes={"cell": cell})
            for target, value in (("intra", intra), ("unseen", unseen))
        ]
    row = pages.camvid_dusk.table(made, "n", "u")[-1]
    assert row.startswith("| dense | 100% | 60.0 ± 14.1 | 30.0 ± 14.1 | 2 |")


def test_a_row_of_reliability_by_hand(pages):
    """Mean and standard deviation over two networks, the median of the shares, and the signal of its twin."""
    from hardy.records import Record

    made = []
    for network, (value, rank, share) in {"a": (0.5, 0.9, 0.01), "b": (0.7, 0.7, 0.03)}.items():
        notes = {"network": network, "asked": 32, "taylor_rank": rank, "taylor_kept": rank, "variance_share": share}
        made.append(Record("", "score", (), "images_8/10", 0, "reliability", value, {"images": 32.0}, notes=notes))
        made.append(Record("", "score", (), "after/10", 0, "reliability", 0.1, notes={**notes, "signal": rank / 10}))
    row = pages.reliability.text(made).splitlines()[2]
    scores = "0.600 ± 0.141 | – | 0.800 ± 0.141 | 80.0 ± 14.1 % | 0.02 (0.01 to 0.03) | 0.080 ± 0.014 |"
    assert row == f"| ior, alpha 10 | 8 images a domain | 32 | 2 | {scores}"


def test_the_signal_of_squares_by_hand(pages):
    """Gradients 1 and 1 are all signal. 3 and -1 have the mean 1 and the variance 8: mu^2 is 1 - 8 / 2, -0.6 of 5."""
    import torch

    for first, second, share in ((1, 1, 1.0), (3, -1, -0.6)):
        before, after = (first**2 + second**2) / 2, ((first + second) / 2) ** 2
        scores = [{"a": torch.tensor([float(value), 0.0])} for value in (before, after)]
        assert pages.reliability.signal(*scores, 2) == pytest.approx(share)


def test_collected_cells_replace_their_own_and_forget_the_folder() -> None:
    from hardy.records import Record

    def record(study: str, value: float, cell: str = "", command: str = "") -> Record:
        notes = {"study": study} | ({"cell": cell} if cell else {})
        return Record("", "train", (), "intra", 0, "miou", value, versions={"command": command}, notes=notes)

    old = [record("b", 0.1, "seed=0"), record("b", 0.2, "seed=1"), record("a", 0.3, "seed=0")]
    again = record("b", 0.4, "seed=1", "hardy train /home/me/runs/seed=1.yaml")
    new = [record("b", 0.9, "seed=1"), again, record("b", 0.5)]  # the first was measured again
    found = script("_collect").merged(old, new, "/home/me")
    assert [(one.notes["study"], one.notes["cell"], one.value) for one in found] == [
        ("a", "seed=0", 0.3),
        ("b", "seed=0", 0.1),
        ("b", "seed=1", 0.4),
    ]
    assert found[-1].versions["command"] == "hardy train runs/seed=1.yaml"


def test_a_trained_network_measured_again_has_the_scores_of_its_weights(tmp_path: Path) -> None:
    """The records are edited by hand beforehand; a run that cannot be measured keeps those it has."""
    from hardy import counts, records
    from hardy.commands import train
    from hardy.errors import InputError
    from hardy.recipe import from_values

    sections = {
        "network": {"name": "tiny", "width": 8, "classes": "cityscapes19"},
        "data": {
            "sources": ["streets/sim"],
            "unseen": ["streets/night"],
            "datasets": {"streets": {"train": 2, "val": 2, "test": 2, "size": [32, 64]}},
        },
        "optim": {"steps": 2, "batch": 2},
        "evaluate": {"keep_counts": True},
        "run": {"folder": str(tmp_path / "run"), "device": "cpu", "workers": 0, "threads": 1},
    }
    folder = train.run(from_values(sections), show=False)
    file, right = folder / "records.jsonl", records.read(folder / "records.jsonl")
    file.write_text("")
    wrong = [replace(one, value=0.0) for one in right]
    other = replace(right[0], stage="evaluate")
    records.append(file, [*wrong, other])
    (folder / counts.FILE).unlink()
    scores = script("_measure_again").again(folder)
    found = records.read(file)
    keys = [(one.stage, one.target, one.metric, one.value, one.cost, one.notes) for one in found]
    assert keys == [(one.stage, one.target, one.metric, one.value, one.cost, one.notes) for one in [*right, other]]
    assert scores["unseen"] == next(one.value for one in right if (one.target, one.metric) == ("unseen", "miou"))
    assert counts.read(folder).keys() == {"streets/sim", "streets/night"}
    (folder / "network.safetensors").write_bytes(b"")
    with pytest.raises(InputError):
        script("_measure_again").again(folder)
    assert records.read(file) == found
    assert not list(folder.glob("*.earlier"))
    earlier = file.rename(file.with_suffix(".earlier"))  # as a killed call leaves it
    with pytest.raises(InputError):
        script("_measure_again").again(folder)
    assert (records.read(file), earlier.exists()) == (found, False)
    file.unlink()
    with pytest.raises(InputError, match="no records of a training"):
        script("_measure_again").again(folder)
