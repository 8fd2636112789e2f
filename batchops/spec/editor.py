"""The JSON Schema of a job, for editors: made from the model, so it cannot say anything else."""

from __future__ import annotations

from typing import Any, Final

from batchops.spec.checks import LATER
from batchops.spec.job import JobSpec

_NOISE: Final = ("title", "discriminator")


def job_schema() -> dict[str, Any]:
    """A schema that accepts a job, key by key described. Cross-checks are `validate`'s part."""
    made = _tidy(JobSpec.model_json_schema(by_alias=True))
    definitions = made.pop("$defs")
    properties = made["properties"]
    for name in LATER:
        properties[name] = {"description": properties[name]["description"], "not": {}}
    definitions["Source"]["properties"]["attach"]["not"] = {}
    definitions["Source"]["oneOf"] = _one_of("query", "file")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A job of batchops",
        **made,
        "patternProperties": {"^x-": {"description": "Ignored: a home for anchors."}},
        "oneOf": _one_of("template", "body"),
        "$defs": definitions,
    }


def _one_of(*names: str) -> list[dict[str, Any]]:
    return [{"required": [name]} for name in names]


def _tidy(node: Any) -> Any:
    """Without titles, and without null: a key that is not meant is left out."""
    if isinstance(node, list):
        return [_tidy(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    names = node.get("properties")
    tidy = {word: _tidy(value) for word, value in node.items() if word not in _NOISE and word != "properties"}
    if isinstance(names, dict):
        tidy["properties"] = {name: _tidy(inner) for name, inner in names.items()}
    if tidy.get("default", 0) is None or isinstance(tidy.get("default"), dict):
        del tidy["default"]
    choices = [choice for choice in tidy.get("anyOf", []) if choice != {"type": "null"}]
    if len(choices) == 1:
        del tidy["anyOf"]
        return {**choices[0], **tidy}
    return tidy
