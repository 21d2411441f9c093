"""Copies the records of studies into ``benchmarks/records``, where the tables of the pages are made from.

Cells that the file already has are replaced, and all are sorted by study and cell, so that a study may be trained in
parts and on several machines. The folder in which Hardy was started is taken out of the command lines.

    python benchmarks/_collect.py beds runs/beds/camvid runs/beds/retina     # into benchmarks/records/beds.jsonl
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hardy import records
from hardy.records import Record

STORE = Path(__file__).parent / "records"


def merged(old: Sequence[Record], new: Sequence[Record], start: str) -> list[Record]:
    """``old`` with the cells of ``new`` in place of its own, by study and cell.

    Args:
        old: records of cells.
        new: records of cells; those of the comparison between cells, which have no cell, are left out. Of a number that
            was measured again the last is kept.
        start: the folder in which the study was started.
    """
    cells = {(*_place(one), one.target, one.metric): one for one in new if "cell" in one.notes}
    plain = [
        replace(one, versions={key: value.replace(f"{start}/", "") for key, value in one.versions.items()})
        for one in cells.values()
    ]
    fresh = {_place(one) for one in plain}
    return sorted([*(one for one in old if _place(one) not in fresh), *plain], key=_place)


def _place(record: Record) -> tuple[str, str]:
    return record.notes["study"], record.notes["cell"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the file in benchmarks/records, without .jsonl")
    parser.add_argument("studies", nargs="+", type=Path, help="folders of studies")
    given = parser.parse_args()
    store = STORE / f"{given.name}.jsonl"
    found = records.read(store) if store.exists() else []
    for folder in given.studies:
        file = folder / "records.jsonl"
        if not file.exists():
            parser.error(f"{file} does not exist: give the folder of a study with a measured cell")
        found = merged(found, records.read(file), str(Path.cwd()))
    fresh = store.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    records.append(fresh, found)
    fresh.replace(store)
    for study in sorted({place[0] for place in map(_place, found)}):
        print(f"{study}: {len({one.notes['cell'] for one in found if one.notes['study'] == study})} cells")


if __name__ == "__main__":
    main()
