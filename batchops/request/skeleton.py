"""A body with compiled templates in it: cut into chunks for the canonical text, filled for the tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from batchops.request.digest import canonical
from batchops.request.endpoints import Slot
from batchops.request.text import Text


def mapped(value: Any, compiled: Callable[[Slot], Any]) -> Any:
    """The tree with each Slot replaced."""
    if isinstance(value, Slot):
        return compiled(value)
    if isinstance(value, Mapping):
        return {key: mapped(part, compiled) for key, part in value.items()}
    return [mapped(part, compiled) for part in value] if isinstance(value, (list, tuple)) else value


def texts_in(value: Any) -> Iterator[Text]:
    """The templates in a tree, in its order."""
    if isinstance(value, Text):
        yield value
    elif isinstance(value, (Mapping, list)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from texts_in(part)


def filled(value: Any, given: Mapping[int, str]) -> Any:
    """The tree with the texts in place of their templates; `given` is by `id` of the Text."""
    if isinstance(value, Text):
        return value.constant if value.constant is not None else given[id(value)]
    if isinstance(value, Mapping):
        return {key: filled(part, given) for key, part in value.items()}
    return [filled(part, given) for part in value] if isinstance(value, list) else value


def chunks_of(value: Any) -> tuple[bytes | Text, ...]:
    """The canonical text of a tree, cut at the templates that depend on the row."""
    merged: list[bytes | Text] = []
    for part in _chunks(value):
        if isinstance(part, bytes) and merged and isinstance(merged[-1], bytes):
            merged[-1] += part
        else:
            merged.append(part)
    return tuple(merged)


def _chunks(value: Any) -> Iterator[bytes | Text]:
    if isinstance(value, Text):
        yield value if value.constant is None else canonical(value.constant)
    elif isinstance(value, Mapping):
        for number, (key, part) in enumerate(value.items()):
            yield (b"," if number else b"{") + canonical(str(key)) + b":"
            yield from _chunks(part)
        yield b"}" if value else b"{}"
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield b"," if number else b"["
            yield from _chunks(part)
        yield b"]" if value else b"[]"
    else:
        yield canonical(value)


def tagged(value: Any) -> Any:
    """A tree as lists that cannot be mistaken for another: order kept, templates apart from texts."""
    if isinstance(value, (Text, Slot)):
        return ["template", value.text if isinstance(value, Slot) else value.slot.text]
    if isinstance(value, Mapping):
        return ["object", [[str(key), tagged(part)] for key, part in value.items()]]
    if isinstance(value, (list, tuple)):
        return ["array", [tagged(part) for part in value]]
    return ["value", value]
