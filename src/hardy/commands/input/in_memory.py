"""A run that a Python call starts on a network in memory; recorded and repeatable like a run of the command line."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hardy.commands.output.progress import terminal
from hardy.engine import artefact, start, teachers
from hardy.engine.run import Run
from hardy.errors import InputError, quoted
from hardy.files import expanded
from hardy.networks.base import Network
from hardy.recipe import Recipe, from_values
from hardy.trust import allowing

__all__ = ["from_sections", "open_run", "references", "sections_of"]


def from_sections(network: Mapping[str, Any], **sections: Any) -> Recipe:
    """A checked recipe from its sections.

    Raises:
        InputError: for a section that cannot be used.
    """
    return from_values({"network": network, **sections}, origin="arguments")


def references(data: str | Sequence[str]) -> list[str]:
    """The domains in ``data``: one name, or several.

    Raises:
        InputError: for anything else.
    """
    names = [data] if isinstance(data, str) else list(data) if isinstance(data, Iterable) else [data]
    if not all(isinstance(name, str) for name in names):
        raise InputError(
            f"data {quoted(data)}: give domains such as ['camvid/0001TP'], or a section 'data' of a recipe"
        )
    return names


def sections_of(
    data: str | Sequence[str] | Mapping[str, Any],
    algorithm: str | Mapping[str, Any],
    loss: str | Mapping[str, Any],
    steps: int,
    optim: Mapping[str, Any] | None,
    evaluate: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """A recipe's sections from the arguments of a Python call."""
    return {
        "data": data if isinstance(data, Mapping) else {"sources": references(data)},
        "algorithm": {"name": algorithm} if isinstance(algorithm, str) else algorithm,
        "loss": {"name": loss} if isinstance(loss, str) else loss,
        "optim": {**(optim or {}), "steps": steps},
        "evaluate": dict(evaluate or {}),
    }


@contextmanager
def open_run(
    network: Network,
    verb: str,
    sections: Mapping[str, Any],
    *,
    folder: str | Path | None,
    run: Mapping[str, Any] | None,
    trust: str | Iterable[str] = (),
    teacher: teachers.Given | None = None,
) -> Iterator[tuple[Run | None, Path | None]]:
    """A run of ``verb`` that starts from ``network``, and its folder if it is permanent.

    The run is None if it is already finished. Without ``folder`` it works in a temporary folder. With ``folder`` the
    given network is saved there, so that the recipe in the folder can repeat the run.

    Args:
        network: the run starts from it; this function does not change it.
        verb: ``train`` or ``prune``.
        sections: the sections of the recipe, except ``network`` and ``run``.
        folder: for all files of the run; the same as ``run["folder"]``.
        run: the section ``run``.
        trust: modules whose code may run if a file names it.
        teacher: for an algorithm that learns from a teacher; a network in memory is saved like ``network``.

    Raises:
        InputError: for a section that cannot be used, or a network that cannot be saved.
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
