"""Networks to and from a folder or the Hugging Face hub: `push` writes an artefact with a card, `pull` checks one.

A pushed folder holds ``network.safetensors``, ``network.json``, ``records.jsonl`` and the card ``README.md``; no code
and no pickle. A tuned network is pushed with all its weights. The hub is reached through the library huggingface_hub,
and only by an address ``hf-hub:OWNER/NAME``.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path, PurePath, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import Any

import huggingface_hub
from huggingface_hub.errors import LocalTokenNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

from hardy import records
from hardy.engine import artefact
from hardy.engine.card import card
from hardy.engine.run_folder import origin_of
from hardy.errors import InputError, quoted
from hardy.files import expanded, write_together
from hardy.networks.base import Network
from hardy.networks.parts.encoder_errors import reason
from hardy.networks.parts.hub import HUB, no_retries_shown
from hardy.stored import contents

__all__ = ["pull", "push"]

_FILES = ("network.safetensors", "network.json", "records.jsonl", "README.md")
_NEEDED = 2
"""The first so many of the files must be there."""


def push(folder: Path | str, to: str, *, licence: str | None = None, public: bool = False) -> str:
    """Write the network of the run in ``folder``, its records and its card to ``to``.

    Args:
        folder: a run's folder.
        to: a new or empty folder or one that was pushed to before; or ``hf-hub:OWNER/NAME``, which is made, private
            unless ``public``.
        licence: of the network, such as ``apache-2.0``; the card says so when it is not stated.
        public: let everybody read a new repository of the hub.

    Returns:
        where it is.

    Raises:
        InputError: for a folder without a network, a target that cannot be used, or a hub that cannot be reached.
    """
    folder = expanded(folder)
    network = artefact.load(folder)
    repository = _repository(to)[0] if to.startswith(HUB) else None
    if public and not repository:
        raise InputError(f"--public is for the hub; {to} is a folder")
    target = None if repository else _target(expanded(to), again=True)
    with TemporaryDirectory() as work:
        made = _written(network, folder, Path(work), to, licence)
        if target is not None:
            target.mkdir(parents=True, exist_ok=True)
            write_together({target / name: data for name, data in made.items()})
            return str(target)
        hub = huggingface_hub.HfApi()
        _asked(to, lambda: hub.create_repo(str(repository), private=not public, exist_ok=True))
        sent: Any = _asked(
            to, lambda: hub.upload_folder(repo_id=str(repository), folder_path=work, commit_message="hardy push")
        )
        return str(sent)


def pull(source: str, folder: Path | str, *, trust: str | Iterable[str] = ()) -> Network:
    """Fetch the network at ``source`` into ``folder``, load it, and keep it only when it is whole.

    Args:
        source: a folder that `push` wrote, or ``hf-hub:OWNER/NAME``, with ``@REVISION`` for one version of it.
        folder: new or empty.
        trust: see `hardy.load`.

    Raises:
        InputError: when there is no network, a damaged one, or one with code that is not trusted; for a folder that
            holds something, or a hub that cannot be reached. Then nothing is written.
    """
    target = _target(expanded(folder), again=False)
    with TemporaryDirectory() as work:
        at = Path(work)
        if source.startswith(HUB):
            name, revision = _repository(source)
            get = huggingface_hub.snapshot_download
            _asked(source, lambda: get(name, revision=revision, allow_patterns=list(_FILES), local_dir=work))
        else:
            at = expanded(source)
        found = {name: contents(at / name) for name in _FILES if (at / name).is_file()}
        if len(found.keys() & set(_FILES[:_NEEDED])) < _NEEDED:
            raise InputError(f"{source}: holds no {' and '.join(_FILES[:_NEEDED])}; hardy push writes both")
        checked = Path(work, "checked")
        checked.mkdir()
        write_together({checked / name: data for name, data in found.items()})
        try:
            artefact.load(checked, trust=trust)
        except InputError as error:
            raise InputError(str(error).replace(str(checked), source)) from None
        target.mkdir(parents=True, exist_ok=True)
        write_together({target / name: data for name, data in found.items()})
    return artefact.load(target, trust=trust)


def _written(network: Network, folder: Path, work: Path, address: str, licence: str | None) -> dict[str, bytes]:
    """The pushed files by name; they are also in ``work``."""
    artefact.save(network, work, complete=True)
    file = folder / "records.jsonl"
    found = [replace(each, notes=_public(each.notes)) for each in (records.read(file) if file.is_file() else [])]
    lines = [json.dumps(asdict(each), sort_keys=True) + "\n" for each in found]
    (work / "records.jsonl").write_text("".join(lines), encoding="utf-8")
    name = address.removeprefix(HUB).rstrip("/").split("/")[-1]
    sha256 = artefact.saved_checksum(work)
    shown = address if address.startswith(HUB) else "FOLDER"  # a path may identify its author
    recipe = origin_of(folder).recipe
    data = recipe.data if recipe and recipe.data.sources else None
    text = card(network, name, found, sha256=sha256, licence=licence, address=shown, data=data)
    (work / "README.md").write_text(text, encoding="utf-8")
    return {each: contents(work / each) for each in _FILES}


def _public(value: Any) -> Any:
    """``value`` with the folders of absolute paths left out, since they may identify their author."""
    if isinstance(value, dict):
        return {key: _public(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_public(inner) for inner in value]
    away = isinstance(value, str) and (value.startswith("~") or any(k(value).is_absolute() for k in _SYSTEMS))
    return PureWindowsPath(value).name if away else value


_SYSTEMS = (PurePath, PureWindowsPath)


def _target(folder: Path, *, again: bool) -> Path:
    """``folder`` if it may be written: it is missing or empty or, if ``again``, holds only what `push` writes."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a folder")
    other = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if other and not (again and other <= set(_FILES)):
        raise InputError(f"{folder}: is not empty (it holds {min(other)}); give a new folder")
    return folder


def _repository(address: str) -> tuple[str, str | None]:
    """OWNER/NAME and the revision of ``hf-hub:OWNER/NAME@REVISION``."""
    name, _, revision = address.removeprefix(HUB).partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise InputError(f"{quoted(address)}: is not of the form hf-hub:OWNER/NAME")
    return name, revision or None


def _asked(address: str, call: Callable[[], Any]) -> Any:
    """What ``call`` gets from the hub.

    Raises:
        InputError: when the hub cannot be reached or refuses.
    """
    try:
        with no_retries_shown():
            return call()
    except LocalTokenNotFoundError:
        raise InputError(f"{address}: needs a login of the hub; run: hf auth login") from None
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise InputError(f"{address}: is not on the hub, or not for this login; see hf auth whoami") from None
    except Exception as error:  # the library raises errors of several others, such as httpx
        raise InputError(
            f"{address}: the hub did not answer or refused; use a local folder ({reason(error)})"
        ) from None
