"""Values that satisfy a JSON Schema: what a simulated model answers when it is held to one.

Covers the subset that structured outputs accept, and what people write beside it: enum, const, anyOf, oneOf, allOf,
$ref and $defs with recursion, pattern, formats, bounds, items and prefixItems. Every value is checked by the real
validator before it is given out; keywords that cannot be built by hand (`not`, `if`) are met by drawing again.
"""

from __future__ import annotations

import ipaddress
import math
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cached_property
from random import Random
from typing import Any

from batchops.server.regex import text_matching

_DRAWS = 24
_DEEP = 5
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Conformer:
    """Draws values for one schema. The same random state draws the same value."""

    def __init__(self, schema: Any) -> None:
        self._root = schema if isinstance(schema, dict) else {}

    def value(self, rng: Random) -> Any:
        """A value that satisfies the schema, or the last draw if none of many did."""
        drawn: Any = None
        for _ in range(_DRAWS):
            drawn = self._draw(self._root, rng, "answer", 0)
            if self._is_valid(drawn):
                break
        return drawn

    def _is_valid(self, value: Any) -> bool:
        return True if self._validator is None else bool(self._validator.is_valid(value))

    @cached_property
    def _validator(self) -> Any:
        import jsonschema_rs  # noqa: PLC0415  costs 30 ms that a server without structured answers need not pay

        try:
            return jsonschema_rs.validator_for(self._root, validate_formats=True)
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError):
            return None

    def _draw(self, schema: Any, rng: Random, name: str, depth: int) -> Any:
        schema = self._expanded(schema)
        if "const" in schema or schema.get("enum"):
            return schema["const"] if "const" in schema else rng.choice(schema["enum"])
        for keyword in ("anyOf", "oneOf"):
            if options := schema.get(keyword):
                rest = {key: value for key, value in schema.items() if key != keyword}
                return self._draw(_merged([rest, self._option(options, rng, depth)]), rng, name, depth)
        if parts := schema.get("allOf"):
            rest = {key: value for key, value in schema.items() if key != "allOf"}
            return self._draw(_merged([rest, *(self._expanded(part) for part in parts)]), rng, name, depth)
        return self._typed(schema, rng, name, depth)

    def _typed(self, schema: dict[str, Any], rng: Random, name: str, depth: int) -> Any:
        match self._type(schema, rng):
            case "object":
                return self._object(schema, rng, depth)
            case "array":
                return self._array(schema, rng, name, depth)
            case "string":
                return _string(schema, rng, name)
            case "integer":
                return _integer(schema, rng)
            case "number":
                return _number(schema, rng)
            case "boolean":
                return rng.random() < 0.5
        return None

    def _type(self, schema: dict[str, Any], rng: Random) -> str:
        kinds = schema.get("type")
        if isinstance(kinds, list):
            solid = [kind for kind in kinds if kind != "null"]
            return rng.choice(solid) if solid and ("null" not in kinds or rng.random() < 0.85) else "null"
        if isinstance(kinds, str):
            return kinds
        return next((kind for keyword, kind in _IMPLIED if keyword in schema), "string")

    def _object(self, schema: dict[str, Any], rng: Random, depth: int) -> dict[str, Any]:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        wanted = [name for name in properties if name in required or depth < _DEEP]
        drawn = {name: self._draw(properties[name], rng, name, depth + 1) for name in wanted}
        extra = schema.get("additionalProperties")
        for name in required:
            if name not in drawn:
                drawn[name] = (
                    self._draw(extra, rng, name, depth + 1) if isinstance(extra, dict) else f"simulated {name}"
                )
        while len(drawn) < schema.get("minProperties", 0):
            name = f"key_{len(drawn) + 1}"
            drawn[name] = self._draw(extra, rng, name, depth + 1) if isinstance(extra, dict) else f"simulated {name}"
        return drawn

    def _array(self, schema: dict[str, Any], rng: Random, name: str, depth: int) -> list[Any]:
        prefix, items = schema.get("prefixItems", []), schema.get("items", {})
        least = max(schema.get("minItems", 0), len(prefix))
        most = min(schema.get("maxItems", max(least, 3)), max(least, 3))
        length = least if depth > _DEEP else rng.randint(min(max(least, 1), most), most)
        if items is False:
            length = min(length, len(prefix))
        drawn = [self._draw(part, rng, name, depth + 1) for part in prefix[:length]]
        tries = 0
        while len(drawn) < length and tries < 20 * length:
            tries += 1
            value = self._draw(items, rng, name, depth + 1)
            if not (schema.get("uniqueItems") and value in drawn):
                drawn.append(value)
        return drawn

    def _option(self, options: list[Any], rng: Random, depth: int) -> dict[str, Any]:
        """One branch; deep down one that ends, so that recursion does."""
        expanded = [self._expanded(option) for option in options]
        ending = [option for option in expanded if not {"properties", "items"} & option.keys()]
        solid = [option for option in expanded if option.get("type") != "null"] or expanded
        return rng.choice(ending or expanded) if depth > _DEEP else rng.choice(solid)

    def _expanded(self, schema: Any) -> dict[str, Any]:
        seen = 0
        while isinstance(schema, dict) and "$ref" in schema and seen < 20:
            schema, seen = self._resolve(schema["$ref"]), seen + 1
        return schema if isinstance(schema, dict) else {}

    def _resolve(self, reference: Any) -> Any:
        found: Any = self._root
        for part in str(reference).removeprefix("#").strip("/").split("/"):
            if not part:
                continue
            key = part.replace("~1", "/").replace("~0", "~")
            found = found.get(key) if isinstance(found, dict) else None
        return found


_IMPLIED = (
    ("properties", "object"),
    ("required", "object"),
    ("items", "array"),
    ("prefixItems", "array"),
    ("minimum", "number"),
    ("maximum", "number"),
)


def _merged(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    """One schema that asks for what all of them ask for, as far as simple keywords go."""
    out: dict[str, Any] = {}
    for schema in schemas:
        for key, value in schema.items():
            if key == "properties":
                out[key] = {**out.get(key, {}), **value}
            elif key == "required":
                out[key] = list(dict.fromkeys([*out.get(key, []), *value]))
            else:
                out[key] = value
    return out


def _string(schema: dict[str, Any], rng: Random, name: str) -> str:
    if isinstance(pattern := schema.get("pattern"), str):
        return text_matching(pattern, rng)
    if (made := _FORMATS.get(schema.get("format", ""))) is not None:
        return made(rng)
    text = f"simulated {name} {rng.randrange(16**6):06x}"
    while len(text) < schema.get("minLength", 0):
        text += f" {text}"
    return text[: schema.get("maxLength", max(schema.get("minLength", 0), 60))]


def _bounds(schema: dict[str, Any], low: float, high: float, step: float) -> tuple[float, float]:
    """Inclusive bounds; a bound that is not given lies a hundred from the one that is."""
    least = schema.get("minimum")
    if (open_least := schema.get("exclusiveMinimum")) is not None:
        least = open_least + step if least is None else max(least, open_least + step)
    most = schema.get("maximum")
    if (open_most := schema.get("exclusiveMaximum")) is not None:
        most = open_most - step if most is None else min(most, open_most - step)
    if least is None:
        least = low if most is None or most >= low else most - 100
    if most is None:
        most = high if least <= high else least + 100
    return least, most


def _integer(schema: dict[str, Any], rng: Random) -> int:
    least, most = _bounds(schema, 0, 100, 1)
    multiple = schema.get("multipleOf", 1)
    low, high = math.ceil(least / multiple), math.floor(most / multiple)
    return int(rng.randint(low, max(low, high)) * multiple)


def _number(schema: dict[str, Any], rng: Random) -> float:
    if multiple := schema.get("multipleOf"):
        least, most = _bounds(schema, 0, 100 * multiple, multiple)
        low, high = math.ceil(least / multiple), math.floor(most / multiple)
        return float(round(rng.randint(low, max(low, high)) * multiple, 10))
    least, most = _bounds(schema, 0, 1, 0)
    drawn = round(least + (most - least) * rng.uniform(0.01, 0.99), 4)
    return drawn if least <= drawn <= most else (least + most) / 2


def _moment(rng: Random) -> datetime:
    return _EPOCH + timedelta(seconds=rng.randrange(365 * 86400))


_FORMATS: dict[str, Callable[[Random], str]] = {
    "date-time": lambda rng: _moment(rng).isoformat().replace("+00:00", "Z"),
    "date": lambda rng: _moment(rng).date().isoformat(),
    "time": lambda rng: f"{_moment(rng).time().isoformat()}Z",
    "duration": lambda rng: f"P{rng.randint(1, 30)}DT{rng.randint(1, 23)}H",
    "email": lambda rng: f"user{rng.randrange(10**4)}@example.com",
    "hostname": lambda rng: f"host{rng.randrange(10**4)}.example.com",
    "ipv4": lambda rng: str(ipaddress.IPv4Address(0x0A000000 + rng.randrange(2**24))),
    "ipv6": lambda rng: str(ipaddress.IPv6Address((0x20010DB8 << 96) + rng.randrange(2**32))),
    "uuid": lambda rng: str(uuid.UUID(int=rng.getrandbits(128), version=4)),
    "uri": lambda rng: f"https://example.com/{rng.randrange(10**6)}",
}
