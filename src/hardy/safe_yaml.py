"""The only YAML reader: text from any source becomes plain values, or an error of one line.

In YAML a short text can expand to a huge value (an alias repeats its anchor), a tag calls a constructor, and a repeated
key hides the first one. So this reader limits size, depth, expansion and numbers. It refuses tags, repeated keys, NUL
characters and numbers in base 8 or 60. A date is read as text.
"""

import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.resolver import Resolver

from hardy.errors import InputError, quoted
from hardy.stored import contents

__all__ = ["CHARACTERS", "DEPTH", "VALUES", "parse", "read", "value"]

CHARACTERS = 2**20
"""The maximum length of a text."""

DEPTH = 24
"""The maximum nesting of lists and mappings; a recipe needs 6."""

VALUES = 50_000
"""The maximum number of values in a text after every alias is expanded."""

LARGEST = 2**63 - 1
"""The largest whole number."""

_OTHER_BASE = re.compile(r"[-+]?(0[0-7_]+$|.*:)")
"""Numbers that YAML reads in another way than most users expect: 010 is octal, 1:30 is 90 in base 60."""

_DIGITS = 70
"""The maximum length of the text of a whole number: 64 binary digits with sign and prefix."""


def read(path: Path | str) -> Any:
    """The value in the YAML file ``path``.

    Raises:
        InputError: for a file that cannot be read, is not YAML or exceeds a limit; the message names file and line.
    """
    try:
        text = contents(Path(path), 4 * CHARACTERS + 1).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return parse(text, str(path))


def parse(text: str, origin: str) -> Any:
    """The value of the YAML ``text``; ``origin`` is its name in messages.

    Raises:
        InputError: for text that is not YAML or exceeds a limit.
    """
    if len(text) > CHARACTERS:
        raise InputError(f"{origin}: more than {CHARACTERS:,} characters; a file of settings has a few thousand")
    try:
        return _Loader(text).get_single_data()
    except _BeyondError as error:
        raise InputError(f"{origin}: {error}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{origin}: not YAML: {_line(error)}") from None


def value(text: str, origin: str) -> Any:
    """The value of a short YAML ``text``, such as the value in an override."""
    try:
        yaml.compose(text[: CHARACTERS + 1], Loader=_Loader)
    except (yaml.YAMLError, ValueError):
        raise InputError(f"{origin}: {quoted(text)} is not a YAML value") from None
    except _BeyondError:
        pass
    return parse(text, origin)


class _BeyondError(Exception):
    """A text exceeds a limit."""


def _line(error: Exception) -> str:
    text = " ".join(str(error).replace('in "<unicode string>", ', "").split())
    return text if len(text) <= 300 else f"{text[:300]}..."


def _place(node: Any) -> str:
    return f"line {node.start_mark.line + 1}, column {node.start_mark.column + 1}"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with limits."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML has it
        first: [(tag, pattern) for tag, pattern in rules if tag != "tag:yaml.org,2002:timestamp"]
        for first, rules in Resolver.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            raise _BeyondError(f"{_place(event)}: the tag {quoted(event.tag)} is not used here; leave it out")
        if self.depth > DEPTH:
            raise _BeyondError(f"{_place(event)}: lists and mappings are nested more than {DEPTH} deep")
        self.depth += 1
        try:
            node = super().compose_node(parent, index)
        finally:
            self.depth -= 1
        if isinstance(node, ScalarNode) and "\0" in node.value:
            raise _BeyondError(f"{_place(node)}: {quoted(node.value)} holds a NUL character; leave it out")
        return node

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        node = super().compose_mapping_node(anchor)
        given: dict[str, Node] = {}  # checked here, because a merge adds other keys before values are made
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                raise _BeyondError(f"{_place(key)}: a key is a list or a mapping; keys are text")
            name = key.value if key.tag == "tag:yaml.org,2002:merge" else _text(self.construct_object(key))
            if name in given:
                first = given[name].start_mark.line + 1
                raise _BeyondError(f"{_place(key)}: {quoted(name)} was already given on line {first}; keep one of them")
            given[name] = key
        return node

    def get_single_data(self) -> Any:
        node = self.get_single_node()
        if node is None:
            return None
        if (count := _values(node, {})) > VALUES:
            raise _BeyondError(f"expands to {min(count, 10**12):,} values or more; at most {VALUES:,} are read")
        return self.construct_document(node)

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        return {_text(key): value for key, value in super().construct_mapping(node, deep).items()}

    def construct_yaml_int(self, node: ScalarNode) -> int:
        value = super().construct_yaml_int(node) if len(node.value) <= _DIGITS else LARGEST + 1
        if abs(value) > LARGEST:
            raise _BeyondError(f"{_place(node)}: {quoted(node.value)} is out of range; numbers end at {LARGEST}")
        if _OTHER_BASE.match(node.value):
            raise _BeyondError(f"{_place(node)}: {quoted(node.value)} is {value} in YAML; write that, or quote a text")
        return int(value)

    def construct_yaml_float(self, node: ScalarNode) -> float:
        value = super().construct_yaml_float(node)
        if ":" in node.value:
            raise _BeyondError(f"{_place(node)}: {quoted(node.value)} is {value} in YAML; write that, or quote a text")
        return float(value)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def _text(key: Any) -> str:
    """A key as text; numbers, truth values and null are written as in JSON."""
    return key if isinstance(key, str) else json.dumps(key)


def _values(node: Node, known: dict[int, int]) -> int:
    """The number of values in ``node`` after every alias is expanded; ``known`` is 0 for unfinished nodes."""
    if isinstance(node, ScalarNode):
        return 1
    if id(node) in known:
        if not known[id(node)]:
            raise _BeyondError(f"{_place(node)}: the anchored value contains itself; write it without an alias")
        return known[id(node)]
    known[id(node)] = 0
    within = node.value if isinstance(node, SequenceNode) else [part for pair in node.value for part in pair]
    known[id(node)] = 1 + sum(_values(part, known) for part in within)
    return known[id(node)]
