"""Answer schemas: is it a JSON Schema, is it in the strict subset of structured outputs, what would it have to be.

The subset is that of the structured-outputs guide (2026-08). Nothing here ever fetches: jsonschema-rs follows remote
references when it is let, so `validator` refuses them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import jsonschema_rs

from batchops.spec.document import Path

_DOCUMENTED: Final = (
    "type properties required additionalProperties items enum const anyOf $ref $defs definitions description title "
    "$schema $id $comment pattern format multipleOf minimum maximum exclusiveMinimum exclusiveMaximum minItems maxItems"
)
_KNOWN: Final = frozenset(_DOCUMENTED.split())
_REFUSED: Final = {
    "oneOf": "write anyOf",
    "allOf": "write the merged schema",
    "default": "every property is required",
    **dict.fromkeys(("not", "if", "then", "else", "dependentRequired", "dependentSchemas"), "leave it out"),
}
_UNTUNED: Final = "minLength maxLength pattern format minimum maximum multipleOf patternProperties minItems maxItems"
_FINE_TUNED: Final = frozenset(_UNTUNED.split())
_FORMATS: Final = frozenset(("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"))
_DRAFTS: Final = frozenset(
    ["https://json-schema.org/draft/2020-12/schema", "https://json-schema.org/draft/2019-09/schema"]
    + [f"http://json-schema.org/draft-0{number}/schema" for number in (4, 6, 7)]
)
_MAX_PROPERTIES: Final = 5000
_MAX_LEVELS: Final = 10
_MAX_NAME_CHARACTERS: Final = 120_000
_MAX_ENUM_VALUES: Final = 1000
_LONG_ENUM, _LONG_ENUM_CHARACTERS = 250, 15_000


@dataclass(frozen=True)
class Problem:
    """What is wrong with a schema, and where in it. Not every problem is an error: some keywords are only unproven."""

    path: Path
    why: str
    is_error: bool = True
    at_key: bool = False
    """Whether the last step of the path is the word that is wrong, and not what stands there."""

    @property
    def pointer(self) -> str:
        """`$.properties.tags.items`, for people."""
        return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path)


def validator(schema: Mapping[str, Any]) -> jsonschema_rs.Validator:
    """A compiled validator that never fetches. Raises ValueError for what is not a schema or refers elsewhere."""
    if (problem := check(schema)) is not None:
        raise ValueError(f"{problem.pointer}: {problem.why}")
    return jsonschema_rs.validator_for(dict(schema), retriever=_refuse)


def check(schema: Mapping[str, Any]) -> Problem | None:
    """The first reason why this is no usable JSON Schema; None when it is one."""
    declared = schema.get("$schema")
    if declared is not None and str(declared).removesuffix("#") not in _DRAFTS:
        return Problem(("$schema",), "it is no draft that is known here")
    try:
        jsonschema_rs.meta.validate(dict(schema))
    except jsonschema_rs.ValidationError as problem:
        return Problem(tuple(problem.instance_path), _short(problem.message))
    for path, node in subschemas(schema):
        if (why := _reference_problem(node, schema)) is not None:
            return Problem((*path, "$ref"), why)
    try:
        jsonschema_rs.validator_for(dict(schema), retriever=_refuse)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as problem:
        return Problem(tuple(getattr(problem, "instance_path", ())), _short(str(problem).partition("\n")[0]))
    return None


def lint(schema: Mapping[str, Any], *, fine_tuned: bool = False) -> tuple[Problem, ...]:
    """Everything in which a schema departs from the strict subset, outer parts first."""
    problems: list[Problem] = []
    if schema.get("type") != "object" or "anyOf" in schema:
        problems.append(Problem((), "the root must be an object, and not anyOf"))
    for path, node in subschemas(schema):
        problems += _node_problems(path, node, is_root=not path, fine_tuned=fine_tuned)
    return (*problems, *_size_problems(schema))


def strictify(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What the schema would have to be: all properties required, optional ones nullable, no others, no refused words.

    A root that is no object becomes the property `answer` of one.
    """
    strict: dict[str, Any] = _strict(copy.deepcopy(dict(schema)), schema, ())
    if strict.get("type") == "object" and "anyOf" not in strict:
        return strict
    definitions: dict[str, Any] = {name: strict.pop(name) for name in ("$defs", "definitions") if name in strict}
    outer: dict[str, Any] = {name: strict.pop(name) for name in ("$schema", "$id", "title") if name in strict}
    wrapped = {"type": "object", "properties": {"answer": strict}, "required": ["answer"]}
    return {**outer, **wrapped, "additionalProperties": False, **definitions}


def subschemas(schema: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Every schema in a schema with its path, itself first; what stands in enum, const and the like is no schema."""
    yield path, schema
    for word, inner in schema.items():
        if word in {"properties", "$defs", "definitions", "patternProperties"} and isinstance(inner, Mapping):
            for name, child in inner.items():
                yield from _inside(child, (*path, word, name))
        elif word in {"anyOf", "oneOf", "allOf", "prefixItems"} and isinstance(inner, list):
            for index, child in enumerate(inner):
                yield from _inside(child, (*path, word, index))
        elif word in {"items", "additionalProperties", "not", "if", "then", "else", "contains"}:
            yield from _inside(inner, (*path, word))


def _inside(child: Any, path: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    if isinstance(child, Mapping):
        yield from subschemas(child, path)


def _refuse(uri: str) -> Any:
    raise ValueError(f"{uri} is another document")


def _short(message: str) -> str:
    return message if len(message) <= 160 else message[:157] + "…"


def _reference_problem(node: Mapping[str, Any], root: Mapping[str, Any]) -> str | None:
    for word in ("$ref", "$dynamicRef", "$recursiveRef"):
        target = node.get(word)
        if target is None:
            continue
        if not isinstance(target, str) or not target.startswith("#"):
            return f"{target} is another document; only references inside the schema (#/$defs/…) are followed"
        if word == "$ref" and (target == "#" or target.startswith("#/")) and resolve(target, root) is None:
            return f"{target} is not in the schema"
    return None


def resolve(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema that `#/…` points to, or None."""
    found: Any = root
    for step in reference.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdigit() and int(name) < len(found):
            found = found[int(name)]
        else:
            found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _node_problems(path: Path, node: Mapping[str, Any], *, is_root: bool, fine_tuned: bool) -> Iterator[Problem]:
    for word in node:
        if word in _REFUSED:
            yield Problem((*path, word), f"{word} is refused; {_REFUSED[word]}", at_key=True)
        elif fine_tuned and word in _FINE_TUNED:
            yield Problem((*path, word), f"fine-tuned models refuse {word}", at_key=True)
        elif word not in _KNOWN:
            why = f"{word} is not in the documented subset and may be refused"
            yield Problem((*path, word), why, is_error=False, at_key=True)
    if not is_root and not node.keys() & {"type", "anyOf", "$ref", "enum", "const", "oneOf", "allOf"}:
        yield Problem(path, "it needs a type, anyOf, enum, const or $ref")
    if "$ref" in node and len(node.keys() - {"$defs", "definitions", "$schema"}) > 1:
        yield Problem((*path, "$ref"), "no other word may stand beside $ref")
    if node.get("format", "uuid") not in _FORMATS:
        yield Problem((*path, "format"), f"the format is none of {', '.join(sorted(_FORMATS))}")
    if node.get("enum") == []:
        yield Problem((*path, "enum"), "an enum has one value at least")
    if isinstance(node.get("items"), list):
        yield Problem((*path, "items"), "a list of items is refused; write one schema")
    if _is_object(node):
        yield from _object_problems(path, node)


def _is_object(node: Mapping[str, Any]) -> bool:
    kind = node.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in node


def _object_problems(path: Path, node: Mapping[str, Any]) -> Iterator[Problem]:
    if node.get("additionalProperties") is not False:
        yield Problem(path, "an object needs additionalProperties: false")
    names = node.get("properties", {})
    missing = [name for name in names if name not in node.get("required", [])]
    if missing:
        listed = ", ".join(missing[:5]) + (" and more" if len(missing) > 5 else "")
        yield Problem(path, f"every property must be in required; missing: {listed}")
    for name in node.get("required", []):
        if name not in names:
            yield Problem((*path, "required"), f"{name} is required and is no property")


def _size_problems(schema: Mapping[str, Any]) -> Iterator[Problem]:
    properties = values = characters = 0
    for path, node in subschemas(schema):
        names = [*node.get("properties", {}), *node.get("$defs", {}), *node.get("definitions", {})]
        enum = node.get("enum", [])
        texts = [value for value in [*enum, node.get("const")] if isinstance(value, str)]
        properties += len(node.get("properties", {}))
        values += len(enum)
        characters += sum(map(len, [*names, *texts]))
        if len(enum) > _LONG_ENUM and sum(map(len, texts)) > _LONG_ENUM_CHARACTERS:
            why = f"an enum of more than {_LONG_ENUM} values has at most {_LONG_ENUM_CHARACTERS} characters"
            yield Problem((*path, "enum"), why)
        if _is_object(node) and path.count("properties") == _MAX_LEVELS:
            yield Problem(path, f"more than {_MAX_LEVELS} objects are nested")
    for count, limit, what in (
        (properties, _MAX_PROPERTIES, "properties"),
        (values, _MAX_ENUM_VALUES, "enum values"),
        (characters, _MAX_NAME_CHARACTERS, "characters in names and values"),
    ):
        if count > limit:
            yield Problem((), f"it has {count} {what}; {limit} are the limit")


def _strict(node: Any, root: Mapping[str, Any], followed: tuple[str, ...]) -> Any:
    if not isinstance(node, dict):
        return node
    node, followed = _expanded(node, root, followed)
    while node.keys() & {"allOf", "oneOf"}:
        node, followed = _expanded(_merged(node), root, followed)
    node = {word: value for word, value in node.items() if word not in _REFUSED}
    if node.get("format", "uuid") not in _FORMATS:
        del node["format"]
    for word in ("$defs", "definitions", "properties"):
        if isinstance(node.get(word), dict):
            node[word] = {name: _strict(inner, root, followed) for name, inner in node[word].items()}
    if isinstance(node.get("items"), list):
        node["items"] = {"anyOf": node["items"]}
    if "items" in node:
        node["items"] = _strict(node["items"], root, followed)
    if "anyOf" in node:
        node["anyOf"] = [_strict(inner, root, followed) for inner in node["anyOf"]]
    return _closed(node) if _is_object(node) else node


def _expanded(
    node: dict[str, Any], root: Mapping[str, Any], followed: tuple[str, ...]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A reference with words beside it becomes what it points to, unless it would never end."""
    reference = node.get("$ref")
    beside = {word: value for word, value in node.items() if word not in {"$ref", "$defs", "definitions", "$schema"}}
    if not isinstance(reference, str) or not beside:
        return node, followed
    target = None if reference in followed else resolve(reference, root)
    if target is None or target is root:
        return {word: value for word, value in node.items() if word not in beside}, followed
    rest = {word: value for word, value in node.items() if word != "$ref"}
    merged = {**copy.deepcopy(dict(target)), **rest}
    return _expanded(merged, root, (*followed, reference))


def _merged(node: dict[str, Any]) -> dict[str, Any]:
    """allOf merged into its schema, oneOf as anyOf."""
    merged = {word: value for word, value in node.items() if word not in {"allOf", "oneOf"}}
    for part in node.get("allOf", []):
        if isinstance(part, dict):
            inner = _merged(part)
            properties = {**merged.get("properties", {}), **inner.get("properties", {})}
            required = [*merged.get("required", []), *inner.get("required", [])]
            merged = {**merged, **inner}
            merged |= {"properties": properties} if properties else {}
            merged |= {"required": list(dict.fromkeys(required))} if required else {}
    if "oneOf" in node and "anyOf" not in merged:
        merged["anyOf"] = node["oneOf"]
    return merged


def _closed(node: dict[str, Any]) -> dict[str, Any]:
    required = set(node.get("required", []))
    properties = node.get("properties", {})
    if "type" not in node:
        node = {"type": "object", **node}
    if properties:
        node["properties"] = {
            name: inner if name in required else _nullable(inner) for name, inner in properties.items()
        }
    node["required"] = list(properties)
    node["additionalProperties"] = False
    return node


def _nullable(node: Any) -> Any:
    if not isinstance(node, dict) or _takes_null(node):
        return node
    if "anyOf" in node:
        return {**node, "anyOf": [*node["anyOf"], {"type": "null"}]}
    if "const" in node or "$ref" in node or "type" not in node:
        return {"anyOf": [node, {"type": "null"}]}
    kinds = node["type"] if isinstance(node["type"], list) else [node["type"]]
    nullable = {**node, "type": [*kinds, "null"]}
    return {**nullable, "enum": [*node["enum"], None]} if "enum" in node else nullable


def _takes_null(node: Mapping[str, Any]) -> bool:
    kinds = node.get("type")
    has_null = kinds == "null" or (isinstance(kinds, list) and "null" in kinds)
    if "enum" in node:
        return None in node["enum"] and (has_null or kinds is None)
    return has_null or any(isinstance(part, dict) and _takes_null(part) for part in node.get("anyOf", []))
