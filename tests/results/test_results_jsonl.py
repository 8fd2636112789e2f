"""JSON lines: every key of the public shape, for a row in every state."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from result_states import ANSWERED, GIVEN_UP, PENDING, State, every_state, ordinal, the_job

from batchops.results.answers import Answers, Selection, prepare
from batchops.results.sinks import Target, sink
from batchops.store.snapshot import snapshot

NO_USAGE = '{"input_tokens":null,"output_tokens":null,"cached_tokens":null,"reasoning_tokens":null}'
USAGE = '{"input_tokens":100,"output_tokens":20,"cached_tokens":0,"reasoning_tokens":0}'


def text(path: Path, address: str, **selection: Any) -> str:
    out = io.BytesIO()
    with snapshot(path) as con:
        prepare(con)
        job = the_job(con, address)
        sink("jsonl")(Answers(con, job, path.parent, Selection(**selection)), Target(out))
    return out.getvalue().decode()


def line(key: str, status: str, *, answer: str = "null", error: str = "null", rest: str, digest: str) -> str:
    head = f'{{"job":"review-sentiment","key":{{"review_id":{key}}},"status":"{status}","answer":{answer}'
    return f'{head},"error":{error},"attempts":1,{rest},"digest":"{digest}"}}\n'


def ended(error: str, finish: str = "null") -> str:
    return f'"model":"gpt-5-mini","finish_reason":{finish},"usage":{NO_USAGE},"cost_usd":null,"batch_id":"{error}"'


def test_a_row_in_every_state_prints_one_line_with_the_public_keys_in_order_of_key(tmp_path: Path) -> None:
    answered = '"model":"gpt-5-mini-2025-08-07","finish_reason":"stop",'
    answered += f'"usage":{USAGE},"cost_usd":3.25e-05,"batch_id":"batch_1"'
    assert text(every_state(tmp_path / "s.duckdb").write(), "review-sentiment") == (
        line(
            "9",
            "succeeded",
            answer='{"sentiment":"neg","score":1e-7}',
            rest=answered,
            digest="ed068000238b02de9de39c28680f0163",
        )
        + line(
            "10",
            "succeeded",
            answer='{"sentiment":"pos","score":0.75}',
            rest=answered,
            digest="f21c431104ba6de8b6045e9d7ae6d9af",
        )
        + line(
            "11",
            "rate_limited",
            error='{"class":"rate_limited","code":"slow_down","message":"About rate_limited."}',
            rest=ended("batch_1"),
            digest="1935be65d9b16ff28869b751f1485159",
        )
        + line(
            "12",
            "refused",
            error='{"class":"refused","code":null,"message":"About refused."}',
            rest=ended("batch_1", '"stop"'),
            digest="c045c92d7e56a3be70499ca646db7d81",
        )
        + line(
            "13",
            "held",
            error='{"class":"quota_exhausted","code":"insufficient_quota","message":"About quota_exhausted."}',
            rest=ended("batch_1"),
            digest="6031d90f20faec69844a35edf0b9fe46",
        )
        + line("14", "in_flight", rest=ended("batch_second"), digest="ef419b57ddba3acdd179e87780c245ea")
    )


def test_a_request_that_came_back_in_no_file_says_how_its_batch_ended(tmp_path: Path) -> None:
    state = State(tmp_path / "s.duckdb")
    job = state.job("a")
    errors = [{"line": 2, "message": "Unknown parameter."}, {"line": None, "message": "Broken."}]
    plain, failed = state.submission(job), state.submission(job, remote=json.dumps({"errors": {"data": errors}}))
    for line_no, (submission, outcome) in enumerate(
        [(failed, "bad_request"), (failed, "bad_request"), (plain, "expired"), (plain, "missing"), (plain, "cancelled")]
    ):
        found = state.row(job, str(line_no))
        state.request(found, GIVEN_UP, outcome=outcome, attempts=1, submission_id=submission, line=line_no)
        state.add("attempts", submission_id=submission, line=line_no, digest=found, round=0, attempt=1)
        state.add("outcomes", submission_id=submission, line=line_no, outcome=ordinal(outcome))
    printed = [json.loads(printed) for printed in text(state.write(), "a").splitlines()]
    assert [row["error"]["message"] for row in printed] == [
        "Broken.",
        "Unknown parameter.",
        "The batch expired before this request was executed.",
        "No line came back for this request.",
        "The batch was cancelled before this request was executed.",
    ]


def keys(printed: str) -> list[str]:
    return [f"{json.loads(row)['key']['review_id']} {json.loads(row)['status']}" for row in printed.splitlines()]


def test_status_chooses_classes_and_failed_means_every_row_that_was_given_up(tmp_path: Path) -> None:
    path = every_state(tmp_path / "s.duckdb").write()
    chosen = {
        name: keys(text(path, "review-sentiment", statuses=frozenset(name.split(","))))
        for name in ("failed", "succeeded", "held,in_flight", "rate_limited", "pending", "truncated", "refused,failed")
    }
    assert chosen == {
        "failed": ["12 refused"],
        "succeeded": ["9 succeeded", "10 succeeded"],
        "held,in_flight": ["13 held", "14 in_flight"],
        "rate_limited": ["11 rate_limited"],
        "pending": ["15 pending"],
        "truncated": [],
        "refused,failed": ["12 refused"],
    }


def test_rows_that_left_the_source_and_rows_not_asked_yet_show_only_when_everything_is_asked_for(
    tmp_path: Path,
) -> None:
    path = every_state(tmp_path / "s.duckdb").write()
    assert keys(text(path, "review-sentiment", everything=True))[-2:] == ["15 pending", "16 not_found"]
    assert keys(text(path, "review-sentiment", everything=True, statuses=frozenset({"failed"}))) == [
        "12 refused",
        "16 not_found",
    ]
    assert keys(text(path, "review-sentiment", limit=2)) == ["9 succeeded", "10 succeeded"]


def test_an_answer_to_an_older_digest_is_not_shown_as_the_answer_of_the_row(tmp_path: Path) -> None:
    state = State(tmp_path / "s.duckdb")
    job = state.job("a", key=("review_id",))
    first = state.submission(job)
    state.answered(job, "x", first, 0, "old")
    state.tables["rows"].clear()
    state.request(state.row(job, "x", body="new"), PENDING)
    assert text(state.write(), "a", everything=True).count('"status":"pending","answer":null') == 1


def test_a_row_whose_next_round_is_not_asked_yet_shows_how_the_round_before_ended(tmp_path: Path) -> None:
    state = State(tmp_path / "s.duckdb")
    job = state.job("a", key=("review_id",))
    first = state.submission(job)
    state.answered(job, "x", first, 0, "first answer")
    state.tables["rows"][0]["round"] = 2
    digest = state.tables["rows"][0]["digest"]
    state.request(digest, GIVEN_UP, round=1, outcome="refused", attempts=1, submission_id=first, line=7)
    state.request(digest, PENDING, round=2)
    state.request(state.row(job, "y", round=1), PENDING, round=1)
    assert keys(text(state.write(), "a")) == ["x refused"]


def test_an_answer_paid_for_by_another_job_is_shown_with_the_batch_that_paid_for_it(tmp_path: Path) -> None:
    state = State(tmp_path / "s.duckdb")
    payer, reader = state.job("payer"), state.job("reader")
    digest = state.answered(payer, "x", state.submission(payer), 0, "shared")
    state.add("rows", job_id=reader, key="other", digest=digest, round=0)
    found = text(state.write(), "reader")
    assert '"key":{"id":"other"},"status":"succeeded","answer":"shared"' in found
    assert '"batch_id":"batch_1"' in found


def test_keys_are_numbers_for_integers_and_text_for_everything_else(tmp_path: Path) -> None:
    state = State(tmp_path / "s.duckdb")
    job = state.job("a", key=("n", "day"), key_types=("HUGEINT", "DATE"))
    batch = state.submission(job)
    for number, key in enumerate(['["170141183460469231731687303715884105727","2026-11-22"]', '["-3","2026-01-01"]']):
        state.answered(job, key, batch, number, "ok")
    assert [row.split(',"status"')[0] for row in text(state.write(), "a").splitlines()] == [
        '{"job":"a","key":{"n":-3,"day":"2026-01-01"}',
        '{"job":"a","key":{"n":170141183460469231731687303715884105727,"day":"2026-11-22"}',
    ]


def test_answers_of_every_kind_print_as_the_model_wrote_them_on_one_line(tmp_path: Path) -> None:
    state = State(tmp_path / "s.duckdb")
    job = state.job("a")
    batch = state.submission(job)
    written = [
        '"text"',
        '{"name":"f","arguments":{"x":1.10}}',
        "[0.10,-1e-9]",
        "[[1],[2]]",
        '{\n "a": 1}',
        '"\\u0000\\n"',
    ]
    for number, answer in enumerate(written):
        state.answered(job, str(number), batch, number, None, raw_answer=answer)
    printed = text(state.write(), "a").splitlines()
    assert [row.split('"answer":')[1].split(',"error"')[0] for row in printed] == [
        *written[:4],
        '{  "a": 1}',
        written[5],
    ]


def test_a_job_with_nothing_but_an_unfetched_batch_prints_its_rows_in_flight(tmp_path: Path) -> None:
    state = State(tmp_path / "s.duckdb")
    job = state.job("a")
    batch = state.submission(job, phase="created")
    state.request(state.row(job, "x"), 1, submission_id=batch, line=0)
    assert '"status":"in_flight","answer":null,"error":null,"attempts":0' in text(state.write(), "a")


def test_environments_are_separate_slices(tmp_path: Path) -> None:
    state = State(tmp_path / "s.duckdb")
    default, dev = state.job("a"), state.job("a", environment="dev")
    batch = state.submission(default)
    state.answered(default, "x", batch, 0, "one")
    state.request(state.row(dev, "y"), ANSWERED, outcome="succeeded", attempts=1, submission_id=batch, line=0)
    path = state.write()
    with snapshot(path, environment="dev") as con:
        prepare(con)
        job = the_job(con, "a")
        assert [row[0] for row in Answers(con, job, path.parent).stream("key")] == ["y"]
