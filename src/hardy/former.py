"""Former names of attributes, kept so that old code still runs."""

import warnings
from typing import Any

__all__ = ["FormerName"]


class FormerName:
    """A class attribute that reads and sets the attribute ``name`` under a former name, with a warning.

    Args:
        name: the current name of the attribute.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __set_name__(self, owner: type, former: str) -> None:
        self._advice = f"{owner.__name__}.{former} is now called {self.name}"

    def __get__(self, instance: object, owner: type) -> Any:
        value = getattr(owner if instance is None else instance, self.name)
        warnings.warn(self._advice, DeprecationWarning, stacklevel=2)
        return value

    def __set__(self, instance: object, value: Any) -> None:
        warnings.warn(self._advice, DeprecationWarning, stacklevel=2)
        setattr(instance, self.name, value)
