"""Trust in code outside Hardy: names typed in this call may run, names in a file need the user's trust.

``"module:Class"`` and a factory ``"module:function"`` import their module, and importing runs its code. Code that reads
names from a file does so inside `from_file`, and calls `permit` before it imports such a name.
``tests/cli/test_trust.py`` lists all these places.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from hardy.errors import InputError

__all__ = ["allow", "allowing", "from_file", "names_in", "names_typed", "permit"]

_WORD = re.compile(r"[^\s,\[\]{}'\"]+")
"""The words of a YAML value, such as those of ``{name: my_module:Mine}``."""

_OUTSIDE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")

_in_file: ContextVar[bool] = ContextVar("in_file", default=False)
_allowed: ContextVar[frozenset[str]] = ContextVar("allowed", default=frozenset())


@contextmanager
def from_file(trust: str | Iterable[str] = ()) -> Iterator[None]:
    """Inside the block names come from a file: only code of modules in ``trust``, or allowed before, may run."""
    token = _in_file.set(True)
    try:
        with allowing(trust):
            yield
    finally:
        _in_file.reset(token)


@contextmanager
def allowing(trust: str | Iterable[str]) -> Iterator[None]:
    """Inside the block the modules, packages or single ``"module:name"`` in ``trust`` may also run."""
    token = _allowed.set(_allowed.get())
    try:
        allow(trust)
        yield
    finally:
        _allowed.reset(token)


def allow(trust: str | Iterable[str]) -> None:
    """Allow code of the modules, packages or single ``"module:name"`` in ``trust`` until the surrounding block ends."""
    _allowed.set(_allowed.get() | frozenset([trust] if isinstance(trust, str) else trust))


def permit(kind: str, name: str) -> None:
    """Refuse to run the code of the ``kind`` called ``name``, such as ``"module:Class"``, if a file named it.

    Raises:
        InputError: when it is not trusted; the message says how to allow it.
    """
    module = name.partition(":")[0]
    parents = {module[:index] for index, letter in enumerate(module) if letter == "."}
    if _in_file.get() and not {name, module, *parents} & _allowed.get():
        raise InputError(
            f"{kind} {name!r} is named in a file and would run code of module {module!r}; to allow that in this call: "
            f"--trust {module}, in Python trust=[{module!r}]"
        )


def names_in(value: Any) -> set[str]:
    """Every ``"module:name"`` in a value of nested mappings and lists."""
    if isinstance(value, str):
        name = value.partition("/")[0]  # a domain is "module:Class/name"
        return {name} if _OUTSIDE.fullmatch(name) else set()
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    keys = [key for key in value if isinstance(key, str)] if isinstance(value, Mapping) else []
    return set().union(*(names_in(each) for each in (*inner, *keys)))


def names_typed(words: Iterable[str]) -> set[str]:
    """Every ``"module:name"`` in domains and in overrides ``key=value``, as a key or inside the value."""
    names: set[str] = set()
    for word in words:
        path, _, value = word.partition("=")
        names |= names_in([path, *path.split("."), *_WORD.findall(value)])
    return names
