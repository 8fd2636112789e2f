"""The verb `render`, as a process."""

from __future__ import annotations

import os
from pathlib import Path

import orjson
import pytest
from crew import shared_crew

SPEC = """\
name: labels
source:
  query: |
    SELECT range AS id, 'text ' || range AS t FROM range(5)
  key: {key}
model: gpt-5-mini
template: |
  {{{{ t }}}}{more}
params: {{seed: 7}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "batchops.toml").write_text('provider = "local"\n', encoding="utf-8")
    write(tmp_path)
    return tmp_path


def write(project: Path, *, key: str = "id", more: str = "") -> None:
    (project / "jobs" / "a.yaml").write_text(SPEC.format(key=key, more=more), encoding="utf-8")


def run(project: Path, *arguments: str) -> tuple[int, bytes, str]:
    ended = shared_crew().run(["render", *arguments], cwd=project, environ=os.environ | {"NO_COLOR": "1"})
    return ended.code, ended.out.encode(), ended.err


def body(number: int) -> bytes:
    return b'{"model":"gpt-5-mini","messages":[{"role":"user","content":"text %d"}],"seed":7}' % number


def test_bodies_are_printed_one_a_line_and_nothing_else(project: Path) -> None:
    code, out, err = run(project, "labels")
    assert (code, sorted(out.splitlines()), err) == (0, [body(n) for n in range(5)], "")


def test_one_row_is_asked_for_by_address_or_key(project: Path) -> None:
    assert run(project, "labels@3")[1] == body(3) + b"\n"
    assert sorted(run(project, "labels", "--key", "3", "--key", "1")[1].splitlines()) == [body(1), body(3)]


def test_key_of_several_columns_is_written_as_json(project: Path) -> None:
    write(project, key="[id, t]")
    assert run(project, 'labels@["3", "text 3"]')[1] == body(3) + b"\n"
    code, _, err = run(project, "labels@3")
    assert code == 64
    assert 'The key of labels has 2 columns; write it as a list: labels@["id","t"]' in err


def test_json_lines_carry_key_digest_and_size(project: Path) -> None:
    _, out, _ = run(project, "labels@3", "--json")
    line = orjson.loads(out)
    assert list(line) == ["job", "key", "digest", "bytes", "body"]
    assert (line["job"], line["key"], line["bytes"]) == ("labels", {"id": 3}, len(body(3)))
    assert line["body"] == orjson.loads(body(3))


def test_limit_takes_so_many_rows(project: Path) -> None:
    assert len(run(project, "labels", "--limit", "2")[1].splitlines()) == 2


def test_explanation_goes_to_stderr(project: Path) -> None:
    code, out, err = run(project, "labels", "--explain")
    assert (code, len(out.splitlines()), err) == (0, 5, "All 5 rows are rendered in SQL.\n")
    write(project, more="{% for x in [1] %}{{ x }}{% endfor %}")
    _, out, err = run(project, "labels", "--explain")
    assert len(out.splitlines()) == 5
    assert err == (
        "Every row is rendered by Jinja2, because SQL cannot do exactly the same:\n"
        '  jobs/a.yaml:8: "for" is not compiled to SQL\n'
    )


def test_job_that_is_not_there_is_a_usage_error(project: Path) -> None:
    code, out, err = run(project, "label")
    assert (code, out) == (64, b"")
    assert 'Did you mean "labels"?' in err
