"""Text tables: aligned, cut, and never wrapped."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batchops.grid import Head, grid
from batchops.terminal import cells


def test_wide_and_combining_characters_keep_columns_aligned() -> None:
    rows: list[list[str | None]] = [["日本", "1"], ["e\u0301", "22"], [None, None]]
    assert list(grid([Head("A"), Head("N", right=True)], rows)) == [
        "A      N",
        "────  ──",
        "日本   1",
        "e\u0301     22",
        "",
    ]


def test_optional_columns_go_when_they_are_empty_and_no_rows_give_no_lines() -> None:
    heads = [Head("A"), Head("B", optional=True)]
    assert list(grid(heads, [["x", None]])) == ["A", "─", "x"]
    assert list(grid(heads, [["x", "y"]])) == ["A  B", "─  ─", "x  y"]
    assert list(grid(heads, [])) == []


def test_long_cells_are_cut_before_columns_are_left_out() -> None:
    heads = [Head("ID"), Head("TEXT"), Head("LAST")]
    assert list(grid(heads, [["1", "a" * 50, "end"]], width=30)) == [
        "ID  TEXT                  LAST",
        "──  ────────────────────  ────",
        "1   aaaaaaaaaaaaaaaaaaa…  end",
    ]
    assert list(grid(heads, [["1", "a" * 50, "end"]], width=18)) == [
        "ID  TEXT",
        "──  ──────────────",
        "1   aaaaaaaaaaaaa…",
        "(1 more: LAST)",
    ]


def test_rows_after_the_sample_are_cut_to_its_widths() -> None:
    rows = [["x"]] * 1000 + [["longer"]]
    assert list(grid([Head("A")], rows))[-2:] == ["x", "…"]


@given(st.lists(st.tuples(st.text(), st.text(), st.none() | st.text()), min_size=1, max_size=5), st.integers(8, 60))
def test_no_line_is_wider_than_the_terminal_or_breaks_it(rows: list[tuple[str, str, str | None]], width: int) -> None:
    lines = list(grid([Head("A"), Head("BB"), Head("CCC", right=True)], rows, width=width))
    assert len(lines) - len(rows) in {2, 3}
    assert all(cells(line) <= width for line in lines)
    assert all(line.isprintable() or "\u200d" in line or not any(ord(c) < 32 for c in line) for line in lines)
