"""Types of settings with their ranges, for the sections of a recipe; pydantic checks them."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

__all__ = [
    "MOST_IMAGES",
    "MOST_PIXELS",
    "MOST_THREADS",
    "Count",
    "Every",
    "Factor",
    "Images",
    "Multiple",
    "Reset",
    "Share",
    "Side",
    "Size",
    "Steps",
    "no_truth_as_number",
]

MOST_PIXELS = 2**27
"""The maximum number of pixels of a size, 134 megapixels."""

MOST_THREADS = 1024
"""The maximum number of threads; on most machines more would end the process."""

MOST_IMAGES = 2**16
"""The maximum number of images in memory at once."""


def _area(size: tuple[int, int]) -> tuple[int, int]:
    if size[0] * size[1] > MOST_PIXELS:
        raise ValueError(f"is (height, width) of {size[0] * size[1]:,} pixels; give at most {MOST_PIXELS:,}")
    return size


Side = Annotated[int, Field(gt=0, le=2**16)]
Size = Annotated[tuple[Side, Side], AfterValidator(_area)]
Share = Annotated[float, Field(gt=0, lt=1)]
Steps = Annotated[int, Field(ge=0, le=10**9)]
Count = Annotated[int, Field(gt=0, le=10**9)]
"""A number of steps, images or channels."""
Images = Annotated[int, Field(gt=0, le=MOST_IMAGES)]
Factor = Annotated[float, Field(gt=0, le=16)]
"""A factor on the size of an image."""


def _multiple(value: int | str) -> int | str:
    if value != "auto" and (isinstance(value, str) or not 1 <= value <= 10**9):
        raise ValueError("give a whole number from 1 up, or auto")
    return value


Multiple = Annotated[
    int | str,
    AfterValidator(_multiple),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "auto"}]}),
]


def _reset(value: object) -> object:
    counts = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10**9
    if value not in ("domain", "never") and not counts:
        raise ValueError("give domain, never, or a whole number of images from 1 up")
    return value


Reset = Annotated[
    int | str,
    BeforeValidator(_reset),
    WithJsonSchema({"anyOf": [{"enum": ["domain", "never"]}, {"type": "integer", "minimum": 1}]}),
]


def _every(value: object) -> object:
    counts = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10**9
    if value != "measured" and not counts:
        raise ValueError("give measured, or a whole number of batches from 1 up")
    return value


Every = Annotated[
    int | str,
    BeforeValidator(_every),
    WithJsonSchema({"anyOf": [{"const": "measured"}, {"type": "integer", "minimum": 1}]}),
]


def no_truth_as_number(value: Any, check: Callable[[Any], Any]) -> Any:
    """The checked ``value`` of a setting; for pydantic, which reads true as the number 1.

    Raises:
        ValueError: for a truth value (also in a list) where a number is expected.
    """
    checked = check(value)
    if _truth_values(value) > _truth_values(checked):
        raise ValueError("a truth value is not a number; give a number")
    return checked


def _truth_values(value: Any) -> int:
    """The number of truth values in ``value``, a list or one value."""
    inner = value if isinstance(value, list | tuple) else [value]
    return sum(isinstance(each, bool) for each in inner)
