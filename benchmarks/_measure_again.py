"""Measures trained networks again with the Hardy of today, so that all cells of a bed are measured in the same way.

The numbers that a training measures at its end and the counts of every image are replaced, and the header of
``recipe.yaml`` names the Hardy that measured. The network, its cost, the notes on its training and the other records
stay.

    python benchmarks/_measure_again.py runs/beds/camvid/cells/*     # then hardy study, and _collect.py
"""

import argparse
from pathlib import Path

import hardy
from hardy import recipe as recipes
from hardy import records
from hardy.commands.output.costs import own_costs
from hardy.engine.run import Run
from hardy.errors import InputError
from hardy.records import Record


def again(folder: Path) -> dict[str, float]:
    """Measure the network in the folder of a ``train`` run; returns its scores on known and unseen domains by name.

    Raises:
        InputError: for a folder with no records of a training, and what measuring raises; the old records stay.
    """
    recipe, file = recipes.read(folder / "recipe.yaml"), folder / "records.jsonl"
    earlier = file.with_suffix(".earlier")
    if earlier.exists():  # an earlier call was killed
        earlier.replace(file)
    old = records.read(file) if file.exists() else []
    trained = next((one for one in old if one.stage == "train"), None)
    if trained is None:
        raise InputError(f"{folder}: it holds no records of a training; give the folder of a finished hardy train")
    file.rename(earlier)
    try:
        with Run.open(recipe, "train") as run:
            network = hardy.load(folder)
            images = run.images(network)
            run.cost |= trained.cost
            table = run.measure(network, images, "train", trained.notes)
            run.record("train", images.sources, own_costs(network, recipe), trained.notes)
        measured = {_key(one) for one in records.read(file)}
        records.append(file, [one for one in old if _key(one) not in measured])
    except BaseException:
        earlier.replace(file)
        raise
    earlier.unlink()
    return table.summary(next(iter(recipe.evaluate.classes), None))


def _key(record: Record) -> tuple[str, str, str]:
    return record.stage, record.target, record.metric


def main() -> None:
    """Read the command line and measure each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs of hardy train")
    try:
        for folder in parser.parse_args().runs:
            scores = {name: f"{value:.3f}" for name, value in again(folder).items()}
            print(f"{folder.name}: {scores}", flush=True)
    except InputError as error:
        parser.exit(2, f"_measure_again.py: {error}\n")


if __name__ == "__main__":
    main()
