"""Other ends than completion: cancelled, expired, the server killed while it worked."""

from __future__ import annotations

from typing import Any

from batch_desk import TERMINAL
from behaviour import asked, behaviour, call, counts, good, held, refusal, until
from openai.types import Batch
from subjects import Subject

GROUP = "Other ends"
PATIENCE_SECONDS = 15.0
"""How long a batch that may never end is looked at."""


def ended_early(subject: Subject, batch: Batch, code: str) -> dict[str, Any]:
    """How a batch of `mixed` ended whose last four requests were never asked."""
    ended = subject.desk.wait(batch)
    answered, unanswered = subject.desk.lines(ended.output_file_id), subject.desk.lines(ended.error_file_id)
    return {
        "status": ended.status,
        "counts": counts(ended),
        "answered": len(answered),
        code: sum((line.get("error") or {}).get("code") == code for line in unanswered),
        "asked after the end": asked(subject, "later"),
    }


_EARLY = {"counts": (16, 12, 0), "answered": 12, "asked after the end": 0}


@behaviour(
    GROUP,
    "Cancelling a batch in progress",
    "`cancelling`, then `cancelled`: answers are kept, unasked requests are `batch_cancelled` lines and not counted",
    {"at once": "cancelling", "status": "cancelled", "batch_cancelled": 4, **_EARLY},
)
def cancel(subject: Subject) -> Any:
    batch = held(subject)
    at_once = subject.desk.sdk.batches.cancel(batch.id).status
    subject.upstream.release()
    return {"at once": at_once, **ended_early(subject, batch, "batch_cancelled")}


@behaviour(GROUP, "Cancelling a cancelled batch", "200, nothing changes", (200, True))
def cancel_again(subject: Subject) -> Any:
    batch = held(subject)
    subject.desk.sdk.batches.cancel(batch.id)
    subject.upstream.release()
    ended = subject.desk.wait(batch)
    seen = call(subject, "POST", f"/v1/batches/{batch.id}/cancel")
    return seen["status"], seen["body"] == ended.to_dict()


@behaviour(
    GROUP,
    "Cancelling a completed batch",
    "409 Cannot cancel a batch with status 'completed'.",
    (409, None, None, "Cannot cancel a batch with status 'completed'."),
)
def cancel_completed(subject: Subject) -> Any:
    ended = subject.desk.wait(subject.desk.submit(good(subject)))
    return refusal(call(subject, "POST", f"/v1/batches/{ended.id}/cancel"), BATCH=ended.id)


@behaviour(
    GROUP,
    "Cancelling a failed batch",
    "409 Cannot cancel a batch with status 'failed'.",
    (409, None, None, "Cannot cancel a batch with status 'failed'."),
)
def cancel_failed(subject: Subject) -> Any:
    ended = subject.desk.wait(subject.desk.submit([*good(subject), {}]))
    return refusal(call(subject, "POST", f"/v1/batches/{ended.id}/cancel"), BATCH=ended.id)


@behaviour(
    GROUP,
    "A batch whose window has passed",
    "`expired`: answers are kept, unasked requests are `batch_expired` lines and not counted",
    {"status": "expired", "batch_expired": 4, **_EARLY},
)
def expire(subject: Subject) -> Any:
    batch = held(subject)
    if not subject.advance(86_401):
        subject.upstream.release()
        return {"expires_at": subject.desk.wait(batch).expires_at}
    subject.upstream.release()
    return ended_early(subject, batch, "batch_expired")


@behaviour(
    GROUP,
    "An input file deleted while its batch is in progress",
    "takes nothing from the batch *",
    {"status": "completed", "counts": (16, 16, 0), "answered": 16},
)
def deleted_meanwhile(subject: Subject) -> Any:
    batch = held(subject)
    subject.desk.sdk.files.delete(batch.input_file_id)
    subject.upstream.release()
    ended = subject.desk.wait(batch)
    return {"status": ended.status, "counts": counts(ended), "answered": len(subject.desk.lines(ended.output_file_id))}


@behaviour(
    GROUP,
    "The server killed and started again while a batch is in progress",
    "files stay, the batch ends, and only what was under way is asked again *",
    {"file": True, "status": "completed", "answered": 16, "asked": {"now": 4, "hold": 16, "later": 4}},
)
def killed(subject: Subject) -> Any:
    batch = held(subject)
    before = subject.desk.sdk.files.content(batch.input_file_id).read()
    subject.kill_and_start()
    subject.upstream.release()
    until(lambda: subject.desk.sdk.batches.retrieve(batch.id).status in TERMINAL, PATIENCE_SECONDS)
    seen = subject.desk.sdk.batches.retrieve(batch.id)
    return {
        "file": subject.desk.sdk.files.content(batch.input_file_id).read() == before,
        "status": seen.status,
        "answered": len(subject.desk.lines(seen.output_file_id)),
        "asked": {word: asked(subject, word) for word in ("now", "hold", "later")},
    }
