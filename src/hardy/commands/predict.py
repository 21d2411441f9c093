"""``hardy predict``: a palette PNG mask for every image, frame of a video or of a camera."""

import json as text
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from hardy.commands.output.printing import say, warn
from hardy.engine.adapting import chosen
from hardy.engine.pictures import Picture
from hardy.engine.predict import Predicted, predict, predict_all
from hardy.engine.predictor import network_of
from hardy.engine.run_folder import origin_of
from hardy.errors import InputError
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

    Words such as ``adapt.name=source`` in ``words`` make the network adapt; the run's seed decides its random draws.
    With ``watch`` the images of a folder that is being filled are predicted until a signal, or ``idle`` seconds.
    With ``address`` the machines of a Ray cluster share the images.

    Returns:
        the exit code: 1 if some images were skipped, else 0.

    Raises:
        InputError: what `hardy.engine.predict.predict_all` raises; when no image at all could be read.
    """
    adapt = chosen(None, words)
    options: dict[str, Any] = {"size": size, "window": window, "batch": batch, "device": device}
    if address is not None:
        refused = {"--watch": watch, "adapt": adapt, "--frames": frames, "--idle": idle}
        if wrong := [name for name, given in refused.items() if given]:
            raise InputError(f"--address: the images are shared, and {wrong[0]} needs them in order; leave it out")
        settings = Settings(folder, target, tuple(draw), trust=tuple(trust), **options)
        found = predict_on(address, source, settings, over=_over)
    else:
        seed = origin_of(folder).seed if adapt and folder.is_dir() else 0
        moving: dict[str, Any] = {"adapt": adapt, "seed": seed, "frames": frames, "watch": watch, "idle": idle}
        network = network_of(folder)
        found = predict_all(network, source, target, draw=draw, say=warn, over=_over, **options, **moving)
    _report(found, target, as_json=json, watched=watch)
    return 1 if found.skipped else 0


def _report(found: Predicted, target: Path, *, as_json: bool, watched: bool = False) -> None:
    """Print what was written and, on standard error, what was skipped; raise `InputError` if nothing was written.

    What was ``watched`` may have had no image, and its skipped images were reported before.
    """
    if not watched:
        if not found.masks:
            others = f" ({len(found.skipped)} images, none can be predicted)" if len(found.skipped) > 1 else ""
            raise InputError(next(iter(found.skipped.values())) + others)
        for reason in found.skipped.values():
            warn(f"skipped: {reason}")
    if as_json:
        report = {"masks": [str(mask) for mask in found.masks], "kept": found.kept, "skipped": found.skipped}
        report |= {"written": found.written, "waiting": found.waiting} if watched else {}
        Console(highlight=False, soft_wrap=True, color_system=None).print(text.dumps(report, indent=1), markup=False)
        return
    parts = [f"wrote {found.written} {'mask' if found.written == 1 else 'masks'} to {target}"]
    parts += [f"{found.kept} were there already"] if found.kept else []
    parts += [f"skipped {len(found.skipped)}"] if found.skipped else []
    parts += [f"{found.waiting} images wait for the same command"] if found.waiting else []
    say("; ".join(parts))


def _over(found: Iterable[Picture | None], count: int | None) -> Iterable[Picture | None]:
    """``found`` with a progress bar on a terminal."""
    screen = Console(stderr=True)
    return track(found, "predicting", total=count, console=screen, transient=True, disable=not screen.is_terminal)
