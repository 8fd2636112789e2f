"""Formatting: idempotent, comments and meaning kept, keys in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchops.diagnostics import BatchopsError
from batchops.spec.format import format_text
from batchops.spec.yaml import parse

UNTIDY = """\
# yaml-language-server: $schema=../schemas/job.schema.json


# the cheap one
model:   gpt-5-mini   # for now
x-team: &team   {team: insights}
name: labels
template:
- content: |
      Hello
        {{ id }}

      bye
  role:   system
-   role: user
    content: >-
         folded
         text
source:
    # what is asked
    query: |2
        SELECT 1
          AS id
    key:
    - id
    # - other
params:
        top_p: 1
        stop: [a,
          b,
            # the last
          c]
        user: "long
          text"


batch:
    metadata:
        <<: *team
---
# the second
name: other
model: gpt-5
source: {query: SELECT 1 AS id, key: id}
template: |+
   kept

"""

TIDY = """\
# yaml-language-server: $schema=../schemas/job.schema.json

x-team: &team   {team: insights}
name: labels
source:
  # what is asked
  query: |2
      SELECT 1
        AS id
  key:
    - id
    # - other
# the cheap one
model: gpt-5-mini   # for now
template:
  - role: system
    content: |
      Hello
        {{ id }}

      bye
  - role: user
    content: >-
      folded
      text
params:
  top_p: 1
  stop: [a,
    b,
      # the last
    c]
  user: "long
    text"

batch:
  metadata:
    <<: *team
---
# the second
name: other
source: {query: SELECT 1 AS id, key: id}
model: gpt-5
template: |+
  kept

"""


def _trees(text: str) -> list[Any]:
    parsed = parse(text, "a.yaml")
    assert not parsed.diagnostics
    return [document.tree for document in parsed.documents]


def _comments(text: str) -> list[str]:
    return sorted(line.partition("#")[2] for line in text.splitlines() if "#" in line)


def test_untidy_spec_gets_the_canonical_form() -> None:
    assert format_text(UNTIDY, "a.yaml") == TIDY


def test_canonical_form_is_left_alone() -> None:
    assert format_text(TIDY, "a.yaml") == TIDY


def test_keys_of_a_job_are_moved_and_keys_of_a_request_are_not() -> None:
    text = "params: {}\nbody:\n  z: 1\n  a: 2\nname: x\n"
    assert format_text(text, "a.yaml") == "name: x\nbody:\n  z: 1\n  a: 2\nparams: {}\n"


def test_order_is_kept_where_an_alias_would_come_before_its_anchor() -> None:
    text = "tags: &t [a]\nowner: me\nname: x\ndescription: d\nsource: {key: *t}\n"
    moved = "source: {key: &t [a]}\nname: x\ntags: *t\n"
    assert format_text(text, "a.yaml").startswith("name: x\ndescription: d\nowner: me\ntags: &t")
    assert format_text(moved, "a.yaml") == moved


def test_unknown_keys_come_last_and_merge_keys_first() -> None:
    text = "retry:\n  bakoff: 1\n  max_attempts: 2\n  <<: {max_failed: 1}\n"
    assert format_text(text, "a.yaml") == "retry:\n  <<: {max_failed: 1}\n  max_attempts: 2\n  bakoff: 1\n"


def test_line_ends_of_windows_and_a_byte_order_mark_become_plain() -> None:
    assert format_text("\ufeffname: x\r\nmodel: m\r\n".encode(), "a.yaml") == "name: x\nmodel: m\n"


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n---\n", "name: x", "- a\n-   b\n", "text\n"])
def test_odd_texts_survive_and_stay(text: str) -> None:
    once = format_text(text, "a.yaml")
    assert format_text(once, "a.yaml") == once
    assert _trees(once) == _trees(text)


def test_text_that_is_not_yaml_is_a_diagnostic() -> None:
    with pytest.raises(BatchopsError) as caught:
        format_text("a: [", "jobs/a.yaml")
    assert [found.code for found in caught.value.diagnostics] == ["yaml_syntax"]


_WORD = st.text("abcxyz", min_size=1, max_size=5)
_KEYS = st.sampled_from(["name", "model", "source", "query", "key", "retry", "rules", "when", "role", "content", "x-a"])
_SCALAR = st.one_of(
    _WORD,
    st.sampled_from(["1", "true", "~", '"q # no comment"', "'it''s'", '"two\n      lines"', "[a,\n      b]", "{a: 1}"]),
)


@st.composite
def _blocks(draw: st.DrawFn, indent: int, depth: int) -> list[str]:
    """A block mapping or sequence at a column, with a random step, comments and blank lines."""
    lines: list[str] = []
    step = draw(st.integers(1, 5))
    used: set[str] = set()
    is_list = depth > 0 and draw(st.booleans())
    for _ in range(draw(st.integers(1, 4))):
        lines += draw(st.sampled_from([[], [], [""], [" " * indent + "# c"], ["", " " * (indent + step) + "# deeper"]]))
        key = draw(_KEYS | _WORD)
        if key in used:
            continue
        used.add(key)
        head = "-" if is_list else f"{key}:"
        kind = draw(st.sampled_from(["scalar", "scalar", "block", "literal"])) if depth < 3 else "scalar"
        pad = " " * (indent + step)
        match kind:
            case "scalar":
                value = draw(_SCALAR).replace("\n      ", "\n" + pad)
                lines += f"{' ' * indent}{head}{' ' * draw(st.integers(1, 3))}{value}{draw(_COMMENT)}".split("\n")
            case "literal":
                chomp = draw(st.sampled_from(["|", "|-", "|+", ">", ">-"]))
                lines += [f"{' ' * indent}{head} {chomp}", f"{pad}some text", "", f"{pad}  more"]
                lines += draw(st.sampled_from([[], [""], ["", ""]]))
            case _:
                lines += [f"{' ' * indent}{head}{draw(_COMMENT)}", *draw(_blocks(indent + step, depth + 1))]
    return lines or [f"{' ' * indent}a: 1"]


_COMMENT = st.sampled_from(["", "", "  # note"])


@given(st.lists(_blocks(0, 0), min_size=1, max_size=3))
def test_formatting_keeps_meaning_and_comments_and_is_idempotent(documents: list[list[str]]) -> None:
    text = "\n---\n".join("\n".join(lines) for lines in documents) + "\n"
    if parse(text, "a.yaml").diagnostics:
        return
    once = format_text(text, "a.yaml")
    assert _trees(once) == _trees(text)
    assert _comments(once) == _comments(text)
    assert format_text(once, "a.yaml") == once


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("jobs/*.yaml")), ids=lambda path: path.name)
def test_the_projects_own_jobs_are_formatted(path: Path) -> None:
    assert format_text(path.read_bytes(), path.name) == path.read_text(encoding="utf-8")
