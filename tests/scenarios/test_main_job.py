"""The main job, as a user does it: real CLI processes, the real SDK, HTTP, a real state file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from service import Service, serving
from workshop import Workshop

LOCAL = 'project = "demo"\nprovider = "local"\n[poll]\ninitial = "20ms"\n'
REMOTE = 'project = "demo"\n[poll]\ninitial = "20ms"\n[submit]\nsettle_grace = "200ms"\n'
SCHEMA = {
    "title": "mood",
    "type": "object",
    "properties": {"mood": {"enum": ["good", "bad"]}, "sure": {"type": ["number", "null"]}},
    "required": ["mood", "sure"],
    "additionalProperties": False,
}
ROWS = "SELECT i AS id, 'review ' || i AS body FROM range(12) t(i)"


def job(name: str, **keys: Any) -> str:
    """A spec as JSON, which is YAML."""
    spec = {"name": name, "source": {"query": ROWS, "key": "id"}, "model": "gpt-5-mini", **keys}
    return json.dumps(spec, indent=2)


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    workshop = Workshop(tmp_path / "project")
    workshop.write({"batchops.toml": LOCAL})
    return workshop


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path / "served") as found:
        yield found


@pytest.fixture
def remote(service: Service, tmp_path: Path) -> Workshop:
    workshop = Workshop(tmp_path / "project", environ=service.environ)
    workshop.write({"batchops.toml": REMOTE})
    return workshop


TOOL = {
    "type": "function",
    "function": {
        "name": "file_review",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"stars": {"type": "integer", "minimum": 1, "maximum": 5}},
            "required": ["stars"],
            "additionalProperties": False,
        },
    },
}
JOBS = {
    "chat": job("chat", template="Sum up: {{ body }}"),
    "schema": job("schema", template=[{"role": "user", "content": "Mood of {{ body }}"}], schema=SCHEMA),
    "tools": job("tools", template="File {{ body }}", tools=[TOOL], tool_choice="required"),
    "responses": job("responses", endpoint="/v1/responses", template="Sum up: {{ body }}", schema=SCHEMA),
    "embeddings": job("embeddings", endpoint="/v1/embeddings", model="text-embedding-3-small", template="{{ body }}",
                      params={"dimensions": 8}),
    "moderations": job("moderations", endpoint="/v1/moderations", model="omni-moderation-latest",
                       template="{{ body }}"),
    "completions": job("completions", endpoint="/v1/completions", model="gpt-3.5-turbo-instruct",
                       template="Go on: {{ body }}", params={"max_tokens": 200}),
}  # fmt: skip


def _fits(name: str, answer: Any) -> bool:
    match name:
        case "chat" | "completions":
            return isinstance(answer, str) and bool(answer)
        case "schema" | "responses":
            return set(answer) == {"mood", "sure"} and answer["mood"] in {"good", "bad"}
        case "tools":
            return bool(answer["name"] == "file_review" and 1 <= answer["arguments"]["stars"] <= 5)
        case "embeddings":
            return len(answer) == 8 and all(isinstance(number, float) for number in answer)
        case "moderations":
            return "flagged" in answer and "categories" in answer
    raise AssertionError(name)


def test_every_endpoint_and_answer_form_is_asked_answered_and_read_back(shop: Workshop) -> None:
    shop.write({f"jobs/{name}.yaml": text for name, text in JOBS.items()})
    assert shop.run("validate", "--json").json["valid"] is True
    before = shop.plan()
    assert before["summary"]["rows"]["submit"] == 12 * len(JOBS)
    assert before["summary"]["batches"]["create"] == len(JOBS)
    events = shop.apply().lines
    assert events[-1]["type"] == "apply_complete"
    assert events[-1]["exit_code"] == 0
    assert events[-1]["summary"]["rows"]["submit"] == 12 * len(JOBS)
    for name in JOBS:
        rows = shop.results(name)
        assert [row["key"]["id"] for row in rows] == list(range(12))
        assert {row["status"] for row in rows} == {"succeeded"}
        assert all(_fits(name, row["answer"]) for row in rows), rows[0]
    after = shop.plan("--detailed-exitcode")
    assert after["summary"]["rows"]["unchanged"] == 12 * len(JOBS)


def test_a_second_apply_submits_nothing(remote: Workshop, service: Service) -> None:
    remote.write({"jobs/chat.yaml": JOBS["chat"]})
    remote.apply()
    assert service.calls("POST /v1/batches") == 1
    done = remote.apply().lines[-1]
    assert done["summary"]["rows"]["submit"] == 0
    assert service.calls("POST /v1/batches") == 1
    assert set(service.executions().values()) == {1}


def test_apply_without_wait_returns_after_submitting_and_a_later_one_fetches(
    remote: Workshop, service: Service
) -> None:
    remote.write({"jobs/chat.yaml": JOBS["chat"]})
    service.faults({"on": "batch", "effect": "stall", "seconds": 1000})
    first = remote.run("apply", "--auto-approve", "--json").lines[-1]
    assert first["summary"]["rows"]["in_flight"] == 12
    assert remote.plan("--detailed-exitcode")["summary"]["batches"]["in_flight"] == 1
    assert {row["status"] for row in remote.results("chat")} == {"in_flight"}
    left = remote.run("wait", "--timeout", "100ms", "--json", code=9).lines[-1]["summary"]
    assert (left["rows"]["in_flight"], left["batches"]["in_flight"]) == (12, 1)
    service.advance(2000)
    done = remote.run("wait", "--json").lines[-1]["summary"]
    assert (done["batches"]["fetch"], done["rows"]["in_flight"], done["rows"]["unchanged"]) == (1, 0, 12)
    assert {row["status"] for row in remote.results("chat")} == {"succeeded"}
    assert service.calls("POST /v1/batches") == 1


def test_planning_writes_nothing_and_calls_nobody(remote: Workshop, service: Service) -> None:
    remote.write({"jobs/chat.yaml": JOBS["chat"]})
    remote.run("plan")
    assert not (remote.root / "state" / "batchops.duckdb").exists()
    assert not [call for call in service.ledger()["calls"] if "/v1/" in call]


def test_detailed_exitcode_is_2_only_when_something_would_change(shop: Workshop) -> None:
    shop.write({"jobs/chat.yaml": JOBS["chat"]})
    shop.plan("--detailed-exitcode", code=2)
    shop.plan(code=0)
    shop.apply()
    shop.plan("--detailed-exitcode", code=0)


def test_an_edit_of_the_prompt_asks_again_and_going_back_is_free(remote: Workshop, service: Service) -> None:
    remote.write({"jobs/chat.yaml": JOBS["chat"]})
    remote.apply()
    remote.write({"jobs/chat.yaml": JOBS["chat"].replace("Sum up", "Judge")})
    plan = remote.plan()
    assert plan["summary"]["rows"]["resubmit"] == 12
    assert plan["jobs"][0]["reasons"] == {"prompt_changed": 12}
    assert "-  Sum up: {{ body }}" in plan["jobs"][0]["diff"]
    assert plan["jobs"][0]["samples"][0]["before"] != plan["jobs"][0]["samples"][0]["after"]
    remote.apply()
    remote.write({"jobs/chat.yaml": JOBS["chat"]})
    plan = remote.plan("--detailed-exitcode", code=2)
    assert plan["summary"]["rows"]["reuse"] == 12
    assert plan["cost"]["estimate_usd"] == {"low": 0.0, "high": 0.0}
    remote.apply()
    assert remote.plan("--detailed-exitcode")["summary"]["rows"]["unchanged"] == 12
    assert service.calls("POST /v1/batches") == 2
    assert set(service.executions().values()) == {1}


@pytest.mark.parametrize(
    "edit",
    [
        {"description": "other words"},
        {"owner": "somebody"},
        {"tags": ["x"]},
        {"retry": {"max_attempts": 7}},
        {"batch": {"metadata": {"team": "a"}}},
    ],
    ids=lambda edit: next(iter(edit)),
)
def test_an_edit_of_metadata_is_free(shop: Workshop, edit: dict[str, Any]) -> None:
    shop.write({"jobs/chat.yaml": JOBS["chat"]})
    shop.apply()
    shop.write({"jobs/chat.yaml": job("chat", template="Sum up: {{ body }}", **edit)})
    assert shop.plan("--detailed-exitcode")["summary"]["rows"]["unchanged"] == 12


def test_equal_requests_are_asked_once_and_answer_every_row(remote: Workshop, service: Service) -> None:
    query = "SELECT i AS id, i // 4 AS body FROM range(12) t(i)"
    remote.write({"jobs/chat.yaml": job("chat", template="Sum up {{ body }}", source={"query": query, "key": "id"})})
    remote.apply()
    assert len(service.executions()) == 3
    assert [row["status"] for row in remote.results("chat")] == ["succeeded"] * 12


def test_reuse_false_asks_each_row_for_itself(remote: Workshop, service: Service) -> None:
    query = "SELECT i AS id, i // 4 AS body FROM range(12) t(i)"
    spec = job("chat", template="Sum up {{ body }}", source={"query": query, "key": "id"}, lifecycle={"reuse": False})
    remote.write({"jobs/chat.yaml": spec})
    remote.apply()
    assert len(service.executions()) == 12
    assert remote.plan("--detailed-exitcode")["summary"]["rows"]["unchanged"] == 12


@pytest.mark.parametrize("first", [True, False], ids=["off", "on"])
def test_switching_reuse_and_editing_no_byte_pays_nothing_again(
    remote: Workshop, service: Service, first: bool
) -> None:
    for reuse, template in (
        (first, "Sum up {{ body }}"),
        (not first, "Sum up {{ body }}"),
        (not first, "{{ 'Sum up ' ~ body }}"),
    ):
        remote.write({"jobs/chat.yaml": job("chat", template=template, lifecycle={"reuse": reuse})})
        remote.apply()
    assert len(service.executions()) == 12
    assert remote.plan("--detailed-exitcode")["summary"]["rows"]["unchanged"] == 12


def test_simulated_answers_never_satisfy_a_real_provider(remote: Workshop, service: Service) -> None:
    remote.write({"jobs/chat.yaml": JOBS["chat"].replace('"name"', '"provider": "local", "name"')})
    remote.apply()
    assert service.ledger()["executed"] == 0
    remote.write({"jobs/chat.yaml": JOBS["chat"]})
    plan = remote.plan()
    assert plan["summary"]["rows"]["resubmit"] == 12
    assert plan["jobs"][0]["reasons"] == {"provider_changed": 12}
    remote.apply()
    assert service.ledger()["executed"] == 12


def test_limits_of_a_batch_split_the_rows_into_several(remote: Workshop, service: Service) -> None:
    remote.write({"jobs/chat.yaml": job("chat", template="Sum up: {{ body }}", batch={"max_requests": 5})})
    assert remote.plan()["summary"]["batches"]["create"] == 3
    done = remote.apply().lines[-1]
    assert done["summary"]["batches"]["create"] == 3
    assert set(service.executions().values()) == {1}
    assert len(service.executions()) == 12


def test_limit_takes_the_same_rows_each_time_and_forgets_none(shop: Workshop) -> None:
    shop.write({"jobs/chat.yaml": job("chat", template="Sum up: {{ body }}", lifecycle={"on_remove": "forget"})})
    shop.apply("--limit", "3")
    assert len(shop.results("chat")) == 3
    shop.apply("--limit", "5")
    assert len(shop.results("chat")) == 5
    shop.apply("--limit", "3")
    assert len(shop.results("chat")) == 5


def test_a_row_that_left_the_source_is_kept_or_forgotten_as_the_spec_says(shop: Workshop) -> None:
    def spec(count: int, on_remove: str) -> str:
        query = ROWS.replace("12", str(count))
        return job("chat", template="Sum up: {{ body }}", source={"query": query, "key": "id"},
                   lifecycle={"on_remove": on_remove})  # fmt: skip

    shop.write({"jobs/chat.yaml": spec(12, "keep")})
    shop.apply()
    shop.write({"jobs/chat.yaml": spec(10, "keep")})
    assert shop.plan("--detailed-exitcode")["summary"]["rows"]["unchanged"] == 10
    shop.apply()
    assert len(shop.results("chat")) == 10
    assert len(shop.results("chat", "--all")) == 12
    shop.write({"jobs/chat.yaml": spec(10, "forget")})
    assert shop.plan("--detailed-exitcode", code=2)["summary"]["rows"]["forget"] == 2
    shop.apply()
    assert len(shop.results("chat", "--all")) == 10


def test_apply_without_a_terminal_is_refused_at_once(shop: Workshop) -> None:
    shop.write({"jobs/chat.yaml": JOBS["chat"]})
    assert "--auto-approve" in shop.run("apply", code=64).err
    assert not (shop.root / "state" / "batchops.duckdb").exists()


def test_an_environment_is_a_slice_of_its_own_and_shares_what_was_paid(remote: Workshop, service: Service) -> None:
    remote.write({"batchops.toml": REMOTE + "[environments.dev]\nlimit = 4\n", "jobs/chat.yaml": JOBS["chat"]})
    remote.apply("--env", "dev")
    assert service.ledger()["executed"] == 4
    plan = remote.plan()
    assert plan["summary"]["rows"]["reuse"] == 4
    assert plan["summary"]["rows"]["submit"] == 8
    remote.apply()
    assert service.ledger()["executed"] == 12
    assert len(remote.results("chat", "--env", "dev")) == 4


def test_a_key_of_the_provider_appears_in_no_file_and_no_output(remote: Workshop, service: Service) -> None:
    remote.write({"jobs/chat.yaml": JOBS["chat"]})
    told = [remote.run("plan", "--out", "plan.json"), remote.apply("-v"), remote.run("status"), remote.run("doctor")]
    texts = [ran.out + ran.err for ran in told]
    texts += [path.read_bytes().decode("latin-1") for path in remote.root.rglob("*") if path.is_file()]
    assert not [text for text in texts if "sk-canary" in text]


NASTY = [
    'quotes " and \' and `', "new\nline", "tab\there", "bell\x07 esc\x1b", "emoji 👩‍👩‍👧 🇩🇪", "line\u2028sep\u2029para",
    "braces {{ x }} {% y %} {# z #}", "back\\slash \\n", "\x0b\x0e\x1f\x7f\x85", "é vs e\u0301", "</script><b>",
    "  spaces  ",    "ß İ ı ﬀ", "\ufeffbom", "a" * 10_000, "", "NULL", "%s %d {0}", "日本語テキスト", "\r\nwindows\r",
]  # fmt: skip


def test_nasty_text_survives_the_round_trip_byte_for_byte(tmp_path: Path) -> None:
    rows = [{"id": f"k{n}", "body": f"{NASTY[n % len(NASTY)]}#{n}" if n % 23 else None} for n in range(200)]
    (tmp_path / "echo.py").write_text(
        "def answer(body, url):\n    return body['messages'][0]['content']\n", encoding="utf-8"
    )
    words = ("--answers", "echo:answer")
    with serving(
        tmp_path / "served", *words, cwd=tmp_path, environ={"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    ) as found:
        shop = Workshop(tmp_path / "project", environ=found.environ)
        shop.write({"batchops.toml": REMOTE})
        shop.write({"data/rows.jsonl": "".join(json.dumps(row) + "\n" for row in rows)})
        source = {
            "query": "SELECT id, body FROM read_json('data/rows.jsonl', columns={id: 'VARCHAR', body: 'VARCHAR'})",
            "key": "id",
            "nulls": "text",
        }
        shop.write({"jobs/echo.yaml": job("echo", template="<{{ body }}>", source=source)})
        shop.apply()
        answers = {row["key"]["id"]: row["answer"] for row in shop.results("echo")}
    assert answers == {row["id"]: f"<{row['body']}>" for row in rows}
