"""A short run on the town, as a recipe's sections and as keywords of `hardy.train`."""

import pytest


@pytest.fixture
def sections(town, tmp_path):
    """A short run on the town's day; its night is unseen."""

    def build(**changes):
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
            "run": {"folder": str(tmp_path / "run"), "device": "cpu", "workers": 0, "threads": 1, "log_every": 4},
        }
        for name, more in changes.items():
            values[name] = {**values.get(name, {}), **more}
        return values

    return build


@pytest.fixture
def of_python(sections):
    """The same for `hardy.train`, as its keywords; without a folder."""
    values = sections()
    run = {key: value for key, value in values["run"].items() if key != "folder"}
    optim = {key: value for key, value in values["optim"].items() if key != "steps"}
    return {"data": values["data"], "optim": optim, "run": run}
