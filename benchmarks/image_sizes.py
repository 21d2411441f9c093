"""Images whose sides are no multiples of 32: scores of trained networks that see them as they are, and resized.

    python benchmarks/image_sizes.py RUN[@HxW] [RUN[@HxW] ...]

A run is measured on its own held-out and unseen images, with ``@HxW`` at that size; the scores are those on the masks.
Without resizing (`Network.multiple` of 1) the layers see the images as the files have them. In a recipe that names
classes (``evaluate.classes``) the score is the IoU of the first, else the mIoU.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

os.environ.setdefault("OMP_NUM_THREADS", "1")

import hardy
from hardy import recipe as recipes
from hardy.engine import protocol
from hardy.errors import InputError
from hardy.recipe import Recipe
from hardy.timing.hardware import fingerprint


def at(run: str) -> tuple[Path, Recipe]:
    """The folder and the recipe of ``run``, with the size that it names."""
    folder, _, size = run.partition("@")
    recipe = recipes.read(Path(folder) / "recipe.yaml")
    if not size:
        return Path(folder), recipe
    try:
        height, width = (int(side) for side in size.split("x"))
    except ValueError:
        raise InputError(f"{run}: {size!r} is not a size; write it as 360x480") from None
    return Path(folder), recipe.model_copy(update={"data": recipe.data.model_copy(update={"size": (height, width)})})


def scores(folder: Path, recipe: Recipe, multiple: int | None) -> tuple[float, float]:
    """The score in percent on known and on unseen domains; None for the network's own ``multiple``."""
    network = hardy.load(folder)
    if multiple is not None:
        network.multiple = multiple
    parts, settings = protocol.split(recipe.data, recipe.run.seed), protocol.Settings.of(recipe)
    named = [("source-val", part) for part in parts.val] + [("unseen", part) for part in parts.unseen]
    found = protocol.measure(network, named, settings).summary(next(iter(recipe.evaluate.classes), None))
    return 100 * found["intra"], 100 * found["unseen"]


def table(runs: Sequence[str]) -> None:
    """Print the scores of every run, and the means of the differences."""
    gains = []
    print("| run | images | known as they are % | resized % | unseen as they are % | resized % |")
    print("|---|---|---:|---:|---:|---:|")
    for folder, recipe in [at(run) for run in runs]:
        known, unseen = zip(*(scores(folder, recipe, multiple) for multiple in (1, None)), strict=True)
        gains.append((known[1] - known[0], unseen[1] - unseen[0]))
        size = "x".join(str(side) for side in recipe.data.size) if recipe.data.size else "as the files"
        numbers = " | ".join(f"{value:.1f}" for value in (*known, *unseen))
        print(f"| {folder.parents[1].name}/{folder.name} | {size} | {numbers} |", flush=True)
    means = [fmean(gain) for gain in zip(*gains, strict=True)]
    print(f"\nmean difference: known {means[0]:+.1f}, unseen {means[1]:+.1f}\n\n{fingerprint()}")


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN[@HxW]")
    try:
        table(parser.parse_args().runs)
    except InputError as error:
        parser.exit(2, f"image_sizes.py: {error}\n")


if __name__ == "__main__":
    main()
