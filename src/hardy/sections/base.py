"""What all sections of a recipe share: their base, the choice of a method, and the mark of a field that names one."""

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from hardy.ranges import no_truth_as_number

__all__ = ["Kind", "Method", "Section"]


@dataclass(frozen=True)
class Kind:
    """Marks a field that names a method, with the kind of method as in ``hardy list``.

    On a `Method` it is the registry of the name and the options. On a mapping, the keys are methods and the values
    their options. On a tuple, each entry begins with a method's name and a slash. Completion, overrides, checks, digest
    and JSON schema follow from it (`hardy.choices`).
    """

    name: str


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, values are finite and immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    _truth = field_validator("*", mode="wrap")(no_truth_as_number)


class Method(BaseModel):
    """A chosen method: its name and its options, ``{name: ior, alpha: 1.0}``; a bare name has no options."""

    model_config = ConfigDict(extra="allow", frozen=True)
    origins: ClassVar[tuple[str, ...]] = ("name",)
    """The keys that choose the method: an override of one of them replaces the others and the options."""
    name: str

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        """The options without the name."""
        return dict(self.model_extra or {})
