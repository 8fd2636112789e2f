"""Which batches a listing shows, in the ways of services that offer more to ask for than OpenAI does. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, TypeAlias

from batchops.server.parameters import invalid_value
from batchops.server.store import Batch
from batchops.server.wire import ApiError

Keep: TypeAlias = Callable[[Batch], bool]
Filter: TypeAlias = Callable[[Mapping[str, str], int], Keep]
"""From the query of a listing and the time, in epoch seconds, to what it shows. Raises ApiError for a wrong query."""

STATUSES: Final = (
    "validating",
    "in_progress",
    "finalizing",
    "completed",
    "failed",
    "expired",
    "cancelling",
    "cancelled",
)
_DASHSCOPE_SECONDS: Final = 30 * 86_400
_DASHSCOPE_IDS: Final = 20
_DIGITS: Final = re.compile("[0-9]{14}")


def everything(query: Mapping[str, str], now: int) -> Keep:
    return lambda _: True


def dashscope(query: Mapping[str, str], now: int) -> Keep:
    """Batches of thirty days, by a part of their name, their input files, statuses and time of creation.

    Times are written yyyyMMddHHmmss and read as UTC: of which zone they are is not documented.
    """
    name, files = query.get("ds_name", ""), _listed(query, "input_file_ids")
    statuses = _listed(query, "status")
    if len(files) > _DASHSCOPE_IDS:
        raise ApiError(400, f"At most {_DASHSCOPE_IDS} ids may be given.", param="input_file_ids", code="invalid_value")
    for status in statuses:
        if status not in STATUSES:
            raise invalid_value("status", status, STATUSES)
    oldest = max(now - _DASHSCOPE_SECONDS, _moment(query, "create_after", 0))
    newest = _moment(query, "create_before", now)

    def keep(batch: Batch) -> bool:
        if not oldest <= batch.created_at <= newest:
            return False
        is_asked = (not files or batch.input_file_id in files) and (not statuses or batch.status in statuses)
        return is_asked and name in (batch.metadata or {}).get("ds_name", "")

    return keep


def _listed(query: Mapping[str, str], param: str) -> list[str]:
    return [part for part in query.get(param, "").split(",") if part]


def _moment(query: Mapping[str, str], param: str, otherwise: int) -> int:
    written = query.get(param)
    if not written:
        return otherwise
    if (moment := _seconds(written)) is None:
        message = f"Invalid '{param}': expected a time written yyyyMMddHHmmss, but got '{written}' instead."
        raise ApiError(400, message, param=param, code="invalid_value")
    return moment


def _seconds(written: str) -> int | None:
    if not _DIGITS.fullmatch(written):
        return None
    try:
        return int(datetime.strptime(written, "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp())
    except ValueError:  # such as the thirtieth of February
        return None
