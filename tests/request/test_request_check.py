"""The checks of `validate`, on projects as users write them, with places."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchops.diagnostics import Diagnostic, Severity
from batchops.request import check
from batchops.request.check import check_jobs
from batchops.spec.load import load_project

SPEC = """\
name: labels
source:
  query: |
    SELECT id, title, body
    FROM 'data/x.csv'
  key: id
model: gpt-5-mini
template:
  - role: system
    content: You label.
  - role: user
    content: |
      {{ title }}
      {{ body | truncate(40) }}
"""


def checked(root: Path, text: str = SPEC, **files: str) -> list[Diagnostic]:
    (root / "jobs").mkdir(exist_ok=True)
    (root / "data" / "x.csv").write_text("id,title,body\n1,a,b\n", encoding="utf-8")
    (root / "jobs" / "a.yaml").write_text(text, encoding="utf-8")
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
    project = load_project(root, default_provider="local", providers=("local",))
    assert project.diagnostics == ()
    return list(check_jobs(root, project.jobs))


def shown(found: Diagnostic) -> str:
    assert found.location is not None
    start, end = found.location.start, found.location.end
    width = end.column - start.column if end else 0
    marked = (found.snippet or "")[start.column - 1 : start.column - 1 + width]
    return f"{found.location.filename}:{start.line}:{start.column} {found.code} <{marked}>"


def test_good_project_has_nothing_to_say(root: Path) -> None:
    assert checked(root) == []


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("{{ title }}", "{{ titel }}", "jobs/a.yaml:13:10 unknown_column <titel>"),
        ("{{ body |", "{{ body | upper | replace(tilte, '') |", "jobs/a.yaml:14:33 unknown_column <tilte>"),
        ("truncate(40)", "truncat(40)", "jobs/a.yaml:14:7 template_syntax <>"),
        ("SELECT id, title, body", "SELECT id, titel, body", "jobs/a.yaml:4:16 query_invalid <titel>"),
        ("SELECT id, title, body", "SELECT id title, body FROM", "jobs/a.yaml:5:5 query_invalid <FROM>"),
        ("  key: id", "  key: [id, uid]", "jobs/a.yaml:6:13 key_missing <uid>"),
        ("FROM 'data/x.csv'", "FROM 'data/x.csv', (SELECT random())", "jobs/a.yaml:5:32 volatile_query <random>"),
        ("FROM 'data/x.csv'", "FROM 'data/x.csv' LIMIT 5", "jobs/a.yaml:5:23 limit_without_order <LIMIT>"),
        ("FROM 'data/x.csv'", "FROM '../x.csv'", "jobs/a.yaml:4:5 outside_project <>"),
        ("FROM 'data/x.csv'", "FROM 'data/missing.csv'", "jobs/a.yaml:4:5 missing_file <>"),
        ("FROM 'data/x.csv'", "FROM 'nowhere/x.csv'", "jobs/a.yaml:4:5 missing_file <>"),
        ("FROM 'data/x.csv'", "FROM 'nowhere/*.csv'", "jobs/a.yaml:4:5 missing_file <>"),
        ("key: id", "key: id\n  sensitive: [title, bdy]", "jobs/a.yaml:7:22 unknown_column <bdy>"),
        ("SELECT id,", "CHECKPOINT; SELECT id,", "jobs/a.yaml:4:5 query_not_select <>"),
    ],
)
def test_problem_stands_where_it_is_written(root: Path, old: str, new: str, line: str) -> None:
    told = checked(root, SPEC.replace(old, new))
    assert [shown(found) for found in told] == [line]


def test_problem_in_a_file_stands_in_that_file(root: Path) -> None:
    text = """\
name: labels
source: {file: queries/q.sql, key: id}
model: gpt-5-mini
template: {file: prompts/p.md}
"""
    files = {"queries__q.sql": "SELECT id,\n  nope FROM 'data/x.csv'\n", "prompts__p.md": "a\n{{ b | nope }}\n"}
    told = checked(root, text, **files)
    assert sorted(map(shown, told)) == ["prompts/p.md:2:1 template_syntax <>", "queries/q.sql:2:3 query_invalid <nope>"]


def test_every_problem_of_every_job_is_told_in_one_run(root: Path) -> None:
    broken = SPEC.replace("{{ title }}", "{{ titel }} {{ titel }}\n      {{ bdy }}").replace("You label.", "You {{ x")
    other = SPEC.replace("labels", "others").replace("key: id", "key: idd")
    told = checked(root, f"{broken}---\n{other}")
    assert [found.code for found in told] == ["template_syntax", "key_missing"]
    told = checked(root, f"{broken.replace('You {{ x', 'x')}---\n{other}")
    assert [found.code for found in told] == ["unknown_column", "unknown_column", "key_missing"]


def test_warnings_do_not_make_a_project_invalid(root: Path) -> None:
    told = checked(root, SPEC.replace("FROM 'data/x.csv'", "FROM 'data/x.csv' WHERE now() > DATE '2020-01-01'"))
    assert [(found.code, found.severity) for found in told] == [("volatile_query", Severity.WARNING)]


@pytest.mark.parametrize(
    "part",
    [
        "FROM 'data/x.csv' ORDER BY id LIMIT 5",
        "FROM (FROM 'data/x.csv' ORDER BY id LIMIT 5)",
        "FROM 'data/x.csv' -- random() LIMIT",
        "FROM 'data/x.csv' WHERE title <> 'now() LIMIT 1'",
        "FROM (SELECT id, title, body, 1 AS \"limit\", 2 AS random FROM 'data/x.csv')",
    ],
)
def test_steady_query_is_not_warned_about(root: Path, part: str) -> None:
    assert checked(root, SPEC.replace("FROM 'data/x.csv'", part)) == []


@pytest.mark.parametrize(
    "part",
    [
        "FROM (FROM 'data/x.csv' LIMIT 5) ORDER BY id",
        "FROM 'data/x.csv' ORDER BY (SELECT 1 LIMIT 1)",
        "FROM 'data/x.csv' USING SAMPLE 5 ROWS",
        "FROM 'data/x.csv' TABLESAMPLE 10%",
        "FROM 'data/x.csv' WHERE current_date > '2020-01-01'",
        "FROM 'data/x.csv' WHERE uuid ( ) IS NOT NULL",
    ],
)
def test_unsteady_query_is_warned_about(root: Path, part: str) -> None:
    (found,) = checked(root, SPEC.replace("FROM 'data/x.csv'", part))
    assert found.code in {"limit_without_order", "volatile_query"}


def test_names_that_may_be_missing_are_no_unknown_columns(root: Path) -> None:
    template = "{% if extra is defined %}{{ extra }}{% endif %}{{ more | default('') }}{{ title }}"
    assert checked(root, SPEC.replace("{{ title }}", template)) == []


def test_what_breaks_while_queries_are_bound_is_raised(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("no engine")

    monkeypatch.setattr(check, "connect_fenced", broken)
    with pytest.raises(OSError, match="no engine"):
        checked(root)
