"""A short run on the town, as a recipe's sections and as keywords of `hardy.train`."""

from functools import partial

import pytest


@pytest.fixture(scope="session")
def short_run(town):
    """``short_run(folder, optim={"steps": 3})``: a run on the town's day; its night is unseen."""

    def build(folder, **changes):
        values = {
            "network": {"name": "tiny", "width": 8, "classes": str(town)},
            "data": {
                "sources": ["folder/day"],
                "unseen": ["folder/night"],
                "crop": [32, 48],
                "scale": [0.9, 1.2],
                "datasets": {"folder": {"root": str(town)}},
            },
            "optim": {"steps": 8, "batch": 4, "lr": 0.05},
            "run": {"folder": str(folder), "device": "cpu", "workers": 0, "threads": 1, "log_every": 4},
        }
        for name, more in changes.items():
            values[name] = {**values.get(name, {}), **more}
        return values

    return build


@pytest.fixture
def sections(short_run, tmp_path):
    """That run in a folder of the test."""
    return partial(short_run, tmp_path / "run")


@pytest.fixture
def of_python(sections):
    """The same for `hardy.train`, as its keywords; without a folder."""
    values = sections()
    run = {key: value for key, value in values["run"].items() if key != "folder"}
    optim = {key: value for key, value in values["optim"].items() if key != "steps"}
    return {"data": values["data"], "optim": optim, "run": run}
