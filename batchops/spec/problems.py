"""What pydantic found wrong with a job → diagnostics that name the key, say what is accepted, stand at its place."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from batchops.diagnostics import Diagnostic, Location, did_you_mean, error
from batchops.spec.document import Document, Path
from batchops.spec.job import JobSpec

_EXPECTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_NAME = "a-z, 0-9, _ and -, starting with a letter or digit, at most 63 characters"


@dataclass(frozen=True)
class Found:
    """One error of pydantic, with its path in the YAML and the value that stands there."""

    kind: str
    path: Path
    value: Any
    message: str
    context: dict[str, Any]

    @property
    def key(self) -> str:
        return str(self.path[-1]) if self.path else "the job"


def diagnostics_of(errors: Iterable[ErrorDetails], document: Document) -> Iterator[Diagnostic]:
    """One located diagnostic an error. `errors` is `ValidationError.errors()` of a JobSpec read from the document."""
    found = [_found(entry, document.tree) for entry in errors]
    for entry in found:
        nested = any(len(o.path) > len(entry.path) and o.path[: len(entry.path)] == entry.path for o in found)
        if entry.kind == "too_short" and nested:
            continue  # pydantic counts only the entries that are valid
        location = _location(entry, document)
        if location.start not in document.places.damaged:
            yield _diagnostic(entry).at(location, document.snippet(location))


def path_of(loc: Iterable[str | int], tree: Any) -> Path:
    """Pydantic's `loc` without the names of union branches, which are in angle brackets."""
    path: list[str | int] = []
    for step in loc:
        if isinstance(step, str) and step.startswith("<") and not (isinstance(tree, dict) and step in tree):
            continue
        path.append(step)
        tree = _child(tree, step)
    return tuple(path)


def dotted(path: Path) -> str:
    """`retry.rules[0].when` for people."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def keys_at(path: Path) -> tuple[str, ...]:
    """The keys that a mapping at `path` of a job may have; empty where any are allowed."""
    branches = [JobSpec]
    for step in path:
        branches = [inner for branch in branches for inner in _step(branch, step)]
    parts = [b for b in branches if isinstance(b, type) and issubclass(b, BaseModel)]
    return tuple(info.alias or name for part in parts for name, info in part.model_fields.items())


def describe(value: Any) -> str:
    """A value as an error message names it: short, and never the text of a prompt."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return f'"{value}"' if len(value) <= 40 and "\n" not in value else "a long text"
        case list():
            return "a list"
        case _:
            return "a mapping"


def _found(entry: ErrorDetails, tree: Any) -> Found:
    path = path_of(entry["loc"], tree)
    value = tree
    for step in path:
        value = _child(value, step)
    return Found(entry["type"], path, value, entry["msg"], entry.get("ctx") or {})


def _child(tree: Any, step: str | int) -> Any:
    if isinstance(tree, dict):
        return tree.get(step)
    if isinstance(tree, list) and isinstance(step, int) and step < len(tree):
        return tree[step]
    return tree if step == 0 else None  # `key: id` is read as `key: [id]`


def _location(found: Found, document: Document) -> Location:
    if found.kind == "extra_forbidden":
        return document.key_location(found.path)
    if found.kind == "missing":
        return document.location(found.path[:-1])
    return document.location(found.path)


def _diagnostic(found: Found) -> Diagnostic:
    return _KINDS.get(found.kind, _invalid_value)(found)


def _unknown_key(found: Found) -> Diagnostic:
    keys = keys_at(found.path[:-1])
    parent = f'"{dotted(found.path[:-1])}"' if len(found.path) > 1 else "a job"
    meant = did_you_mean(found.key, keys) or f" It has {', '.join(keys)}."
    fixes = re.findall(r'Did you mean "(.+)"', meant)
    return error("unknown_key", "Unknown key.", f'"{found.key}" is not a key of {parent}.{meant}', fixes=fixes)


def _missing_key(found: Found) -> Diagnostic:
    parent = f'"{dotted(found.path[:-1])}"' if len(found.path) > 1 else "A job"
    return error("missing_key", "Missing key.", f'{parent} needs "{found.key}".')


def _wrong_type(found: Found) -> Diagnostic:
    expected = found.message if found.kind == "wrong_form" else _EXPECTED[found.kind]
    detail = f'"{dotted(found.path)}" must be {expected}, not {describe(found.value)}.'
    if found.kind == "string_type" and isinstance(found.value, (bool, int, float)):
        detail += " Quote it to make it text."
    return error("wrong_type", "Wrong type.", detail)


def _not_allowed(found: Found) -> Diagnostic:
    allowed = re.findall(r"'([^']*)'", str(found.context.get("expected", "")))
    meant = did_you_mean(str(found.value), allowed)
    detail = f'"{dotted(found.path)}" cannot be {describe(found.value)}. Accepted: {", ".join(allowed)}.{meant}'
    return error("value_not_allowed", "Value not allowed.", detail, fixes=re.findall(r'Did you mean "(.+)"', meant))


def _invalid_value(found: Found) -> Diagnostic:
    why = _WHY.get(found.kind, _as_said)(found)
    return error("invalid_value", "Invalid value.", f'"{dotted(found.path)}" {why}.')


def _as_said(found: Found) -> str:
    return f"is not right: {found.message[:1].lower()}{found.message[1:]}"


def _pattern(found: Found) -> str:
    if found.key in {"name", "moved_from"}:
        return f"cannot be {describe(found.value)}: names have {_NAME}"
    return f"cannot be {describe(found.value)}: write a factor such as x2"


def _amount(found: Found) -> str:
    limits = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    said = [f"{words} {found.context[name]}" for name, words in limits.items() if name in found.context]
    return f"is {describe(found.value).removeprefix('the number ')}; it must be {' and '.join(said)}"


_WHY: dict[str, Callable[[Found], str]] = {
    "string_pattern_mismatch": _pattern,
    "greater_than_equal": _amount,
    "greater_than": _amount,
    "less_than_equal": _amount,
    "less_than": _amount,
    "too_short": lambda found: "must not be empty",
    "string_too_short": lambda found: "must not be empty",
    "too_long": lambda found: f"has more than {found.context['max_length']} entries",
    "value_error": lambda found: f"is not right: {found.context['error']}",
}
_KINDS: dict[str, Callable[[Found], Diagnostic]] = {
    "extra_forbidden": _unknown_key,
    "missing": _missing_key,
    "literal_error": _not_allowed,
    "enum": _not_allowed,
    "wrong_form": _wrong_type,
    **dict.fromkeys(_EXPECTED, _wrong_type),
}


def _step(branch: Any, step: str | int) -> Iterator[Any]:
    if isinstance(branch, type) and issubclass(branch, BaseModel):
        for name, info in branch.model_fields.items():
            if step in {name, info.alias}:
                yield from _branches(info.annotation)
    elif get_origin(branch) is tuple and isinstance(step, int):
        yield from _branches(get_args(branch)[0])


def _branches(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Annotated:
        yield from _branches(get_args(annotation)[0])
    elif get_origin(annotation) in {Union, types.UnionType}:
        for inner in get_args(annotation):
            yield from _branches(inner)
    elif get_origin(annotation) is not Literal:
        yield annotation
