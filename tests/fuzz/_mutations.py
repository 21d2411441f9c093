"""Changes of bytes and of JSON-like values, drawn from a seeded generator; each says what it did."""

import copy
from random import Random
from typing import Any

__all__ = ["damaged", "perturbed", "places"]


def damaged(data: bytes, draw: Random) -> tuple[bytes, str]:
    """``data`` with a bit flipped, a piece cut, doubled, zeroed or written over; and what was done."""
    if not data:
        return b"\0", "one byte in an empty file"
    place = draw.randrange(len(data))
    length = draw.choice((1, 4, 64, 1024))
    how = draw.choice(("flip", "flip", "flip", "truncate", "cut", "double", "zero", "noise", "empty", "append"))
    changed = bytearray(data)
    if how == "flip":
        changed[place] ^= 1 << draw.randrange(8)
    elif how == "truncate":
        del changed[place:]
    elif how == "cut":
        del changed[place : place + length]
    elif how == "double":
        changed[place:place] = data[place : place + length]
    elif how == "zero":
        changed[place : place + length] = bytes(len(changed[place : place + length]))
    elif how == "noise":
        changed[place : place + length] = draw.randbytes(len(changed[place : place + length]))
    elif how == "empty":
        changed.clear()
    else:
        changed += draw.randbytes(length)
    return bytes(changed), f"{how} at byte {place} of {len(data)}"


RUBBISH: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    255,
    2**31,
    2**63,
    10**30,
    -(10**30),
    0.5,
    -1.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "a" * 5000,
    "\x00",
    "\u202e",
    "[/x]",
    "[red]x",
    "../../etc/passwd",
    "os:abort",
    "1e3",
    "\ud800",
    [],
    {},
    [[]],
    [None],
    {"": None},
    {"name": "x"},
    [0, 1, 2],
    [[0, 1], [2]],
    "[" * 3000,
)
"""Values of a wrong type, out of range, too long or too deep."""


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every entry inside ``value``."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, entry in inner:
        found += [(*path, key), *places(entry, (*path, key))]
    return found


def perturbed(value: Any, draw: Random, under: tuple[Any, ...] = ()) -> tuple[Any, str]:
    """A copy of the JSON-like ``value`` with one entry (below ``under``) gone, doubled, renamed, nested or rubbish."""
    changed = copy.deepcopy(value)
    inside = [path for path in places(changed) if path[: len(under)] == under]
    if not inside:
        return draw.choice(RUBBISH), "all of it"
    path = draw.choice(inside)
    holder = changed
    for key in path[:-1]:
        holder = holder[key]
    key, entry = path[-1], holder[path[-1]]
    how = draw.choice(("rubbish", "rubbish", "rubbish", "gone", "nested", "deep", "nudged", "renamed", "many"))
    if how == "gone":
        del holder[key]
    elif how == "nested":
        holder[key] = [entry]
    elif how == "deep":
        for _ in range(200):
            entry = [entry]
        holder[key] = entry
    elif how == "nudged" and isinstance(entry, int | float):
        holder[key] = draw.choice((entry + 1, entry - 1, -entry, entry * 1000, float(entry)))
    elif how == "renamed" and isinstance(holder, dict):
        holder[f"{key}x"] = holder.pop(key)
    elif how == "many":
        holder[key] = [entry] * 10_000
    else:
        holder[key] = copy.deepcopy(draw.choice(RUBBISH))
    return changed, f"{how}: {'.'.join(map(str, path))} ({str(entry)[:40]} -> {str(holder)[:60]})"
