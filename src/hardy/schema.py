"""The JSON schema of a recipe, with every method and its options: what an editor completes and checks recipes by."""

from typing import Any

from hardy.choices import Choice, choices
from hardy.recipe import Recipe
from hardy.registry import Registry
from hardy.sections import Section

__all__ = ["schema"]


def schema(recipe: type[Section] = Recipe) -> dict[str, Any]:
    """The JSON schema of ``recipe``, with every method that its fields choose and their options, for editors."""
    whole = recipe.model_json_schema()
    for choice in choices(recipe):
        *sections, name = choice.path.split(".")
        place = whole
        for section in sections:
            place = _resolved(whole, place["properties"][section])
        place["properties"][name] = _choice(whole, choice)
    return whole


def _resolved(whole: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    """The section that ``value`` refers to, among null and other values too."""
    parts = [value, *value.get("anyOf", ()), *value.get("allOf", ())]
    reference = next(part["$ref"] for part in parts if "$ref" in part)
    found: dict[str, Any] = whole["$defs"][reference.rsplit("/", 1)[1]]
    return found


def _choice(whole: dict[str, Any], choice: Choice) -> dict[str, Any]:
    """The schema of a field that chooses a method: what its class declares beside the name goes with every method."""
    found = _choices(choice.registry)
    model = whole["$defs"][choice.model.__name__]
    common = {key: value for key, value in model["properties"].items() if key != "name"}
    for method in found["anyOf"]:
        method.get("properties", {}).update(common)
    for origin in choice.model.origins[1:]:
        elsewhere = {"properties": {"name": {"const": ""}, **common}, "required": [origin]}
        found["anyOf"].append({"type": "object", **elsewhere, "additionalProperties": False})
    return {"anyOf": [*found["anyOf"], {"type": "null"}], "default": None} if choice.optional else found


def _choices(registry: Registry) -> dict[str, Any]:
    choices = [
        {
            "type": "object",
            "description": method.purpose,
            "properties": {"name": {"const": method.name}, **method.model.model_json_schema().get("properties", {})},
            "required": ["name"],
            "additionalProperties": False,
        }
        for method in map(registry.describe, registry)
    ]
    outside = {"type": "object", "properties": {"name": {"pattern": ":"}}, "required": ["name"]}
    return {"anyOf": [*choices, outside, {"enum": registry.names()}]}
