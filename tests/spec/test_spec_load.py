"""Loading a project: what a job is made of, every problem in one run, and nothing outside the project is read."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spec_bench import JOB, Load, placed

from batchops.diagnostics import BatchopsError, Location, Position, Severity
from batchops.spec.job import Effect, JobSpec, Message
from batchops.spec.load import load_project

SCHEMA = """\
{
  "type": "object",
  "properties": {"label": {"type": "string"}},
  "required": ["label"],
  "additionalProperties": false
}
"""


def test_every_field_of_a_job_says_what_its_edit_may_cause() -> None:
    silent = [
        name
        for name, info in JobSpec.model_fields.items()
        if sum(isinstance(mark, Effect) for mark in info.metadata) != 1
    ]
    assert silent == []


def test_a_key_without_a_value_is_marked_itself_and_not_what_follows(load: Load) -> None:
    text = "name: labels\nsource: {query: SELECT 1 AS id, key: id}\nmodel:\n\ntemplate: # later\nparams:\nowner: me\n"
    assert placed(load({"jobs/a.yaml": text}).diagnostics) == [
        "wrong_type jobs/a.yaml:3:1",
        "template_choice jobs/a.yaml:5:1",
        "wrong_type jobs/a.yaml:6:1",
    ]


def test_job_has_its_files_read_and_knows_them(load: Load) -> None:
    files = {
        "jobs/a.yaml": (
            "name: labels\n"
            "source: {file: queries/rows.sql, key: [id, part]}\n"
            "model: gpt-5\n"
            "template:\n"
            "  - {role: system, content: {file: prompts/label.md}}\n"
            "  - role: user\n"
            "    content: |\n"
            "      {{ id }}\n"
            "schema: schemas/answer.json\n"
            "retry: {rules: [{when: refused, do: retry, template: {file: prompts/other.md}}]}\n"
        ),
        "queries/rows.sql": "SELECT 1 AS id, 2 AS part\n",
        "prompts/label.md": "Label it.\n",
        "prompts/other.md": "Again.\n",
        "schemas/answer.json": SCHEMA,
    }
    project = load(files)
    (job,) = project.jobs
    assert project.diagnostics == ()
    assert (job.address, job.provider, job.query) == ("labels", "local", "SELECT 1 AS id, 2 AS part\n")
    assert job.spec.source.key == ("id", "part")
    assert job.template == (
        Message(role="system", content="Label it.\n"),
        Message(role="user", content="{{ id }}\n"),
    )
    assert job.spec.retry.rules[0].template == "Again.\n"
    assert job.schema == json.loads(SCHEMA)
    assert job.paths[0] == "jobs/a.yaml"
    assert set(job.paths) == set(files)
    assert job.location("template", 1, "content") == Location("jobs/a.yaml", Position(7, 14), Position(9, 1))
    assert job.text_location(("template", 1, "content"), 1, 4) == Location("jobs/a.yaml", Position(8, 10))
    assert job.text_location(("template", 0, "content"), 1, 4) == Location("prompts/label.md", Position(1, 4))
    assert job.text_location(("source", "query"), 1, 8) == Location("queries/rows.sql", Position(1, 8))


def test_defaults_are_those_of_the_docs(load: Load) -> None:
    (job,) = load({"jobs/a.yaml": JOB}).jobs
    spec = job.spec
    assert (spec.endpoint, spec.source.nulls, spec.enabled) == ("/v1/chat/completions", "error", True)
    assert (spec.retry.max_attempts, spec.retry.max_failed, spec.retry.rules) == (3, 0, ())
    assert (spec.retry.backoff.initial, spec.retry.backoff.max) == (timedelta(minutes=1), timedelta(hours=1))
    assert (spec.batch.max_requests, spec.batch.max_bytes, spec.batch.completion_window) == (50_000, 200_000_000, "24h")
    assert (spec.lifecycle.on_change, spec.lifecycle.on_remove) == ("resubmit", "keep")
    assert (spec.lifecycle.protect, spec.lifecycle.reuse) == (False, True)


def test_files_are_found_at_every_depth_in_order_and_dotfiles_are_not(load: Load) -> None:
    project = load(
        {
            "jobs/b.yml": JOB.replace("labels", "b"),
            "jobs/a/deep/c.yaml": JOB.replace("labels", "c"),
            "jobs/a.yaml": JOB.replace("labels", "a") + "---\n" + JOB.replace("labels", "a2"),
            "jobs/.hidden.yaml": "nonsense",
            "jobs/.git/d.yaml": "nonsense",
            "jobs/README.md": "nonsense",
        }
    )
    assert [job.name for job in project.jobs] == ["a", "a2", "c", "b"]
    assert project.diagnostics == ()


def test_every_problem_of_every_file_is_found_in_one_run_and_sorted_by_place(load: Load) -> None:
    project = load(
        {
            "jobs/b.yaml": JOB + "retry:\n  bakoff: {}\n",
            "jobs/a.yaml": (
                "name: labels\n"
                "modle: x\n"
                "source: {file: nowhere.sql, key: 3}\n"
                "model: gpt-5\n"
                "template: hello\n"
                "params: {max_tokens: 10, stream: true}\n"
                "schema: schemas/answer.json\n"
                "batch: {metadata: {batchops_job: x}}\n"
                "matrix: {model: [a]}\n"
                "owner: *nobody\n"
                "owner: x\n"
                "---\n"
                "name: [\n"
            ),
            "schemas/answer.json": SCHEMA.replace('"required": ["label"],\n', ""),
        }
    )
    assert placed(project.diagnostics) == [
        "unknown_key jobs/a.yaml:2:1",
        "missing_file jobs/a.yaml:3:16",
        "wrong_type jobs/a.yaml:3:34",
        "token_cap jobs/a.yaml:6:10",
        "stream_param jobs/a.yaml:6:26",
        "reserved_metadata jobs/a.yaml:8:20",
        "not_supported_yet jobs/a.yaml:9:1",
        "unknown_anchor jobs/a.yaml:10:8",
        "duplicate_key jobs/a.yaml:11:1",
        "yaml_syntax jobs/a.yaml:14:1",
        "duplicate_name jobs/b.yaml:1:7",
        "unknown_key jobs/b.yaml:8:3",
        "schema_not_strict schemas/answer.json:1:1",
    ]
    assert project.jobs == ()
    assert project.has_errors
    with pytest.raises(BatchopsError) as caught:
        project.valid_jobs()
    assert caught.value.diagnostics == project.diagnostics


def test_every_diagnostic_of_a_job_carries_its_address_and_its_source_line(load: Load) -> None:
    (found,) = load({"jobs/a.yaml": JOB.replace("gpt-4o-mini", "gpt-5") + "params: {max_tokens: 1}\n"}).diagnostics
    assert (found.address, found.snippet, found.fixes) == (
        "labels",
        "params: {max_tokens: 1}",
        ("max_completion_tokens",),
    )


def test_problem_of_an_anchor_that_two_jobs_share_is_said_once(load: Load) -> None:
    text = "x-retry: &retry {max_attempts: 0}\n" + JOB + "retry: *retry\nmoved_from: other\n"
    assert placed(load({"jobs/a.yaml": text}).diagnostics) == ["invalid_value jobs/a.yaml:1:32"]


def test_schema_file_that_two_jobs_share_is_complained_about_once(load: Load) -> None:
    job = JOB + "schema: schemas/answer.json\n"
    files = {"jobs/a.yaml": job, "jobs/b.yaml": job.replace("labels", "other"), "schemas/answer.json": "[]"}
    assert placed(load(files).diagnostics) == ["schema_invalid schemas/answer.json:1:1"]


def test_job_with_a_mistake_that_does_not_stop_rendering_is_still_loaded(load: Load) -> None:
    project = load({"jobs/a.yaml": JOB + "params: {stream: true}\n"})
    assert ([job.name for job in project.jobs], project.has_errors) == (["labels"], True)


@pytest.mark.parametrize(
    "mistake",
    [
        "template: [{role: user, content: x}]\nendpoint: /v1/embeddings\n",
        "source: {query: '', key: id}\ntemplate: x\n",
        "source: {file: none.sql, key: id}\ntemplate: x\n",
        "template: {file: none.md}\n",
        "template: x\nbody: {messages: []}\n",
        "",
        "template: x\nschema: none.json\n",
        "template: x\nunknown: 1\n",
        "template: x\nchecks: []\n",
        "template: x\nsource: {query: 'SELECT * FROM results.\"a\"', key: id}\n",
    ],
)
def test_job_that_cannot_be_rendered_is_not_loaded(load: Load, mistake: str) -> None:
    base = "name: labels\nmodel: m\n" + ("" if "source" in mistake else "source: {query: SELECT 1 AS id, key: id}\n")
    project = load({"jobs/a.yaml": base + mistake})
    assert (project.jobs, project.has_errors) == ((), True)


@pytest.mark.parametrize(
    ("extra", "places"),
    [
        ("budget: {max_rows: 1}\n", ["not_supported_yet jobs/a.yaml:7:1"]),
        ("rollout: {canary: 1}\n", ["not_supported_yet jobs/a.yaml:7:1"]),
        ("checks: []\n", ["not_supported_yet jobs/a.yaml:7:1"]),
        ("evaluate: {expected: a, actual: b}\n", ["not_supported_yet jobs/a.yaml:7:1"]),
        ("output: {path: out/a.csv}\n", ["not_supported_yet jobs/a.yaml:7:1"]),
        ("output:\n", []),
        ("schema_: {}\n", ["unknown_key jobs/a.yaml:7:1"]),
        ("tags: reviews\n", []),
        ("tags: 2024\n", ["wrong_type jobs/a.yaml:7:7"]),
        ("enabled: yes\n", ["wrong_type jobs/a.yaml:7:10"]),
        ("retry: {max_attempts: '3'}\n", ["wrong_type jobs/a.yaml:7:23"]),
        ("retry: {max_failed: 101%}\n", ["invalid_value jobs/a.yaml:7:21"]),
        ("retry: {backoff: {initial: 2h}}\n", ["invalid_value jobs/a.yaml:7:28"]),
        (f"retry: {{backoff: {{initial: {'9' * 400}h}}}}\n", ["invalid_value jobs/a.yaml:7:28"]),
        (f"batch: {{max_bytes: {'9' * 400}}}\n", ["invalid_value jobs/a.yaml:7:20"]),
        ("retry: {backoff: {initial: 5}}\n", ["invalid_value jobs/a.yaml:7:28"]),
        ("retry: {rules: [{when: [], do: retry}]}\n", ["invalid_value jobs/a.yaml:7:24"]),
        ("retry: {rules: [{when: refused}]}\n", ["missing_key jobs/a.yaml:7:17"]),
        ("retry: {rules: [{when: refusd, do: hold}]}\n", ["value_not_allowed jobs/a.yaml:7:24"]),
        ("retry: {rules: [{when: truncated, do: retry, cap: 2}]}\n", ["wrong_type jobs/a.yaml:7:51"]),
        ("retry: {rules: [{when: truncated, do: retry, cap: x1}]}\n", ["rule_conflict jobs/a.yaml:7:17"]),
        ("retry: {rules: [{when: succeeded, do: retry}]}\n", ["rule_conflict jobs/a.yaml:7:17"]),
        ("retry: {rules: [{when: expired, do: retry, template: []}]}\n", ["template_form jobs/a.yaml:7:54"]),
        ("batch: {metadata: {a: 1}}\n", ["wrong_type jobs/a.yaml:7:23"]),
        (f"batch: {{metadata: {json.dumps({f'k{i}': 'v' for i in range(12)})}}}\n", ["invalid_value jobs/a.yaml:7:19"]),
        ("batch: {max_bytes: 0}\n", ["invalid_value jobs/a.yaml:7:20"]),
        ("batch: {completion_window: 24}\n", ["wrong_type jobs/a.yaml:7:28"]),
        ("batch: {output_expires_after: 30m}\n", ["output_expiry jobs/a.yaml:7:31"]),
        ("moved_from: labels\n", ["moved_from_clash jobs/a.yaml:7:13"]),
        ("moved_from: Labels\n", ["invalid_value jobs/a.yaml:7:13"]),
        ("schema: [1]\n", ["wrong_type jobs/a.yaml:7:9"]),
        ("schema: ''\n", ["missing_file jobs/a.yaml:7:9"]),
        ("tools: []\n", ["tool_form jobs/a.yaml:7:8"]),
        ("tool_choice: required\n", ["tool_form jobs/a.yaml:7:1"]),
        ("tools: [{name: a}]\ntool_choice: requird\n", ["tool_form jobs/a.yaml:8:14"]),
        ("tools: [{name: a}]\ntool_choice: {type: function, name: b}\n", ["tool_form jobs/a.yaml:8:14"]),
        ("tools: [{name: a}]\ntool_choice: {type: function, function: {name: b}}\n", ["tool_form jobs/a.yaml:8:14"]),
        ("tools: [{name: a}]\ntool_choice: {type: function, function: {name: a}}\n", []),
        ("tools: [{name: a}]\ntool_choice: {type: allowed_tools, mode: auto, tools: []}\n", []),
        ("tools: [{type: web_search}]\n", ["tool_form jobs/a.yaml:7:9"]),
        ("tools: [{name: a}, {name: a}]\n", ["tool_form jobs/a.yaml:7:20"]),
        ("tools: [{name: a, parameters: {type: oops}}]\n", ["schema_invalid jobs/a.yaml:7:38"]),
        ("tools: [{name: a, strict: true, parameters: {type: object}}]\n", ["schema_not_strict jobs/a.yaml:7:45"]),
        ("params: {messages: []}\n", ["param_conflict jobs/a.yaml:7:10"]),
        ("params: {tools: []}\n", ["param_conflict jobs/a.yaml:7:10"]),
        ("params: {seed: 123456789012345678901234567890}\n", ["not_json jobs/a.yaml:7:16"]),
        ("params: {model: gpt-4o-mini}\n", []),
        ("provider: nobody\n", ["unknown_provider jobs/a.yaml:7:11"]),
    ],
)
def test_mistake_in_a_key_is_one_diagnostic_at_its_place(load: Load, extra: str, places: list[str]) -> None:
    assert placed(load({"jobs/a.yaml": JOB + extra}).diagnostics) == places


@pytest.mark.parametrize(
    ("template", "place"),
    [
        ("template: 5", "wrong_type jobs/a.yaml:6:11"),
        ("template: {fil: x}", "missing_key jobs/a.yaml:6:11, unknown_key jobs/a.yaml:6:12"),
        ("template: [{role: usr, content: x}]", "value_not_allowed jobs/a.yaml:6:19"),
        ("template: [{role: user}]", "missing_key jobs/a.yaml:6:12"),
        ("template: [{role: user, content: 3}]", "wrong_type jobs/a.yaml:6:34"),
        ("template: [{role: user, content: []}]", "template_form jobs/a.yaml:6:34"),
        ("template: [{role: user, content: [x]}]", "wrong_type jobs/a.yaml:6:35"),
        ("template: [hello]", "wrong_type jobs/a.yaml:6:12"),
        ("template: ' '", "template_form jobs/a.yaml:6:11"),
        ("template: []", "template_form jobs/a.yaml:6:11"),
        ("template:", "template_choice jobs/a.yaml:6:1"),
        ("template: null", "template_choice jobs/a.yaml:6:1"),
        ("body: ~", "template_choice jobs/a.yaml:6:1"),
        ("body: 3", "wrong_type jobs/a.yaml:6:7"),
        ("body: {messages: [], model: gpt-5}", "param_conflict jobs/a.yaml:6:22"),
    ],
)
def test_template_of_the_wrong_form_is_one_readable_message(load: Load, template: str, place: str) -> None:
    """No list of every other form that it might have had."""
    project = load({"jobs/a.yaml": JOB.replace('template: "{{ id }}"', template)})
    assert ", ".join(placed(project.diagnostics)) == place
    assert not any("<" in found.detail for found in project.diagnostics)


@pytest.mark.parametrize(
    "query", ["FROM results.labels", 'from  results . "labels"', 'SELECT * FROM a JOIN "results"."b"']
)
def test_query_that_reads_results_of_a_job_is_not_supported_yet(load: Load, query: str) -> None:
    (found,) = load({"jobs/a.yaml": JOB.replace("SELECT 1 AS id", json.dumps(query))}).diagnostics
    assert (found.code, found.location and found.location.start) == ("not_supported_yet", Position(3, 3))


@pytest.mark.parametrize(
    "query", ["SELECT 'FROM results.a'", "FROM x AS results -- from results.a", "FROM my_results.a"]
)
def test_query_that_only_mentions_results_is_accepted(load: Load, query: str) -> None:
    assert load({"jobs/a.yaml": JOB.replace("SELECT 1 AS id", json.dumps(query))}).diagnostics == ()


def test_unknown_default_provider_is_said_of_each_job_that_relies_on_it(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    text = JOB + "---\n" + JOB.replace("labels", "other") + "provider: local\n"
    (tmp_path / "jobs/a.yaml").write_text(text, encoding="utf-8")
    found = load_project(tmp_path, default_provider="gone", providers=["local"]).diagnostics
    assert placed(found) == ["unknown_provider jobs/a.yaml:1:1"]


def test_disabled_jobs_are_checked_and_loaded(load: Load) -> None:
    project = load({"jobs/a.yaml": JOB + "enabled: false\nparams: {stream: true}\n"})
    assert [job.spec.enabled for job in project.jobs] == [False]
    assert placed(project.diagnostics) == ["stream_param jobs/a.yaml:8:10"]


def test_former_name_can_be_claimed_once(load: Load) -> None:
    one, other = JOB + "moved_from: old\n", JOB.replace("labels", "other") + "moved_from: old\n"
    assert placed(load({"jobs/a.yaml": one, "jobs/b.yaml": other}).diagnostics) == ["moved_from_clash jobs/b.yaml:7:13"]


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "a", "x2", "1m", "24h", "10MB", "1%", "user", "retry", "refused", "keep", "/v1/responses"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["file", "query", "key", "role", "content", "when", "do", "rules", "initial", "x", "type"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
_KEYS = [info.alias or name for name, info in JobSpec.model_fields.items()]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from([*_KEYS, "unknown"]), _VALUES, max_size=4))
def test_no_spec_makes_loading_raise(tmp_path: Path, changes: dict[str, Any]) -> None:
    base = {"name": "a", "source": {"query": "SELECT 1 AS id", "key": "id"}, "model": "gpt-5", "template": "x"}
    (tmp_path / "jobs").mkdir(exist_ok=True)
    (tmp_path / "jobs/a.yaml").write_text(json.dumps({**base, **changes}), encoding="utf-8")
    project = load_project(tmp_path, default_provider="local", providers=["local"])
    assert all(found.location is not None and found.location.start.line == 1 for found in project.diagnostics)
    assert project.jobs or any(found.severity is Severity.ERROR for found in project.diagnostics)
