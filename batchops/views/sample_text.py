"""A request body as lines a person can read and `difflib` can compare. For reading only: it is not parsed back."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from batchops.plan.model import Sample
from batchops.terminal import visible

_CONTEXT = 2


def sample_title(sample: Sample) -> str:
    """`review_id=17`: the row's key."""
    return ", ".join(f"{column}={visible(str(value))}" for column, value in sample.key.items()).replace("\n", "\\n")


def sample_lines(sample: Sample) -> list[str]:
    """The body that would be sent; against the recorded one, only what differs and the lines around it."""
    after = body_lines(sample.after)
    if sample.before is None:
        return after
    compared = difflib.unified_diff(body_lines(sample.before), after, "recorded", "desired", lineterm="", n=_CONTEXT)
    return list(compared)[2:] or ["(the bodies print alike)"]


def body_lines(body: Mapping[str, Any]) -> list[str]:
    """The body outline: `key: value`, text of several lines below its key."""
    return list(_mapping(body, ""))


def _mapping(body: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in body.items():
        yield from _value(f"{indent}{visible(str(key))}:", value, indent + "  ")


def _value(head: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        yield head
        yield from _mapping(value, indent)
    elif isinstance(value, list | tuple) and value:
        yield head
        for element in value:
            yield from _element(element, indent)
    elif isinstance(value, str) and "\n" in value:
        yield f"{head} |"
        yield from (f"{indent}{visible(line)}".rstrip() for line in value.split("\n"))
    else:
        yield f"{head} {_scalar(value)}"


def _element(value: Any, indent: str) -> Iterator[str]:
    """A list element: its first line carries the dash."""
    lines = _mapping(value, "") if isinstance(value, Mapping) and value else _value("", value, "")
    for number, line in enumerate(lines):
        yield f"{indent}{'  ' if number else '- '}{line if number else line.lstrip()}".rstrip()


def _scalar(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return visible(str(value))
