"""`import_weights`: published weights as a Hardy network.

The publication (`hardy.networks.published`) is recognised by the tensor names in the file; the network's options follow
from names and shapes. Each tensor is loaded, or logged as dropped. No weight of the network stays random.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from hardy.data.label_spaces import LabelSpace, find_label_space
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.networks.building.create import create, unwarned
from hardy.networks.building.weights import fill, read_weights
from hardy.networks.published.base import Publication
from hardy.ops.tensors import DAMAGED
from hardy.registry import PUBLICATIONS

__all__ = ["Imported", "import_weights", "imported"]

_log = logging.getLogger("hardy")


@dataclass(frozen=True)
class Imported:
    """A network with published weights, and their source.

    Attributes:
        network: in evaluation mode.
        publication: its name in the registry.
        repository: the repository whose tensor names the file has.
        checked: what the name map was checked on: ``"files"``, ``"code"`` or ``"names"``; see `Publication`.
        channels: the channel order of the release; the network always takes RGB.
        used: number of tensors of the file that the network uses.
        dropped: name of each unused tensor -> reason.
    """

    network: Network
    publication: str
    repository: str
    checked: str
    channels: str
    used: int
    dropped: Mapping[str, str]


def import_weights(
    file: str | Path, classes: str | Path | LabelSpace, *, network: str | None = None, source: str | None = None
) -> Network:
    """The network of a published state dict, with its weights and its normalisation, in evaluation mode.

    Args:
        file: a published state dict; read without running its pickle code. Its classes must be those of ``classes`` in
            the same order; ``classes`` may leave out a last void class.
        classes: a label space, its name, or the path of a ``classes.yaml``.
        network: the required network; None accepts any.
        source: a publication of ``hardy list publication``; None recognises it by the names in the file.

    Raises:
        InputError: for a file that cannot be read, has no known publication or that of another network, has missing or
            unknown tensors, or predicts another number of classes.
    """
    return imported(file, classes, network=network, source=source).network


def imported(
    file: str | Path, classes: str | Path | LabelSpace, *, network: str | None = None, source: str | None = None
) -> Imported:
    """Like `import_weights`, also with the source and the tensors used and dropped; same arguments and errors."""
    label_space, found = find_label_space(classes), read_weights(file)
    name = _recognised(found, str(file), network, source)
    publication: Publication = PUBLICATIONS.build(name)
    try:
        return _filled(name, publication, found, label_space, str(file))
    except InputError as error:
        raise InputError(f"{file}: {str(error).removeprefix(f'{file}: ')}") from None
    except KeyError as error:
        raise InputError(f"{file}: lacks {error.args[0]}, which {publication.repository}'s files have") from None
    except DAMAGED as error:  # the name map fails on tensors of unexpected shapes
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise InputError(f"{file}: its tensors are not those of {publication.repository}'s files ({reason})") from None


def _filled(
    name: str, publication: Publication, found: Mapping[str, Tensor], label_space: LabelSpace, file: str
) -> Imported:
    weights = publication.published(found)
    count = publication.class_count(weights)
    if len(label_space) not in ((count, count - 1) if publication.void else (count,)):
        void = f", or {count - 1} without void, the last" if publication.void else ""
        raise InputError(f"predicts {count} classes{void}; label space {label_space.name!r} has {len(label_space)}")
    renamed = publication.renamed(weights)
    with unwarned():
        network = create(publication.network, label_space, **publication.options(weights))
    fill(network, publication.converted(renamed.weights, len(label_space)), file)
    network.renormalise(*publication.colours(weights))
    if len(label_space) < count:
        renamed.dropped[f"class {count - 1}"] = "void, which is no class"
    _log.info("%s of %s: %d tensors used", publication.network, publication.repository, len(renamed.weights))
    for dropped, why in renamed.dropped.items():
        _log.info("dropped %s: %s", dropped, why)
    parts = (publication.repository, publication.checked, publication.channels, len(renamed.weights), renamed.dropped)
    return Imported(network.eval(), name, *parts)


def _recognised(found: Mapping[str, Tensor], file: str, network: str | None, source: str | None) -> str:
    """The name of the publication of ``found``."""
    if source is not None:
        publication: Publication = PUBLICATIONS.build(source)
        if missing := publication.lacks(found):
            raise InputError(f"{file}: is not of {source} ({publication.repository}): it lacks {missing}")
        names = [source]
    else:
        names = [name for name in PUBLICATIONS if PUBLICATIONS.build(name).recognises(found)]
    known = {name: PUBLICATIONS.build(name) for name in names or PUBLICATIONS}
    shown = ", ".join(f"{name} ({one.repository})" for name, one in known.items())
    if not names:
        first = ", ".join(list(found)[:2])
        raise InputError(
            f"{file}: its names ({first}, ...) match no known publication{_nearest(known, found)}; known are: {shown}"
        )
    fitting = [name for name in names if network in (None, known[name].network)]
    if not fitting:
        raise InputError(f"{file}: holds weights of {known[names[0]].network}, as {shown}, not of {network}")
    if len(fitting) > 1:
        raise InputError(f"{file}: its names match more than one publication; choose one: {shown}")
    return fitting[0]


def _nearest(known: Mapping[str, Publication], found: Mapping[str, Tensor]) -> str:
    """A hint: the publication that matches the largest share of the names, and a tensor of it that is missing."""
    name, likeness = max(((name, one.likeness(found)) for name, one in known.items()), key=lambda pair: pair[1])
    return f"; nearest is {name}, but {known[name].lacks(found)} is missing" if likeness else ""
