"""``hardy predict``: a palette PNG mask for every image."""

from collections.abc import Sequence
from pathlib import Path

from hardy.commands.output.printing import say
from hardy.engine import artefact
from hardy.engine.adapting import chosen
from hardy.engine.predict import predict
from hardy.engine.run_folder import origin_of
from hardy.ops.tensors import check_finite

__all__ = ["predict", "run"]


def run(
    folder: Path,
    source: Path,
    target: Path,
    *,
    size: Sequence[int] | None,
    window: Sequence[int] | None,
    overlay: bool,
    device: str,
    words: Sequence[str] = (),
) -> None:
    """Predict every image of ``source`` with the network in ``folder`` and write masks to ``target``.

    Words such as ``adapt.name=source`` in ``words`` make the network adapt; the run's seed decides its random draws.
    """
    adapt = chosen(None, words)
    network = artefact.load(folder)
    check_finite(network, folder)
    files = predict(
        network,
        source,
        target,
        size=size,
        window=window,
        overlay=overlay,
        device=device,
        adapt=adapt,
        seed=origin_of(folder).seed if adapt else 0,
    )
    say(f"wrote {len(files)} {'mask' if len(files) == 1 else 'masks'} to {target}")
