"""Raw objects of OpenAI and its relatives, as one shape."""

from __future__ import annotations

from typing import Any

import pytest

from batchops.providers.normalise import Malformed, batch_from, epoch, errors_from, file_from, page_from, status_from
from batchops.providers.provider import BatchError, BatchStatus, RemoteBatch, RemoteFile

OPENAI = {
    "id": "batch_1",
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "errors": None,
    "input_file_id": "file-in",
    "status": "completed",
    "output_file_id": "file-out",
    "error_file_id": None,
    "created_at": 1767225600,
    "request_counts": {"total": 3, "completed": 2, "failed": 1},
    "metadata": {"batchops_submission": "x"},
}
AZURE = {
    **OPENAI,
    "endpoint": None,
    "output_file_id": "",
    "error_file_id": "",
    "request_counts": {"total": None, "completed": "", "failed": "1"},
    "metadata": None,
}
TOGETHER = {
    "job": {
        "id": "8f2c",
        "status": "IN_PROGRESS",
        "created_at": "2026-01-01T00:00:00.000Z",
        "progress": 3.5,
        "error_file_id": "",
    },
    "warning": None,
}


def test_object_of_openai_keeps_every_field() -> None:
    assert batch_from(OPENAI) == RemoteBatch(
        id="batch_1",
        status=BatchStatus.COMPLETED,
        endpoint="/v1/chat/completions",
        input_file_id="file-in",
        output_file_id="file-out",
        error_file_id=None,
        created_at=1767225600,
        total=3,
        completed=2,
        failed=1,
        metadata={"batchops_submission": "x"},
        raw=OPENAI,
    )


def test_empty_ids_and_missing_counts_are_none() -> None:
    found = batch_from(AZURE)
    assert (found.endpoint, found.output_file_id, found.error_file_id) == (None, None, None)
    assert (found.total, found.completed, found.failed, found.metadata) == (None, None, 1, {})


def test_wrapped_upper_case_object_with_iso_date_is_read() -> None:
    found = batch_from(TOGETHER)
    assert (found.id, found.status, found.created_at) == ("8f2c", BatchStatus.IN_PROGRESS, 1767225600)
    assert found.raw == TOGETHER["job"]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("VALIDATING", BatchStatus.VALIDATING),
        ("in-progress", BatchStatus.IN_PROGRESS),
        ("PROGRESS", BatchStatus.IN_PROGRESS),
        ("pre_schedule", BatchStatus.VALIDATING),
        ("Canceled", BatchStatus.CANCELLED),
        ("CANCELING", BatchStatus.CANCELLING),
        (" expired ", BatchStatus.EXPIRED),
        ("TIMEOUT_EXCEEDED", BatchStatus.EXPIRED),
        ("a status of tomorrow", BatchStatus.UNKNOWN),
        (None, BatchStatus.UNKNOWN),
        (3, BatchStatus.UNKNOWN),
    ],
)
def test_status_is_one_of_ours(raw: object, expected: BatchStatus) -> None:
    assert status_from(raw) is expected


def test_unknown_status_never_ends_a_batch() -> None:
    assert not BatchStatus.UNKNOWN.is_terminal


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (1767225600, 1767225600),
        (1767225600.9, 1767225600),
        (1767225600123, 1767225600),
        ("1767225600", 1767225600),
        ("2026-01-01T00:00:00Z", 1767225600),
        ("2026-01-01T01:00:00+01:00", 1767225600),
        ("2026-01-01T00:00:00", 1767225600),
        ("2026-01-01", 1767225600),
        ("yesterday", None),
        ("inf", None),
        ("", None),
        (0, None),
        (-5, None),
        (True, None),
        (None, None),
        (float("nan"), None),
    ],
)
def test_time_is_epoch_seconds_or_none(raw: object, expected: int | None) -> None:
    assert epoch(raw) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (None, ()),
        ({"object": "list", "data": None}, ()),
        ({"data": [{"code": "invalid_json_line", "message": "m", "param": None, "line": 2}]}, ("invalid_json_line", 2)),
        ([{"type": "invalid_request", "message": "m", "line": "2"}], ("invalid_request", 2)),
        ({"code": "x", "message": "m"}, ("x", None)),
        ("m", ("unknown", None)),
        ([{"message": "m"}], ("unknown", None)),
    ],
)
def test_errors_come_in_any_wrapping(raw: object, expected: tuple[Any, ...]) -> None:
    wanted = (BatchError(code=expected[0], message="m", line=expected[1]),) if expected else ()
    assert errors_from(raw) == wanted


@pytest.mark.parametrize("raw", [None, [], "x", {}, {"id": None}, {"id": ""}, {"id": True}, {"job": {}}, {"id": {}}])
def test_object_without_an_id_is_malformed(raw: object) -> None:
    with pytest.raises(Malformed):
        batch_from(raw)
    with pytest.raises(Malformed):
        file_from(raw)


@pytest.mark.parametrize("name", [7, "x" * 4000, "ünï/cödé=="])
def test_id_may_have_any_form(name: object) -> None:
    assert file_from({"id": name}) == RemoteFile(str(name), "", None, None)


def test_listing_is_a_page_or_a_bare_array() -> None:
    assert page_from({"data": [{"id": 1}], "has_more": True}) == ([{"id": 1}], True)
    assert page_from({"data": [], "has_more": None}) == ([], None)
    assert page_from([{"id": 1}]) == ([{"id": 1}], False)
