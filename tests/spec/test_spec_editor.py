"""The editor schema: current, and of one mind with the loader."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchops.spec.editor import job_schema
from batchops.spec.job import JobSpec
from batchops.spec.load import LoadedProject
from batchops.spec.yaml import parse

Load = Callable[[dict[str, str]], LoadedProject]

ROOT = Path(__file__).parents[2]
JOB: dict[str, Any] = {
    "name": "labels",
    "source": {"query": "SELECT 1 AS id", "key": "id"},
    "model": "gpt-4o-mini",
    "template": "{{ id }}",
}


@pytest.fixture(scope="module")
def editor() -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(job_schema())


def _examples() -> Iterator[tuple[str, str]]:
    """Every job in the docs, and the project's own."""
    for page in sorted((ROOT / "docs").glob("*.md")):
        blocks = re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for number, text in enumerate(blocks):
            if re.search(r"^name:", text, flags=re.MULTILINE) and re.search(r"^source:", text, flags=re.MULTILINE):
                yield f"{page.name}[{number}]", text
    for path in sorted((ROOT / "jobs").rglob("*.yaml")):
        yield path.name, path.read_text(encoding="utf-8")


def test_schema_in_the_repository_is_the_one_that_is_printed() -> None:
    """To renew it: batchops schema > schemas/job.schema.json"""
    written = (ROOT / "schemas" / "job.schema.json").read_text(encoding="utf-8")
    assert written == json.dumps(job_schema(), indent=2, ensure_ascii=False) + "\n"


def test_schema_is_a_json_schema() -> None:
    jsonschema_rs.meta.validate(job_schema())


@pytest.mark.parametrize(("name", "text"), list(_examples()), ids=[name for name, _ in _examples()])
def test_schema_accepts_every_example(name: str, text: str, editor: jsonschema_rs.Validator) -> None:
    for document in parse(text, name).documents:
        assert [str(problem) for problem in editor.iter_errors(document.tree)] == []


def test_there_are_examples_in_the_docs() -> None:
    assert [name for name, _ in _examples() if name.startswith("jobs.md")]


@pytest.mark.parametrize(
    "change",
    [
        {"modle": "x"},
        {"retry": {"bakoff": {}}},
        {"source": {"key": "id"}},
        {"source": {"query": "a", "file": "b", "key": "id"}},
        {"template": {"fil": "x"}},
        {"template": [{"role": "usr", "content": "x"}]},
        {"body": {}},
        {"matrix": {"model": ["a"]}},
        {"batch": {"max_bytes": "10XB"}},
        {"retry": {"backoff": {"initial": "soon"}}},
        {"retry": {"max_failed": "150%"}},
        {"name": "Labels"},
    ],
)
def test_schema_refuses_what_the_loader_refuses(change: dict[str, Any], editor: jsonschema_rs.Validator) -> None:
    assert not editor.is_valid({**JOB, **change})


def test_every_key_is_described() -> None:
    schema = job_schema()
    parts = [schema, *(part for part in schema["$defs"].values() if "properties" in part)]
    silent = [
        name for part in parts for name, property_ in part["properties"].items() if not property_.get("description")
    ]
    assert silent == []
    assert len(parts) == 1 + 8


def test_keys_for_anchors_are_allowed(editor: jsonschema_rs.Validator) -> None:
    assert editor.is_valid({**JOB, "x-anything": {"a": 1}})


_FORM = {"unknown_key", "missing_key", "wrong_type", "value_not_allowed", "invalid_value", "not_supported_yet"}
_FORM |= {"query_choice", "template_choice"}
_WORDS = st.sampled_from(
    ["", "a", "id", "x2", "1m", "1h30m", "24h", "10MB", "64MiB", "1%", "user", "retry", "refused", "keep", "error"]
)
_VALUES = st.recursive(
    st.booleans() | st.integers(-1, 120) | _WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_WORDS, inner, max_size=2),
    max_leaves=3,
)
_PATHS: list[tuple[str | int, ...]] = [
    *((info.alias or name,) for name, info in JobSpec.model_fields.items()),
    *(("source", name) for name in ("query", "file", "key", "nulls", "sensitive", "attach")),
    *(("retry", name) for name in ("max_attempts", "backoff", "rules", "max_failed")),
    *(("retry", "backoff", name) for name in ("initial", "multiplier", "max")),
    *(("batch", name) for name in ("max_requests", "max_bytes", "metadata", "output_expires_after")),
    *(("retry", "rules", 0, name) for name in ("when", "do", "cap", "set", "model", "template")),
    *(("template", 1, name) for name in ("role", "content", "name")),
    *(("lifecycle", name) for name in ("on_change", "on_remove", "protect", "reuse")),
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.sampled_from(_PATHS), _VALUES)
def test_editor_and_loader_agree_about_every_key(
    load: Load, editor: jsonschema_rs.Validator, path: tuple[str | int, ...], value: Any
) -> None:
    """But for what JSON Schema cannot say: that names differ, that one wait is shorter than another, emptiness."""
    tree = json.loads(json.dumps(JOB))
    if path[0] == "template" and len(path) > 1:
        tree["template"] = [{"role": "system", "content": "x"}, {"role": "user", "content": "x"}]
    if "rules" in path[:-1]:
        tree["retry"] = {"rules": [{"when": ["refused"], "do": "retry"}]}
    inner = tree
    for step in path[:-1]:
        inner = inner[step] if isinstance(step, int) or step in inner else inner.setdefault(step, {})
    inner[path[-1]] = value
    found = [problem for problem in load({"jobs/a.yaml": json.dumps(tree)}).diagnostics if problem.code in _FORM]
    beyond = ("twice", "longer than", "is empty", "empty name", "results.…")
    refused = [problem for problem in found if not any(words in problem.detail for words in beyond)]
    assert editor.is_valid(tree) == (not refused), refused
