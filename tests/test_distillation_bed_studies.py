"""The studies of distillation on the beds: every cell is a recipe on images of the bed; arms differ in one thing."""

from pathlib import Path

import pytest

from hardy.studies.cells import make_cells
from hardy.studies.study import read

STUDIES = Path(__file__).parents[1] / "studies"
FILES = sorted((STUDIES / "distillation_beds").glob("*.yaml"))
FIRST = {"retina", "streets_fast_scnn"}
STUDENTS = {
    "streets_fast_scnn": "fast_scnn",
    "camvid_fast_scnn": "fast_scnn",
    "streets_mobilenetv2_035": "mobilenetv2_035",
}


def planned(file, *overrides):
    """The study in a file, and its cells; two seeds stand for all."""
    study, others = read(file, ["grid.seed.values=[0, 1]", *overrides])
    return study, make_cells(study, file, others).cells


def without(recipe, *sections):
    """What a recipe says, but for its folder and ``sections``."""
    return {key: value for key, value in recipe.model_dump().items() if key not in {"run", *sections}}


@pytest.mark.costly
@pytest.mark.parametrize(
    "file",
    [pytest.param(file, marks=[pytest.mark.exhaustive] * (file.stem not in FIRST), id=file.stem) for file in FILES],
)
def test_arms_differ_in_one_thing_from_the_student_without_a_teacher(file):
    bed = file.stem.split("_")[0]
    pair = {"pacs": ["pacs/photo", "pacs/sketch"], "retina": ["retina/drive", "retina/hrf"]}.get(bed)
    more = [f"grid.held_out.leave_out={pair}"] if pair else []
    study, cells = planned(file, *more)
    dense_study, dense_cells = planned(STUDIES / "beds" / f"{bed}.yaml", *more)
    assert study.study.folder == dense_study.study.folder
    dense = {cell.name: cell.recipe for cell in dense_cells}
    assert all(dense[cell.name] == cell.recipe for cell in cells if cell.name in dense)
    groups = {}
    for cell in cells:
        groups.setdefault((cell.axes.get("held_out"), cell.axes["seed"]), []).append(cell)
    assert len(groups) == 2 * len(pair or [None])
    for own in groups.values():
        assert len({cell.recipe.data.model_dump_json() for cell in own}) == 1, "an arm reads other images"
        by = {cell.axes.get("by"): cell for cell in own if cell.stage == "recovered"}
        if by:
            ends = [
                without(by[name].recipe, "prune") | {"prune": by[name].recipe.prune} for name in ("labels", "teacher")
            ]
            for end in ends:
                end["prune"] = end["prune"].model_copy(update={"recover_with": None})
            assert ends[0] == ends[1]
        student = [cell for cell in own if cell.stage == STUDENTS.get(file.stem, "student")]
        if student:
            _judge(student[0].recipe, {(cell.stage, cell.axes.get("method")): cell for cell in own})


def _judge(plain, arms):
    """Every arm is ``plain`` with one thing changed."""
    longer, smoothed = arms["longer", None].recipe, arms["smoothed", None].recipe
    assert longer.optim.steps > plain.optim.steps
    assert longer.optim.model_copy(update={"steps": plain.optim.steps}) == plain.optim
    assert without(longer, "optim") == without(plain, "optim")
    assert smoothed.loss.options["smoothing"] == 0.1
    assert without(smoothed, "loss") == without(plain, "loss")
    taught = {key: cell for key, cell in arms.items() if key[0] in ("distilled", "born_again")}
    assert {name for _, name in taught} >= {None, "kl", "default", "nfd", "two_stage"}
    for (stage, name), cell in taught.items():
        assert without(cell.recipe, "algorithm", "teacher") == without(plain, "algorithm", "teacher")
        assert cell.recipe.optim == plain.optim
        assert cell.recipe.algorithm.name == ("two_stage" if name == "two_stage" else "distillation")
        assert cell.after.startswith("lite2") == (stage == "distilled")
        assert cell.recipe.teachers[0].run.endswith(cell.after)
