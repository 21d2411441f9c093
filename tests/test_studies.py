"""The studies that are shipped can be planned: every cell's recipe is read and checked, down to the last option."""

from pathlib import Path

import pytest

from hardy.studies.cells import make_cells
from hardy.studies.study import read

STUDIES = sorted((Path(__file__).parents[1] / "studies").glob("*.yaml"))


@pytest.mark.costly
@pytest.mark.slow
def test_every_cell_is_a_recipe():
    wrong = []
    for file in (file for file in STUDIES if "pacs" not in file.stem):
        study, others = read(file)
        cells = make_cells(study, file, others).cells
        names = [cell.name for cell in cells]
        claims = {
            "six different cells or more": len(set(names)) == len(names) >= 6,
            "cells of every stage": {cell.stage for cell in cells} == set(study.stages),
            "the cells that others continue from": all(cell.after in names for cell in cells if cell.after),
        }
        wrong += [f"{file.name} lacks {claim}" for claim, holds in claims.items() if not holds]
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_at_equal_gmacs_every_method_has_one_goal():
    file = next(file for file in STUDIES if file.stem == "camvid_gmacs")
    study, others = read(file)
    pruned = [cell.recipe.prune for cell in make_cells(study, file, others).cells if cell.stage == "pruned"]
    assert {(prune.target_gmacs, prune.ratio) for prune in pruned} == {(0.0481, None)}
    assert {prune.recovery for prune in pruned} == {400}
