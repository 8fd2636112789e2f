"""Plain YAML text → its tree, at once and without places: one document of mappings, lists and scalars.

It reads what `yaml` would read, in a third of the time, and takes nothing else: whatever needs more than one look, and
everything that is wrong, is left to `yaml`.
"""

from __future__ import annotations

from typing import Any

from batchops.spec.document import MAX_DEPTH, MAX_NODES
from batchops.spec.events import (
    OLD_BREAKS,
    PECULIAR,
    CParser,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    YAMLError,
)
from batchops.spec.scalars import is_endless, plain


class _Peculiar(Exception):
    """The text is not plain."""


def plain_tree(text: str) -> dict[str, Any] | list[Any] | None:
    """The tree of a plain text; None where the text is not, or cannot be read like that."""
    if CParser is None or PECULIAR.search(text) or any(character in text for character in OLD_BREAKS):
        return None
    try:
        tree: dict[str, Any] | list[Any] = _Tree(text).root()
    except (YAMLError, ValueError, _Peculiar):
        return None
    return tree


class _Tree:
    """One text being read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._next = CParser(text).get_event
        self._left = MAX_NODES

    def root(self) -> Any:
        for _ in ("stream", "document"):
            self._next()
        first = self._next()
        if type(first) not in {MappingStartEvent, SequenceStartEvent}:
            raise _Peculiar
        tree = self._value(first, 1)
        self._next()
        if not isinstance(self._next(), StreamEndEvent):
            raise _Peculiar
        return tree

    def _value(self, event: Any, depth: int) -> Any:
        self._left -= 1
        if event.anchor is not None or event.tag is not None or self._left <= 0:
            raise _Peculiar
        kind = type(event)
        if kind is ScalarEvent:
            return self._scalar(event)
        if depth == MAX_DEPTH:
            raise _Peculiar
        if kind is MappingStartEvent:
            return self._mapping(event, depth)
        return self._list(depth)

    def _scalar(self, event: Any) -> Any:
        text = event.value
        if event.style:
            return text
        if not text or is_endless(text):
            raise _Peculiar
        return plain(text)

    def _list(self, depth: int) -> list[Any]:
        found = []
        while type(event := self._next()) is not SequenceEndEvent:
            found.append(self._value(event, depth + 1))
        return found

    def _mapping(self, start: Any, depth: int) -> dict[str, Any]:
        if start.flow_style and self._text[start.start_mark.index] != "{":
            raise _Peculiar  # a pair in a list
        found: dict[str, Any] = {}
        while type(event := self._next()) is not MappingEndEvent:
            key = self._key(event)
            if key in found:
                raise _Peculiar
            found[key] = self._value(self._next(), depth + 1)
        return found

    def _key(self, event: Any) -> str:
        if type(event) is not ScalarEvent or event.anchor is not None or event.tag is not None:
            raise _Peculiar
        self._left -= 1
        key: str = event.value
        if key == "<<" or not (key or event.style) or is_endless(key):
            raise _Peculiar
        return key
