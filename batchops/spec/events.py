"""YAML text → ruamel's parse events. The only importer of ruamel.

Plain texts, as specs are, go through libyaml where it is installed: a fifth of the time. It reads YAML 1.1 and ruamel's
own parser 1.2: whatever the two might read or place differently, and everything that is wrong, is left to ruamel's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from ruamel.yaml.scanner import Scanner, ScannerError

from batchops.spec.document import MAX_DEPTH, MAX_NODES

CParser: Any
try:
    from ruamel.yaml import cyaml
except ImportError:  # not every interpreter has it: all texts are ruamel's then
    CParser = None
else:
    CParser = cyaml.CParser  # type: ignore[attr-defined]  # ruamel hands it on without a word of export

__all__ = [
    "OLD_BREAKS",
    "PECULIAR",
    "TOO_DEEP",
    "AliasEvent",
    "CParser",
    "DocumentStartEvent",
    "MappingEndEvent",
    "MappingStartEvent",
    "MarkedYAMLError",
    "ScalarEvent",
    "SequenceEndEvent",
    "SequenceStartEvent",
    "StreamEndEvent",
    "YAMLError",
    "events_of",
]

TOO_DEEP: Final = f"More than {MAX_DEPTH} levels are nested."
OLD_BREAKS: Final = "\x85\u2028\u2029"
"""They end lines in YAML 1.1, and so for both parsers; in 1.2 they are characters like others."""
_MAX_EVENTS: Final = 2 * MAX_NODES
_DEEPER: Final = {MappingStartEvent: 1, SequenceStartEvent: 1, MappingEndEvent: -1, SequenceEndEvent: -1}
PECULIAR = re.compile(r"[\t\ufeff]|\r(?!\n)|^(?:\.\.\.|%| +\r?$)|[|>][-+0-9]{0,2}#", re.MULTILINE)
"""Tabs, marks of byte order, old line ends, ends of documents, directives, lines of spaces alone, and comments that
touch the head of a block. Each is found in time that is linear in the text, which may be hostile."""


def events_of(text: str) -> Iterator[Any]:
    """ruamel's events of a text. Raises MarkedYAMLError, YAMLError, ValueError or OverflowError where it is wrong."""
    plain = plain_events(text)
    return _events_of_any(text) if plain is None else iter(plain)


def plain_events(text: str) -> list[Any] | None:
    """The events that libyaml reads, if it is there and they are surely those of ruamel's own parser."""
    if CParser is None or PECULIAR.search(text):
        return None
    try:
        return _taken(text)
    except (YAMLError, ValueError):
        return None


def _taken(text: str) -> list[Any] | None:
    parser = CParser(text)
    events: list[Any] = [parser.get_event()]
    depth = 0
    while parser.check_event():
        event = parser.get_event()
        if _is_peculiar(event, depth) or depth > MAX_DEPTH or len(events) > _MAX_EVENTS:
            return None
        if type(event) is MappingStartEvent and _is_pair(event, events[-1], text):
            return None
        depth += _DEEPER.get(type(event), 0)
        events.append(event)
    return events


def _is_peculiar(event: Any, depth: int) -> bool:
    """Anchors, aliases, tags, values of nothing and documents that are one scalar: the parsers differ in details."""
    if getattr(event, "anchor", None) is not None or getattr(event, "tag", None) is not None:
        return True
    return type(event) is ScalarEvent and (depth == 0 or not (event.value or event.style))


def _is_pair(mapping: Any, before: Any, text: str) -> bool:
    """A mapping without braces in a list with brackets, as in `["a":b]` or `[{}:b]`, which ruamel does not take."""
    at = mapping.start_mark.index
    is_key_of_it = type(before) is MappingStartEvent and before.start_mark.index == at
    return bool(mapping.flow_style) and (text[at] != "{" or is_key_of_it)


def _events_of_any(text: str) -> Iterator[Any]:
    yaml = YAML(typ="safe", pure=True)
    yaml.Scanner = _Scanner
    yield from yaml.parse(text)


class _Scanner(Scanner):
    """ruamel's scanner, which looks ahead over any number of open brackets and takes quadratic time for it."""

    def fetch_flow_collection_start(self, *args: Any, **kwargs: Any) -> None:
        if self.flow_level > MAX_DEPTH:
            raise ScannerError(None, None, TOO_DEEP, self.reader.get_mark())
        super().fetch_flow_collection_start(*args, **kwargs)
