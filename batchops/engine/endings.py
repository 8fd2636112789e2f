"""How a batch ended, and what that means for the lines that are in none of its files. Pure.

A batch that failed names some of its lines, as a sample; the others were only not executed, and cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from batchops.diagnostics import Diagnostic, Location, warning
from batchops.engine.judge import Judged
from batchops.engine.retry import Cause
from batchops.providers.provider import BatchError, BatchStatus, RemoteBatch
from batchops.providers.refusals import TOKEN_LIMIT_CODES, is_quota_code
from batchops.spec.job import UNSEEN, Job, Outcome

SHOWN_ERRORS: Final = 5

_ENDINGS: Final = {BatchStatus.EXPIRED: Outcome.EXPIRED, BatchStatus.CANCELLED: Outcome.CANCELLED}


def judge_unseen(remote: RemoteBatch, line: int) -> tuple[Judged, Cause]:
    """The outcome of a line (0-based) that is in no file, and how far that try got."""
    if remote.status in _ENDINGS:
        outcome = _ENDINGS[remote.status]
        return Judged(outcome, message=UNSEEN[outcome]), Cause.NEVER_EXECUTED
    if remote.status is BatchStatus.FAILED:
        return _judge_never_executed(remote.errors, line)
    return Judged(Outcome.MISSING, message=UNSEEN[Outcome.MISSING]), Cause.EXECUTED


def _judge_never_executed(errors: Sequence[BatchError], line: int) -> tuple[Judged, Cause]:
    """A batch that failed as a whole: the lines it names are bad, the others were only not executed."""
    named = next((found for found in errors if found.line == line + 1), None)
    if named is not None:
        return Judged(Outcome.BAD_REQUEST, code=named.code, message=named.message), Cause.EXECUTED
    whole = whole_error(errors)
    if whole is None:
        message = "The batch failed before this request was executed."
        return Judged(Outcome.MISSING, message=message), Cause.NEVER_EXECUTED
    outcome, cause = _of_whole(whole)
    return Judged(outcome, code=whole.code, message=whole.message), cause


def whole_error(errors: Sequence[BatchError]) -> BatchError | None:
    """What is wrong with the batch as a whole, if anything is."""
    return next((found for found in errors if found.line is None), None)


def _of_whole(error: BatchError) -> tuple[Outcome, Cause]:
    if is_quota_code(error.code):
        return Outcome.QUOTA_EXHAUSTED, Cause.NEVER_EXECUTED
    if error.code in TOKEN_LIMIT_CODES:
        return Outcome.MISSING, Cause.TOKEN_LIMIT
    if error.param in {"file_id", "input_file_id"}:  # its input file was deleted: how a lost create is revoked
        return Outcome.MISSING, Cause.NEVER_EXECUTED
    return Outcome.BAD_REQUEST, Cause.EXECUTED


def is_full_queue(remote: RemoteBatch) -> bool:
    """Whether a batch failed because too much of its model was queued: nothing is wrong with it."""
    found = whole_error(remote.errors) if remote.status is BatchStatus.FAILED else None
    return found is not None and found.code in TOKEN_LIMIT_CODES


def describe_failure(
    remote: RemoteBatch, address: str, provider: str, job: Job | None, row_at: Callable[[int], str | None]
) -> Diagnostic | None:
    """What a service found wrong with an input file, mapped back to rows and to the YAML; None where nothing is.

    `row_at` names the row of a line (0-based), or None where it must not be shown.
    """
    named = [found for found in remote.errors if found.line is not None]
    whole = whole_error(remote.errors)
    if whole is not None and _of_whole(whole)[0] is not Outcome.BAD_REQUEST:
        whole = None
    found = named or ([whole] if whole else [])
    if remote.status is not BatchStatus.FAILED or not found:
        return None
    told = [_sentence(error, row_at) for error in found[:SHOWN_ERRORS]]
    rest = len(found) - len(told)
    more = f" And {rest:,} more." if rest else ""
    return warning(
        "batch_failed",
        "The provider refused the content of a batch.",
        f"{remote.id} at {provider}: {' '.join(told)}{more} Nothing of it was executed or paid; rows that it does not"
        " name are asked again.",
        address=address,
        location=_place(job, found[0].param) if job is not None else None,
    )


def _sentence(error: BatchError, row_at: Callable[[int], str | None]) -> str:
    row = None if error.line is None else row_at(error.line - 1)
    where = f"line {error.line}{f' ({row})' if row else ''}: " if error.line is not None else ""
    param = f" ({error.param})" if error.param and error.param not in error.message else ""
    message = error.message.rstrip(".") or error.code
    return f"{where}{message}{param}."


_SPEC_PATHS: Final[Mapping[str, tuple[str, ...]]] = {
    "model": ("model",),
    "messages": ("template",),
    "input": ("template",),
    "prompt": ("template",),
    "response_format": ("schema",),
    "text": ("schema",),
    "tools": ("tools",),
    "tool_choice": ("tool_choice",),
}
"""Where the parts of a request body are written in a spec; the rest are params."""


def _place(job: Job, param: str | None) -> Location | None:
    """Where the part of a body that a service names is written: `body.messages` → the template."""
    part = (param or "").removeprefix("body.").partition(".")[0]
    return job.location(*_SPEC_PATHS.get(part, ("params", part)))
