"""The lineage of a network: the teachers, losses and images that it was trained with.

A training with a teacher, or with images without labels, adds an entry to `Network.lineage`. The artefact keeps the
entries, also when the network is pruned, tuned or exported later, because the licence of a teacher may also apply to
networks that learned from it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hardy.data.unlabelled import Folders
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.sections import Method

__all__ = ["checked", "entry", "lines", "of_teacher", "teachers"]


def of_teacher(network: Network, place: str, sha256: str, of_file: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The description of a teacher in an entry.

    Args:
        network: the teacher's network.
        place: the run or the file that it was loaded from.
        sha256: the checksum of its weights or its file.
        of_file: the licence and origin that a file states for its initial weights; None reads them from the network's
            architecture.

    Returns:
        name, place, checksum and classes; if known, the licence and the origin of the encoder weights that it started
        from; and its own lineage, if it has one.
    """
    of_file = network.architecture.get("pretrained", {}) if of_file is None else of_file
    name = network.architecture.get("name") or type(network).__name__
    found: dict[str, Any] = {"name": name, "from": place, "sha256": sha256, "classes": network.label_space.name}
    found |= {key: of_file[key] for key in ("licence", "origin") if key in of_file}
    return found | ({"lineage": list(network.lineage)} if network.lineage else {})


def entry(
    stage: str, method: Method, teachers: Sequence[Mapping[str, Any]], images: Mapping[str, int], folders: Folders
) -> dict[str, Any]:
    """The entry of one training.

    Args:
        stage: the name of the training.
        method: the algorithm with its options, which include the losses and their weights.
        teachers: see `of_teacher`.
        images: domain -> the number of its training images.
        folders: folders of images without labels.
    """
    more = {"unlabelled": {name: len(paths) for name, paths in folders}} if folders else {}
    return {
        "stage": stage,
        "algorithm": method.name,
        "options": method.options,
        "teachers": [dict(teacher) for teacher in teachers],
        "images": dict(images),
        **more,
    }


def checked(value: Any) -> tuple[Mapping[str, Any], ...]:
    """The lineage that a file holds.

    Raises:
        InputError: for anything that `entry` did not write.
    """
    kinds = {"stage": str, "algorithm": str, "options": dict, "teachers": list, "images": dict}
    right = isinstance(value, list) and all(
        isinstance(each, dict)
        and all(isinstance(each.get(key), kind) for key, kind in kinds.items())
        and all(isinstance(teacher, dict) and isinstance(teacher.get("name"), str) for teacher in each["teachers"])
        and isinstance(each.get("unlabelled", {}), dict)
        for each in value
    )
    if not right:
        raise InputError("lineage: is not a list of what the network learned from; save the network again")
    return tuple(value)


def lines(lineage: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each entry: the algorithm with its losses, the teachers and the images."""
    for each in lineage:
        options = each["options"]
        losses = options.get("losses")
        how = ", ".join(_loss(name, of) for name, of in losses.items()) if isinstance(losses, dict) else ""
        teachers = "; ".join(map(_teacher, each["teachers"]))
        images = [f"{name} ({count})" for name, count in {**each["images"], **each.get("unlabelled", {})}.items()]
        whom = f" from {teachers}" if teachers else ""
        yield f"learned by {each['algorithm']}{f' ({how})' if how else ''}{whom}, on images of {', '.join(images)}"


def teachers(lineage: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """All teachers in ``lineage``, each followed by those that it learned from itself."""
    found: list[Mapping[str, Any]] = []
    for each in lineage:
        for teacher in each["teachers"]:
            found += [teacher, *teachers(teacher.get("lineage", ()))]
    return found


def _loss(name: str, options: Any) -> str:
    return f"{name} {options['weight']:g}" if isinstance(options, dict) and "weight" in options else name


def _teacher(teacher: Mapping[str, Any]) -> str:
    licence = f"weights under {teacher['licence']}" if "licence" in teacher else "licence unknown"
    place = f" of {teacher['from']}" if teacher.get("from") not in (None, teacher["name"]) else ""
    taught = "; ".join(_teacher(each) for each in _teachers_of(teacher))
    own = f", which learned from {taught}" if taught else ""
    return f"{teacher['name']}{place} (sha256 {str(teacher.get('sha256'))[:12]}, {licence}){own}"


def _teachers_of(teacher: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The teachers of ``teacher``."""
    return [each for learned in teacher.get("lineage", ()) for each in learned["teachers"]]
