"""The studies that are shipped can be planned: every cell's recipe is read and checked, down to the last option."""

from pathlib import Path

import pytest

from hardy.studies.cells import plan
from hardy.studies.study import read

STUDIES = sorted((Path(__file__).parents[1] / "studies").glob("*.yaml"))


@pytest.mark.parametrize("file", [file for file in STUDIES if "pacs" not in file.stem], ids=lambda file: file.stem)
def test_every_cell_is_a_recipe(file):
    study, others = read(file)
    cells = plan(study, file, others).cells
    names = [cell.name for cell in cells]
    assert len(set(names)) == len(names) >= 6
    assert {cell.stage for cell in cells} == set(study.stages)
    assert all(cell.after in names for cell in cells if cell.after)


def test_at_equal_gmacs_every_method_has_one_goal():
    file = next(file for file in STUDIES if file.stem == "camvid_gmacs")
    study, others = read(file)
    pruned = [cell.recipe.prune for cell in plan(study, file, others).cells if cell.stage == "pruned"]
    assert {(prune.target_gmacs, prune.ratio) for prune in pruned} == {(0.0481, None)}
    assert {prune.recovery for prune in pruned} == {400}
