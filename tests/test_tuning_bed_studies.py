"""The studies of tuners on the beds: cells are recipes that differ in tuner, algorithm, decoder or encoder rate."""

from pathlib import Path

import pytest

from hardy.registry import TUNERS
from hardy.studies.cells import make_cells
from hardy.studies.study import read

FILES = sorted((Path(__file__).parents[1] / "studies" / "tuning_beds").glob("*.yaml"))


@pytest.mark.costly
@pytest.mark.parametrize(
    "file",
    [pytest.param(file, marks=[pytest.mark.exhaustive] * (file.stem != "camvid"), id=file.stem) for file in FILES],
)
def test_arms_differ_in_how_the_encoder_is_trained(file):
    folds = {"pacs": ["pacs/photo", "pacs/sketch"], "retina": ["retina/drive", "retina/hrf"]}.get(file.stem)
    more = [f"grid.held_out.leave_out={folds}"] if folds else []
    study, others = read(file, ["grid.seed.values=[0]", *more])
    arms = {}
    for cell in make_cells(study, file, others).cells:
        arms.setdefault(cell.axes.get("held_out"), {})[cell.stage, cell.axes.get("method") or cell.axes["head"]] = (
            cell.recipe
        )
    for own in arms.values():
        control = own["tuned", "full"]
        named = {recipe.tuner.name for recipe in own.values() if recipe.tuner}
        assert named == set(TUNERS.names()) - {"vpt", "adaptformer"}, "those two are for transformers alone"
        for (stage, name), recipe in own.items():
            starts = [
                (one.network.name, *map(one.network.options.get, ("encoder", "encoder_weights")))
                for one in (recipe, control)
            ]
            assert starts[0] == starts[1]
            decoders = [one.network.options.get("decoder") for one in (recipe, control)]
            assert (decoders[0] == decoders[1]) == (stage == "tuned" and name != "linear")
            rates = {"encoder_rate": control.optim.encoder_rate}
            assert recipe.optim.model_copy(update=rates) == control.optim
            for section in ("data", "loss", "evaluate"):
                assert getattr(recipe, section) == getattr(control, section)
        assert own["tuned", "full_slow"].optim.encoder_rate < control.optim.encoder_rate
        assert own["tuned", "full_fast"].optim.encoder_rate == 1
        assert own["tuned", "lp_ft"].algorithm.name == "lp_ft"
