"""Diagnostics as text and as JSON: whole outputs."""

from __future__ import annotations

import json
import re

from batchops.diagnostics import Location, Position, diagnostic_from_document, error, warning
from batchops.views.diagnostics import render_json, render_text

UNKNOWN = error(
    "unknown_key",
    "Unknown key.",
    '"bakoff" is not a key of "retry". Did you mean "backoff"?',
    address="labels",
    location=Location("jobs/a.yaml", Position(3, 5), Position(3, 11)),
    snippet="    bakoff: {initial: 1m}",
)
NO_PROJECT = error("no_project", "No project.", "There is none.", fixes=["batchops init"])
OLD = warning("old_model", "Old model.", "It retires soon.", address="labels")


def test_text_is_place_summary_detail_code_then_the_line_with_its_mistake_underlined() -> None:
    assert render_text([NO_PROJECT, UNKNOWN, OLD], color=False) == (
        'jobs/a.yaml:3:5: error: Unknown key. "bakoff" is not a key of "retry". Did you mean "backoff"? [unknown_key]\n'
        "  3 |     bakoff: {initial: 1m}\n"
        "    |     ^^^^^^\n"
        "error: No project. There is none. [no_project]\n"
        "    batchops init\n"
        "labels: warning: Old model. It retires soon. [old_model]"
    )


def test_colour_changes_no_character_that_is_seen() -> None:
    coloured = render_text([UNKNOWN, NO_PROJECT, OLD], color=True)
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == render_text([UNKNOWN, NO_PROJECT, OLD], color=False)


def test_problems_are_sorted_by_place_and_those_without_one_keep_their_order_at_the_end() -> None:
    later = UNKNOWN.at(Location("jobs/a.yaml", Position(12, 1)))
    text = render_text([OLD, later, NO_PROJECT, UNKNOWN], color=False)
    assert re.findall(r"\[(\w+)\]$", text, re.MULTILINE) == ["unknown_key", "unknown_key", "old_model", "no_project"]
    assert text.index("a.yaml:3:5") < text.index("a.yaml:12:1")


def test_carets_stand_under_the_range_behind_tabs_and_wide_characters() -> None:
    snippet = "\tx: 日本 bad"
    column = snippet.index("bad") + 1
    found = UNKNOWN.at(Location("a", Position(1, column), Position(1, column + 3)), snippet)
    _, line, carets = render_text([found], color=False).split("\n")
    assert line == "  1 | \tx: 日本 bad"
    assert carets == "    | \t" + " " * (len("x: ") + 4 + 1) + "^^^"


def test_a_range_over_several_lines_is_underlined_to_the_end_of_its_first() -> None:
    found = UNKNOWN.at(Location("a", Position(1, 4), Position(3, 1)), "x: |  ")
    assert render_text([found], color=False).split("\n")[1:] == ["  1 | x: |  ", "    |    ^"]


def test_a_place_behind_the_end_of_the_line_still_gets_a_caret() -> None:
    found = UNKNOWN.at(Location("a", Position(1, 99)), "x:")
    assert render_text([found], color=False).split("\n")[2] == "    |   ^"


def test_a_long_line_is_cut_around_the_mistake() -> None:
    snippet = "a" * 5000 + "BAD" + "b" * 5000
    found = UNKNOWN.at(Location("a", Position(1, 5001), Position(1, 5004)), snippet)
    _, line, carets = render_text([found], color=False).split("\n")
    assert len(line) < 180
    assert line[carets.index("^") : carets.index("^") + carets.count("^")] == "BAD"


def test_control_characters_in_a_source_line_reach_no_terminal() -> None:
    found = error(
        "x", "X.", "de\x1b[2Jtail", location=Location("a\x1b.yaml", Position(1, 1)), snippet="\x1b]0;owned\x07\u202e"
    )
    text = render_text([found], color=False)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\\x1b]0;owned\\x07\\u202e" in text


def test_json_counts_and_ranges() -> None:
    assert json.loads(render_json([OLD, UNKNOWN])) == {
        "format_version": "1.0",
        "valid": False,
        "error_count": 1,
        "warning_count": 1,
        "diagnostics": [
            {
                "severity": "error",
                "code": "unknown_key",
                "summary": "Unknown key.",
                "detail": '"bakoff" is not a key of "retry". Did you mean "backoff"?',
                "address": "labels",
                "range": {
                    "filename": "jobs/a.yaml",
                    "start": {"line": 3, "column": 5},
                    "end": {"line": 3, "column": 11},
                },
                "snippet": "    bakoff: {initial: 1m}",
                "fixes": [],
            },
            {
                "severity": "warning",
                "code": "old_model",
                "summary": "Old model.",
                "detail": "It retires soon.",
                "address": "labels",
                "range": None,
                "snippet": None,
                "fixes": [],
            },
        ],
    }


def test_json_is_valid_without_errors_and_is_one_line() -> None:
    assert json.loads(render_json([OLD]))["valid"] is True
    assert json.loads(render_json([]))["valid"] is True
    assert json.loads(render_json([], valid=False))["valid"] is False
    assert "\n" not in render_json([UNKNOWN, NO_PROJECT])


def test_a_diagnostic_comes_back_from_its_document() -> None:
    for found in (UNKNOWN, NO_PROJECT, OLD):
        document = json.loads(render_json([found]))["diagnostics"][0]
        assert diagnostic_from_document(document) == found
