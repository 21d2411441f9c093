"""``hardy predict``: write a palette PNG mask for every image, or every frame of a video or camera."""

import json as text
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from hardy.commands.output.printing import bar, say, warn
from hardy.engine.adapting import chosen
from hardy.engine.pictures import Picture
from hardy.engine.predict import Predicted, predict, predict_all
from hardy.engine.predictor import network_of
from hardy.engine.run_folder import origin_of
from hardy.engine.source_images import of_run
from hardy.errors import InputError
from hardy.sections import Adapt
from hardy.studies.shared_prediction import Settings, predict_on

__all__ = ["predict", "run"]


def run(
    folder: Path,
    source: str,
    target: Path,
    *,
    size: Sequence[int] | None,
    window: Sequence[int] | None,
    draw: Sequence[str],
    device: str,
    words: Sequence[str] = (),
    batch: int = 1,
    frames: int | None = None,
    watch: bool = False,
    idle: float | None = None,
    address: str | None = None,
    trust: Sequence[str] = (),
    json: bool = False,
) -> int:
    """Predict every image of ``source`` with the network in ``folder`` and write masks to ``target``.

    ``words`` such as ``adapt.name=source`` make the network adapt; the run's seed seeds its random draws, and a method
    that is not source-free gets images of the run's sources. With ``watch`` it also predicts new images in the folder
    until a signal, or until ``idle`` seconds pass without a new image. With ``address`` the machines of a Ray cluster
    share the images.

    Returns:
        The exit code: 1 if some images were skipped, else 0.

    Raises:
        InputError: as `hardy.engine.predict.predict_all`, and if no image could be read.
    """

    adapt = chosen(None, words)
    options: dict[str, Any] = {"size": size, "window": window, "batch": batch, "device": device}
    if address is not None:
        _refuse_one_machine({"--watch": watch, "adapt": adapt, "--frames": frames, "--idle": idle})
        settings = Settings(folder, target, tuple(draw), trust=tuple(trust), **options)
        found = predict_on(address, source, settings, over=_over)
    else:
        moving: dict[str, Any] = {"frames": frames, "watch": watch, "idle": idle, **_adapting(adapt, folder)}
        network = network_of(folder)
        found = predict_all(network, source, target, draw=draw, say=warn, over=_over, **options, **moving)
    _report(found, target, as_json=json, watched=watch)
    return 1 if found.skipped else 0


def _over(found: Iterable[Picture | None], count: int | None) -> Iterable[Picture | None]:
    return bar(found, "predicting", count)


def _refuse_one_machine(options: Mapping[str, object]) -> None:
    """Raise `InputError` for an option that is given and needs a single machine."""
    if wrong := [name for name, given in options.items() if given]:
        raise InputError(f"--address: several machines predict, but {wrong[0]} needs one; leave out one of the two")


def _adapting(adapt: Adapt | None, folder: Path) -> dict[str, Any]:
    """The arguments of `predict_all` for ``adapt``, with the seed and the source images of the run in ``folder``."""
    if adapt is None or not folder.is_dir():
        return {"adapt": adapt}
    origin = origin_of(folder)
    images = of_run(origin)
    return {"adapt": adapt, "seed": origin.seed, "source_images": images and bar(images, "source images")}


def _report(found: Predicted, target: Path, *, as_json: bool, watched: bool = False) -> None:
    """Print what was written and, on standard error, what was skipped.

    With ``watched``, no image is not an error, and the skipped images were already reported.

    Raises:
        InputError: if there is no mask and the source was not ``watched``.
    """
    if not watched:
        if not found.masks:
            others = f" (none of {len(found.skipped)} images can be predicted)" if len(found.skipped) > 1 else ""
            raise InputError(next(iter(found.skipped.values())) + others)
        for reason in found.skipped.values():
            warn(f"skipped: {reason}")
    if as_json:
        report = {"masks": [str(mask) for mask in found.masks], "kept": found.kept, "skipped": found.skipped}
        report |= {"written": found.written, "waiting": found.waiting} if watched else {}
        report |= {"guard": found.guard.lines()} if found.guard else {}
        Console(highlight=False, soft_wrap=True, color_system=None).print(text.dumps(report, indent=1), markup=False)
        return
    parts = [f"wrote {found.written} {'mask' if found.written == 1 else 'masks'} to {target}"]
    parts += [f"{found.kept} already existed"] if found.kept else []
    parts += [f"skipped {len(found.skipped)}"] if found.skipped else []
    parts += [f"{found.waiting} images are left; run the same command again"] if found.waiting else []
    say("; ".join(parts))
    for line in found.guard.lines() if found.guard else ():
        say(line)
