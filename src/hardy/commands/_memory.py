"""A run that a Python call starts on a network in memory: as complete and as repeatable as one of the command line."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hardy.commands._progress import terminal
from hardy.engine import artefact, start, teachers
from hardy.engine.run import Run
from hardy.files import expanded
from hardy.networks.base import Network
from hardy.recipe import Recipe, from_values
from hardy.trust import allowing

__all__ = ["from_sections", "opened", "sections_of"]


def from_sections(network: Mapping[str, Any], **sections: Any) -> Recipe:
    """A checked recipe from nested sections."""
    return from_values({"network": network, **sections}, origin="arguments")


def sections_of(
    data: Sequence[str] | Mapping[str, Any],
    algorithm: str | Mapping[str, Any],
    loss: str | Mapping[str, Any],
    steps: int,
    optim: Mapping[str, Any] | None,
    evaluate: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """A recipe's sections from the arguments of a Python call."""
    return {
        "data": data if isinstance(data, Mapping) else {"sources": list(data)},
        "algorithm": {"name": algorithm} if isinstance(algorithm, str) else algorithm,
        "loss": {"name": loss} if isinstance(loss, str) else loss,
        "optim": {**(optim or {}), "steps": steps},
        "evaluate": dict(evaluate or {}),
    }


@contextmanager
def opened(
    network: Network,
    verb: str,
    sections: Mapping[str, Any],
    *,
    folder: str | Path | None,
    run: Mapping[str, Any] | None,
    trust: str | Iterable[str] = (),
    teacher: teachers.Given | None = None,
) -> Iterator[tuple[Run | None, Path | None]]:
    """A run of ``verb`` that starts from ``network``, and its folder where it is one that stays.

    The run is None where it is finished already. Without a folder it works in a temporary one. With one the network is
    kept in it as it was given, so that the recipe beside it repeats the run.

    Args:
        network: what the run starts from; it is not changed here.
        verb: ``train`` or ``prune``.
        sections: of the recipe, without ``network`` and ``run``.
        folder: where everything goes, ``run["folder"]`` being the same.
        run: the section ``run``.
        trust: modules whose code may run where a file names it.
        teacher: what an algorithm learns from; a network is kept as ``network`` is.

    Raises:
        InputError: for anything in the sections that cannot be used, or a network that could not be kept.
    """
    named = folder or (run or {}).get("folder")
    kept = expanded(named) if named else None
    if kept is not None:
        artefact.check(network)
    if teacher is not None:
        sections = {**sections, "teacher": teachers.section(teacher, kept)}
    with TemporaryDirectory() as scratch, allowing(trust):
        place = {**(run or {}), "folder": str(kept or scratch)}
        recipe = from_sections(start.section(network, kept), **sections, run=place)
        if kept is not None and (done := Run.finished(recipe, verb)):
            yield None, done
            return
        with Run.open(recipe, verb, terminal) as here:
            if kept is not None:
                here.keep_start(network)
            if isinstance(teacher, Network):
                here.learn_from(teacher, keep=kept is not None)
            yield here, kept
