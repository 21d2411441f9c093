"""The JSON schema of a recipe takes what the check takes, and refuses what it refuses."""

import json
import re
from pathlib import Path

import pytest
import yaml

from hardy.recipe import Recipe, read
from hardy.schema import schema

ROOT = Path(__file__).parents[1]
SHIPPED = sorted((ROOT / "recipes").glob("*.yaml"))
SMALL = {"network": {"name": "tiny"}, "data": {"sources": ["folder/day"]}}


@pytest.fixture(scope="module")
def whole():
    """The schema as an editor reads it."""
    return json.loads(json.dumps(schema()))


def fits(value, rule, root):
    """Whether ``value`` satisfies ``rule``, by the words of JSON Schema 2020-12."""
    if "$ref" in rule:
        target = root
        for part in rule["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return fits(value, target, root)
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    kind = rule.get("type")
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    checks = [
        "anyOf" not in rule or any(fits(value, each, root) for each in rule["anyOf"]),
        "oneOf" not in rule or sum(fits(value, each, root) for each in rule["oneOf"]) == 1,
        "const" not in rule or value == rule["const"],
        "enum" not in rule or value in rule["enum"],
        kind not in kinds or isinstance(value, kinds[kind]),
        kind != "number" or number,
        kind != "integer" or (number and value == int(value)),
        not number or value > rule.get("exclusiveMinimum", -float("inf")),
        not number or value < rule.get("exclusiveMaximum", float("inf")),
        not number or rule.get("minimum", -float("inf")) <= value <= rule.get("maximum", float("inf")),
        not isinstance(value, str) or re.search(rule.get("pattern", ""), value),
    ]
    if isinstance(value, list):
        inner = [*rule.get("prefixItems", []), *[rule.get("items", {})] * len(value)]
        checks.append(rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", len(value)))
        checks.extend(fits(each, its, root) for each, its in zip(value, inner, strict=False))
    if isinstance(value, dict):
        known, more = rule.get("properties", {}), rule.get("additionalProperties", True)
        checks.append(set(rule.get("required", ())) <= set(value))
        for name, each in value.items():
            patterns = [its for at, its in rule.get("patternProperties", {}).items() if re.search(at, name)]
            its = known.get(name, patterns[0] if patterns else {} if more is True else more)
            checks.append(its is not False and fits(each, its, root))
    return all(checks)


def variant(path, value):
    values = yaml.safe_load(SHIPPED[0].read_text(encoding="utf-8"))
    *parents, last = path.split(".")
    inner = values
    for name in parents:
        inner = inner.setdefault(name, {})
    inner[last] = value
    return values


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_schema_takes_the_shipped_recipes_and_their_completed_form(path, whole):
    assert fits(yaml.safe_load(path.read_text(encoding="utf-8")), whole, whole)
    assert fits(read(path).model_dump(mode="json"), whole, whole)


@pytest.mark.parametrize(
    ("path", "value", "right"),
    [
        ("network.width_of", 3, False),
        ("algorithm", {"name": "erm", "weight": 1}, False),
        ("algorithm", {"name": "theirs.module:Own", "weight": 1}, True),
        ("algorithm", {"name": "emr"}, False),
        ("loss", {"name": "ohem", "threshold": 0.5}, True),
        ("loss", {"name": "ohem", "treshold": 0.5}, False),
        ("optim.steps", 0, False),
        ("optim.steps", 10, True),
        ("optim.momentun", 0.9, False),
        ("data.crop", [64], False),
        ("teacher", {"run": "runs/x"}, True),
        ("teacher", {"run": "x", "onnx": None, "precision": "bf16"}, True),
        ("teacher", {"onnx": "x.onnx"}, True),
        ("teacher", {"run": "x", "onnx": "x.onnx"}, False),
        ("teacher", {}, False),
        ("teacher", {"run": "x", "precision": "fp16"}, False),
        ("teacher", None, True),
        ("teacher", [{"run": "x"}, {"onnx": "x.onnx"}], True),
        ("teacher", [{"run": "x", "onnx": "x.onnx"}], False),
        ("teacher", [], False),
        ("teacher", {"run": "x", "size": [64, 64], "precision": "auto", "cache_folder": "kept", "cache_mb": 5}, True),
        ("data.unlabelled", ["pictures"], True),
        ("data.unlabelled", "pictures", False),
        ("algorithm", {"name": "distillation", "losses": {"kl": {"temperature": 2.0}, "cwd": {}}}, True),
        ("algorithm", {"name": "distillation", "losses": {"theirs.module:Own": {"any": 1}}}, True),
        ("algorithm", {"name": "distillation", "losses": {"kll": {}}}, False),
        ("algorithm", {"name": "distillation", "losses": {"kl": {"tempreature": 2.0}}}, False),
        ("prune", {"ratio": 0.5, "criterion": {"name": "random"}}, True),
        ("prune", {"ratio": 0.5, "criterion": {"name": "randm"}}, False),
        ("adapt", {"name": "source", "reset": "never"}, True),
        ("adapt", {"name": "source", "reset": 5}, True),
        ("adapt", {"name": "source", "reset": 0}, False),
        ("adapt", {"name": "source", "reset": "often"}, False),
        ("adapt", {"name": "sorce"}, False),
        ("adapt", None, True),
        ("network", {"run": "runs/x"}, True),
        ("network", {"run": "runs/x", "width": 8}, False),
        ("section", {}, False),
    ],
)
def test_the_schema_and_the_check_agree(path, value, right, whole):
    assert fits(variant(path, value), whole, whole) is right


def test_the_schema_offers_every_method(whole):
    properties = whole["properties"]
    choices = properties["network"]["anyOf"]
    names = {choice["properties"]["name"].get("const") for choice in choices if "properties" in choice}
    assert {"tiny", "fast_scnn", "swiftnet"} <= names
    assert set(Recipe.model_fields) == set(properties)
