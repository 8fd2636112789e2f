"""Two paths of judging, one result: what the engine takes, it takes as the judge would have."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from result_files import (
    CHAT,
    COMPLETIONS,
    MOST_LINES,
    RESPONSES,
    SCHEMA,
    TOOLS,
    Case,
    Writer,
    digest,
    identifier,
    judged,
)

from batchops.engine import judging
from batchops.engine.bulk import cost_sql
from batchops.plan.prices import Price, cost_nano_usd
from batchops.request.answers import Usage

SHARE = 0.25
"""At least this part of all random answers is taken by the engine, though half of the lines are odd by intent, batches
have few lines to learn from, and vectors and moderations are never taken."""

_TALLY: Counter[str] = Counter()


def both_ways(case: Case, monkeypatch: pytest.MonkeyPatch, *, lines: int = MOST_LINES) -> tuple[Any, Any]:
    """What the two paths make of a case, the fast one first."""
    with tempfile.TemporaryDirectory() as name, monkeypatch.context() as patch:
        fast = judged(case, Path(name), lines)
        patch.setattr(judging, "read_file", lambda *_: False)
        slow = judged(case, Path(name), lines)
    assert slow[2].fast_lines == 0
    return fast, slow


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_both_paths_judge_alike(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fast, slow = both_ways(Writer(seed).case(), monkeypatch)
    _TALLY["cases"] += 1
    _TALLY["answers"] += sum(row[3] == 0 for row in fast[0])
    _TALLY["fast"] += fast[2].fast_lines
    assert fast[0] == slow[0]
    assert fast[1] == slow[1]
    assert (fast[2].outcomes, fast[2].states) == (slow[2].outcomes, slow[2].states)
    assert (fast[2].cost_nano_usd, fast[2].answers) == (slow[2].cost_nano_usd, slow[2].answers)


def test_part_of_the_random_answers_is_taken_by_the_engine(record_property: Any) -> None:
    if not _TALLY["answers"]:
        pytest.skip("the random batches were judged in another process")
    share = _TALLY["fast"] / _TALLY["answers"]
    record_property("reached", f"{_TALLY['cases']} random batches judged both ways: {share:.0%} of answers in SQL")
    assert share >= SHARE


def chat(number: int, content: str, **message: Any) -> str:
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10 + number, "completion_tokens": 2}
    return line(number, {"id": f"c{number}", "model": "m", "choices": [choice], "usage": usage})


def line(number: int, body: Any) -> str:
    response = {"status_code": 200, "request_id": f"r{number}", "body": body}
    return json.dumps({"id": f"b{number}", "custom_id": identifier(number), "response": response, "error": None})


def responses(number: int, said: str) -> str:
    output = [{"type": "message", "content": [{"type": "output_text", "text": said}]}]
    return line(number, {"model": "m", "status": "completed", "output": output, "usage": {"input_tokens": number}})


def completions(number: int, said: str) -> str:
    return line(number, {"model": "m", "choices": [{"text": said, "finish_reason": "stop"}]})


def called(number: int, arguments: str) -> str:
    call = {"id": f"call_{number}", "type": "function", "function": {"name": "label", "arguments": arguments}}
    return chat(number, "", tool_calls=[call])


FITTING = '{"label": "pos", "score": 0.5, "count": null, "tags": ["a", "\\u00e9"], "more": null}'


@pytest.mark.parametrize(
    ("endpoint", "expect", "write", "said"),
    [
        (CHAT, {}, chat, 'He said "no" \u2028 \U0001f600 \\ /'),
        (CHAT, {"schema": SCHEMA}, chat, FITTING),
        (CHAT, {"schema": SCHEMA}, chat, json.dumps(json.loads(FITTING), separators=(",", ":"))),
        (CHAT, {"tools": TOOLS}, called, FITTING),
        (RESPONSES, {}, responses, "hello"),
        (RESPONSES, {"schema": SCHEMA}, responses, FITTING),
        (COMPLETIONS, {}, completions, "hello"),
    ],
)
def test_plain_successes_are_all_taken_by_the_engine(
    endpoint: str, expect: dict[str, Any], write: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = "\n".join(write(number, said) for number in range(20)).encode()
    fast, slow = both_ways(Case(endpoint, expect, (content,)), monkeypatch)
    assert fast[2].fast_lines == 20
    assert fast[:2] == slow[:2]


_PRETENDERS: tuple[tuple[str, str], ...] = (
    ('"id": "b7"', r'"id": "b7\", \"x"'),
    ('"id": "b7"', '"id": "b7", "x": "y"'),
    ('"id": "b7"', r'"id": "\""'),
    ('"id": "b7"', r'"id": "\\"'),
    ('"id": "b7"', '"id": 7'),
    ('"id": "b7"', '"id": null'),
    ('"id": "b7"', '"id": {"x": 1}'),
    ('"id": "b7"', '"id": ""'),
    ('"request_id": "r7"', r'"request_id": "r\u0037"'),
    ('"request_id": "r7"', '"request_id": "r7", "status_code": 500'),
    ('"model": "m7"', r'"model": "m7\", \"choices\": ["'),
    ('"model": "m7"', '"model": "", "model": "m7"'),
    ('"model": "m7"', '"model": ""'),
    ('"model": "m7"', '"model": null'),
    ('"created": 1007', '"created": "1007"'),
    ('"created": 1007', r'"created": "\"1007"'),
    ('"created": 1007', '"created": -0'),
    ('"created": 1007', '"created": 1e3'),
    ('"created": 1007', '"created": 1e400'),
    ('"created": 1007', '"created": true'),
    ('"created": 1007', '"created": [1007]'),
    ('"created": 1007', '"created": 1007, "created": 1'),
    ('"prompt_tokens": 17', '"prompt_tokens": "17"'),
    ('"prompt_tokens": 17', '"prompt_tokens": 17.0'),
    ('"prompt_tokens": 17', '"prompt_tokens": 017'),
    ('"prompt_tokens": 17', '"prompt_tokens": 4294967296'),
    ('"prompt_tokens": 17', '"prompt_tokens": 17, "prompt_tokens": 18'),
    ('"content": "hello 7"', '"content": "hello 7", "content": "other"'),
    ('"content": "hello 7"', '"content": "hello 7", "refusal": "No."'),
    ('"content": "hello 7"', '"content": "hello 7" '),
    ('"content": "hello 7"', '"content": "hello 7",'),
    ('"content": "hello 7"', '"content": ""'),
    ('"content": "hello 7"', '"content": 7'),
    ('"content": "hello 7"', '"content": ["hello"]'),
    ('"content": "hello 7"', r'"content": "hello\u0000"'),
    ('"content": "hello 7"', r'"content": "\ud83d"'),
    ('"content": "hello 7"', r'"content": "\", \"refusal\": \"No."'),
    ('"custom_id": "', r'"custom_id": "\u0030'),
    ('"custom_id": "', '"custom_id": "x", "custom_id": "'),
    ('"finish_reason": "stop"', '"finish_reason": "STOP"'),
    ('"finish_reason": "stop"', '"finish_reason": "stop", "finish_reason": "length"'),
    ('"completion_tokens": 2', '"completion_tokens": 3'),
    ('"error": null', '"error": {"code": "batch_expired"}'),
)
"""Parts of a plain line, and what stands in their place in a line that is not quite one."""


def test_lines_that_are_not_quite_like_the_others_are_judged_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """They stand where no example is taken from."""
    lines = [_dated(number) for number in range(240)]
    plain = lines[7]
    for number, (part, instead) in enumerate(_PRETENDERS, start=20):
        assert part in plain
        lines[number] = plain.replace(identifier(7), identifier(number)).replace(part, instead, 1)
    fast, slow = both_ways(Case(CHAT, {}, ("\n".join(lines).encode(),)), monkeypatch, lines=len(lines))
    assert fast[0] == slow[0]
    assert fast[1] == slow[1]
    assert len(lines) - len(_PRETENDERS) <= fast[2].fast_lines < len(lines) - len(_PRETENDERS) / 2


def _dated(number: int) -> str:
    choice = {"index": 0, "message": {"role": "assistant", "content": f"hello {number}"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10 + number, "completion_tokens": 2}
    body = {"id": "c", "created": 1000 + number, "model": f"m{number}", "choices": [choice], "usage": usage}
    return line(number, body)


def answers(case: Case, tmp_path: Path) -> dict[int, Any]:
    """The answers of a case by line."""
    return {row[1]: row[6] and json.loads(row[6]) for row in judged(case, tmp_path)[1]}


def test_of_two_answers_the_first_counts_whichever_path_reads_it(tmp_path: Path) -> None:
    odd = chat(1, "odd and first", extra={"x": [1]})
    plain = [chat(number, f"plain {number}") for number in range(20)]
    first = Case(CHAT, {}, ("\n".join([odd, *plain]).encode(),))
    last = Case(CHAT, {}, ("\n".join([*plain, odd]).encode(),))
    in_files = Case(CHAT, {}, (odd.encode(), "\n".join(plain).encode()))
    assert answers(first, tmp_path)[1] == "odd and first"
    assert answers(last, tmp_path)[1] == "plain 1"
    assert answers(in_files, tmp_path)[1] == "odd and first"
    assert len(answers(first, tmp_path)) == 20


def test_answer_counts_before_a_failure_wherever_it_stands(tmp_path: Path) -> None:
    failed = json.dumps({"custom_id": identifier(3), "response": None, "error": {"code": "batch_expired"}})
    plain = "\n".join(chat(number, "hello") for number in range(20))
    found, _, totals = judged(Case(CHAT, {}, (failed.encode(), plain.encode())), tmp_path, lines=20)
    assert [row[3] for row in found] == [0] * 20
    assert (totals.answers, totals.fast_lines) == (20, 20)


def test_line_of_another_batch_is_nobodys(tmp_path: Path) -> None:
    plain = "\n".join(chat(number, "hello") for number in range(20))
    found, said, _ = judged(Case(CHAT, {}, (plain.encode(),)), tmp_path, lines=5)
    assert [row[1] for row in found] == [digest(number) for number in range(5)]
    assert len(said) == 5


def test_file_that_the_engine_cannot_read_is_read_line_by_line(tmp_path: Path) -> None:
    plain = "\n".join(chat(number, "hello") for number in range(20)).encode()
    odd_ends = {b'\n{"x":"\xff"}': 20, b"\n\x01": 20, b"\x01\n": 19, b"\r\r": 20, b'\n"' + b"x" * 2_100_000 + b'"': 20}
    for odd, answered in odd_ends.items():
        _, said, totals = judged(Case(CHAT, {}, (plain + odd,)), tmp_path)
        assert (len(said), totals.fast_lines) == (answered, 0)


_RATES = st.one_of(st.floats(0, 100), st.sampled_from([0.0, 0.0125, 0.125, 0.5, 1.0, 2.5]))
_COUNTS = st.one_of(st.none(), st.integers(0, 2**32 - 1), st.integers(0, 1000))


@given(
    rates=st.tuples(_RATES, st.one_of(st.none(), _RATES), _RATES, st.one_of(st.none(), _RATES)),
    usages=st.lists(st.tuples(_COUNTS, _COUNTS, _COUNTS), min_size=1, max_size=20),
)
def test_cost_in_the_engine_is_the_cost_to_the_unit(rates: Any, usages: list[Any]) -> None:
    into, cached, out, long = rates
    price = Price(into, cached, out, long=None if long is None else Price(long, None, out * 1.5))
    with duckdb.connect() as con:
        con.execute("CREATE TABLE u (input_tokens UINTEGER, cached_tokens UINTEGER, output_tokens UINTEGER)")
        for usage in usages:
            con.execute("INSERT INTO u VALUES (?, ?, ?)", list(usage))
        for known in (price, None):
            found = con.execute(f"SELECT {cost_sql(known)} FROM u ORDER BY rowid").fetchall()
            expected = [cost_nano_usd(known, Usage(i, c, o)) for i, c, o in usages]
            assert [value for (value,) in found] == expected
