"""Calls that get stuck on their way and arrive when nobody expects them any more; replies that leave things out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from meddler import Call, Meddle, Reply, meddling
from yard import Yard, job

pytest_plugins = ("yard_fixtures",)
ROWS = 4
FILE = "/v1/files/"


class Stuck:
    """Keeps the first create; lets it go when a later call comes by, before or after that one is carried out."""

    def __init__(self, is_moment: Callable[[Call], bool], *, after: bool = False) -> None:
        self._is_moment, self._after = is_moment, after
        self._kept: Call | None = None
        self._creates = 0

    def __call__(self, call: Call) -> Reply | None:
        if call.is_("POST", "/v1/batches"):
            self._creates += 1
            if self._creates == 1:
                self._kept = call
                return None
        if self._kept is None or not self._is_moment(call):
            return call.forward()
        if self._after:
            reply = call.forward()
            self._let_go()
            return reply
        self._let_go()
        return call.forward()

    def _let_go(self) -> None:
        assert self._kept is not None
        assert self._kept.forward().status == 200
        self._kept = None


def is_look(call: Call) -> bool:
    return call.is_("GET", "/v1/batches")


def is_delete(call: Call) -> bool:
    return call.method == "DELETE" and call.path.startswith(FILE)


def is_create(call: Call) -> bool:
    return call.is_("POST", "/v1/batches")


ADOPTED = ["completed"]
UNPAID = ["failed", "completed"]


@pytest.mark.parametrize(
    ("meddle", "endings"),
    [
        (lambda: Stuck(is_look), [ADOPTED]),
        (lambda: Stuck(is_look, after=True), [ADOPTED]),
        (lambda: Stuck(is_delete), [ADOPTED, UNPAID]),  # its file may go before it is validated
        (lambda: Stuck(is_delete, after=True), [UNPAID]),
        (lambda: Stuck(is_create), [UNPAID]),
    ],
    ids=["before a look", "after a look", "before the delete", "after the delete", "after its shard was sent again"],
)
def test_a_create_that_arrives_late_is_adopted_or_fails_unpaid(
    yard: Yard, meddle: Callable[[], Meddle], endings: list[list[str]]
) -> None:
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    with meddling(yard.service.url, meddle()) as url:
        yard.environ["OPENAI_BASE_URL"] = url
        yard.converge()
        yard.hold_laws(rows=ROWS)
    assert [batch["status"] for batch in reversed(yard.batches())] in endings


def without_metadata(call: Call) -> Reply | None:
    """A service that forgets metadata; the reply to the first create is lost."""
    if is_create(call):
        call.forward()
        return None
    reply = call.forward()
    if is_look(call):
        page = reply.json
        return reply.with_json({**page, "data": [{**batch, "metadata": None} for batch in page["data"]]})
    return reply


def test_a_service_that_forgets_metadata_is_asked_by_the_input_file(yard: Yard) -> None:
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    with meddling(yard.service.url, without_metadata) as url:
        yard.environ["OPENAI_BASE_URL"] = url
        yard.converge()
        yard.hold_laws(rows=ROWS)
    assert len(yard.batches()) == 1


def contradicting(call: Call) -> Reply | None:
    """Each line of answers comes a second time, before it and as an error; sizes are not told."""
    reply = call.forward()
    if call.method == "GET" and call.path.endswith("/content"):
        return Reply(reply.status, reply.headers, b"".join(map(_with_error, reply.body.splitlines(keepends=True))))
    if call.method == "GET" and call.path.startswith(FILE):
        return reply.with_json({**reply.json, "bytes": None})
    return reply


def _with_error(line: bytes) -> bytes:
    found: dict[str, Any] = Reply(200, {}, line).json
    error = {**found, "response": None, "error": {"code": "server_error", "message": "x"}}
    return Reply(200, {}, b"").with_json(error).body + b"\n" + line


def test_an_answer_beats_an_error_wherever_the_two_lines_of_a_row_stand(yard: Yard) -> None:
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    with meddling(yard.service.url, contradicting) as url:
        yard.environ["OPENAI_BASE_URL"] = url
        yard.converge()
        yard.hold_laws(rows=ROWS)
