"""The studies of pruning on the beds: every cell is a recipe, from the dense networks of the bed, at equal steps."""

from pathlib import Path

import pytest

from hardy.studies.cells import make_cells
from hardy.studies.study import read

STUDIES = Path(__file__).parents[1] / "studies"
FILES = sorted((STUDIES / "pruning_beds").glob("*.yaml"))
ONE = ["grid.seed.values=[0, 1]"]
"""Two seeds stand for all."""


def planned(file, *overrides):
    """The study in a file, and its cells by name."""
    study, others = read(file, [*ONE, *overrides])
    return study, {cell.name: cell for cell in make_cells(study, file, others).cells}


FIRST = {"retina", "streets_fast_scnn"}


@pytest.mark.costly
@pytest.mark.parametrize(
    "file",
    [pytest.param(file, marks=[pytest.mark.exhaustive] * (file.stem not in FIRST), id=file.stem) for file in FILES],
)
def test_every_cell_is_a_recipe_from_the_networks_of_the_bed_at_equal_steps(file):
    bed = file.stem.split("_")[0]
    pair = {"pacs": ["pacs/photo", "pacs/sketch"], "retina": ["retina/drive", "retina/hrf"]}.get(bed)
    more = [f"grid.held_out.leave_out={pair}"] if pair else []
    study, cells = planned(file, *more)
    dense_study, others = read(STUDIES / "beds" / f"{bed}.yaml", [*ONE, *more])
    dense = {cell.name: cell for cell in make_cells(dense_study, STUDIES / "beds" / f"{bed}.yaml", others).cells}
    assert study.study.folder == dense_study.study.folder
    trained = {name: cell for name, cell in cells.items() if cell.verb == "train" and cell.after is None}
    assert trained
    for name, cell in trained.items():
        assert cell.recipe == dense[name].recipe, "another dense network than that of the bed"
    pruned = [cell for cell in cells.values() if cell.verb == "prune"]
    methods = {(cell.axes["method"], cell.stage.split("_")[0]) for cell in pruned if cell.after}
    plain = {"l2", "fpgm", "random", "slimming", "taylor", "taylor_activation", "activation_variance", "ior"}
    assert {(method, stage) for method in plain for stage in ("pruned", "copies")} | {("npdg", "copies")} <= methods
    narrow = [cell.recipe.prune for cell in pruned if cell.after is None]
    totals = {cell.recipe.prune.total_steps for cell in pruned if cell.after}
    assert len(totals) == 1, "an arm trains longer than another"
    steps = {cell.recipe.optim.steps for cell in trained.values()}
    assert {choice.recovery for choice in narrow} == {steps.pop() + totals.pop()}
    goals = {(cell.axes["removed"], cell.recipe.prune.target_gmacs) for cell in pruned}
    (_, low), (_, middle), (_, high) = sorted(goals)
    assert (low / 0.7, high / 0.3) == pytest.approx((middle / 0.5, middle / 0.5), rel=0.005)
    first = [cell for cell in cells.values() if cell.verb == "prune" or cell in trained.values()]
    reads = {
        (cell.axes.get("held_out"), cell.recipe.optim.name, cell.recipe.optim.batch, cell.recipe.data.model_dump_json())
        for cell in first
    }
    assert len(reads) == len(pair or [None]), "an arm reads other images than another"
    for cell in pruned:
        if cell.stage.startswith("copies"):
            assert cell.after.startswith("style"), "the styles are those of the same fold and seed"
            if cell.axes["method"] != "npdg_without_copies":
                assert cell.recipe.prune.recover_with.name == "dsp"
                assert cell.recipe.prune.recover_with.options["style"] == cell.recipe.network.run
