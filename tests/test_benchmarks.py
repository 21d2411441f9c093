"""The numbers in the pages are those in the records."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pages():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("benchmark_pages", ROOT / "benchmarks" / "_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.mark.parametrize("page", ["README.md", "docs/benchmarks.md"])
def test_pages_say_what_the_records_say(pages, page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert pages.filled(text) == text, "run: python benchmarks/_pages.py"


def test_every_block_has_its_place(pages):
    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/benchmarks.md"))
    assert all(f"<!-- {name} -->" in text and f"<!-- /{name} -->" in text for name in pages.blocks())


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
