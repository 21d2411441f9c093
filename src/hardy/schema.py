"""The JSON schema of a recipe, with every method and its options, so that editors can complete and check recipes."""

from typing import Any

from hardy.choices import Choice, choices
from hardy.recipe import Recipe
from hardy.registry import KINDS, Method, Registry
from hardy.sections import Section

__all__ = ["schema"]


def schema(recipe: type[Section] = Recipe) -> dict[str, Any]:
    """The JSON schema of ``recipe``, with the options of every method that its fields can choose."""
    root = recipe.model_json_schema()
    for choice in choices(recipe):
        *sections, name = choice.path.split(".")
        node = root
        for section in sections:
            node = _resolved(root, node["properties"][section])
        node["properties"][name] = _choice(root, choice)
    return root


def _resolved(root: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    """The section that ``value`` refers to; other alternatives, such as null, are skipped."""
    parts = [value, *value.get("anyOf", ()), *value.get("allOf", ())]
    reference = next(part["$ref"] for part in parts if "$ref" in part)
    section: dict[str, Any] = root["$defs"][reference.rsplit("/", 1)[1]]
    return section


def _choice(root: dict[str, Any], choice: Choice) -> dict[str, Any]:
    """The schema of a field that chooses a method; the other keys of its class are added to every method."""
    methods = _choices(choice.registry)
    model = root["$defs"][choice.model.__name__]
    common = {key: value for key, value in model["properties"].items() if key != "name"}
    for method in methods["anyOf"]:
        method.get("properties", {}).update(common)
    for origin in choice.model.origins[1:]:
        elsewhere = {"properties": {"name": {"const": ""}, **common}, "required": [origin]}
        methods["anyOf"].append({"type": "object", **elsewhere, "additionalProperties": False})
    return {"anyOf": [*methods["anyOf"], {"type": "null"}], "default": None} if choice.optional else methods


def _choices(registry: Registry) -> dict[str, Any]:
    choices = [
        {
            "type": "object",
            "description": method.purpose,
            "properties": {"name": {"const": method.name}, **_options(method)},
            "required": ["name"],
            "additionalProperties": False,
        }
        for method in map(registry.describe, registry)
    ]
    outside = {"type": "object", "properties": {"name": {"pattern": ":"}}, "required": ["name"]}
    return {"anyOf": [*choices, outside, {"enum": registry.names()}]}


def _options(method: Method, around: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The schemas of the options of ``method``, by name; an option whose keys are methods offers them with theirs.

    Inside methods of the kinds ``around``, methods of these kinds once more may have any option: a schema has an end.
    """
    found: dict[str, Any] = method.model.model_json_schema().get("properties", {})
    for option in method.options:
        if option.kind:
            found[option.name] = {
                "type": "object",
                "default": option.default,
                "properties": {
                    each.name: {"type": "object", "description": each.purpose}
                    | ({} if option.kind in around else _inside(each, around | {option.kind}))
                    for each in map(KINDS[option.kind].describe, KINDS[option.kind])
                },
                "patternProperties": {":": {"type": "object"}},
                "additionalProperties": False,
            }
    return found


def _inside(method: Method, around: frozenset[str]) -> dict[str, Any]:
    return {"properties": _options(method, around), "additionalProperties": False}
