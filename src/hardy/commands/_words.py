"""What words of the command line mean: sizes, and options of data sets."""

from hardy import safe_yaml
from hardy.errors import InputError, quoted

__all__ = ["nested", "size_of"]


def size_of(text: str | None) -> tuple[int, int] | None:
    """(height, width) of ``HEIGHTxWIDTH``; None of None.

    Raises:
        InputError: for anything else.
    """
    if text is None:
        return None
    height, cross, width = text.lower().partition("x")
    if not (cross and height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise InputError(f"size {quoted(text)} is not HEIGHTxWIDTH, such as 512x1024")
    return int(height), int(width)


def nested(texts: list[str] | None) -> dict[str, dict[str, object]]:
    """``{"streets": {"test": 20}}`` of ``["streets.test=20"]``.

    Raises:
        InputError: for a text that is not ``name.option=value``, or a value that is not YAML.
    """
    options: dict[str, dict[str, object]] = {}
    for text in texts or ():
        path, sign, value = text.partition("=")
        name, dot, option = path.partition(".")
        if not (sign and dot):
            raise InputError(
                f"data set option {quoted(text)} is not of the form name.option=value, such as streets.test=20"
            )
        options.setdefault(name, {})[option] = safe_yaml.value(value, f"data set option {quoted(text)}")
    return options
