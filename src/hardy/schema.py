"""The JSON schema of a recipe, with every method and its options: what an editor completes and checks recipes by."""

from typing import Any

from hardy.recipe import Recipe
from hardy.registry import ALGORITHMS, CRITERIA, LOSSES, NETWORKS, SCHEDULES, Registry

__all__ = ["schema"]


def schema() -> dict[str, Any]:
    """The JSON schema of a recipe, with every method and its options, for editors."""
    whole = Recipe.model_json_schema()
    for section, registry in {"algorithm": ALGORITHMS, "loss": LOSSES}.items():
        whole["properties"][section] = _choices(registry)
    recovery = {"anyOf": [*_choices(ALGORITHMS)["anyOf"], {"type": "null"}], "default": None}
    whole["$defs"]["Prune"]["properties"].update(
        criterion=_choices(CRITERIA), schedule=_choices(SCHEDULES), recover_with=recovery
    )
    network = _choices(NETWORKS)
    common = {key: value for key, value in whole["$defs"]["NetworkChoice"]["properties"].items() if key != "name"}
    for choice in network["anyOf"]:
        choice.get("properties", {}).update(common)
    origin = {"properties": {"name": {"const": ""}, **common}, "required": ["run"], "additionalProperties": False}
    network["anyOf"].append({"type": "object", **origin})
    whole["properties"]["network"] = network
    return whole


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
