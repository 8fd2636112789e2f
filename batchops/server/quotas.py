"""How much a key may keep: bytes, files, and batches that have not ended. What is beyond is refused at once.

A check holds for what is added before `Service.adding` is let go: calls of the same moment share the room there is.
"""

from __future__ import annotations

from collections.abc import Callable

from batchops.server.store import File
from batchops.server.surface import Service
from batchops.server.wire import ApiError


def check_file(service: Service, file: File) -> None:
    """Raises ApiError when one more file, this one, is too many or too much."""
    store, mode, owner = service.store, service.mode, file.owner
    is_lasting = file.expires_at is None
    if store.stored_bytes(owner) + file.bytes > service.options.limits.storage_bytes:
        raise ApiError(400, "You have exceeded your file storage quota.", code="storage_quota_exceeded")
    if is_lasting and _is_full(mode.max_lasting_files, lambda: store.file_count(owner, is_lasting=True)):
        raise ApiError(400, f"The quota for files without expiry is reached. The maximum is {mode.max_lasting_files}.")
    if _is_full(mode.max_files, lambda: store.file_count(owner)):
        raise _too_many_files("files", mode.max_files)
    if file.purpose == "batch" and _is_full(mode.max_batch_files, lambda: store.file_count(owner, purpose="batch")):
        raise _too_many_files("batch files", mode.max_batch_files)


def check_batch(service: Service, owner: str) -> None:
    """Raises ApiError, a 429, when a key has as many batches under way as the service lets it have."""
    most = service.mode.max_open_batches
    if _is_full(most, lambda: service.store.open_batches(owner)):
        message = f"You have reached the limit of {most} batches. Try again when one has ended."
        raise ApiError(429, message, kind="requests", code="batch_quota_exceeded")


def _is_full(most: int | None, count: Callable[[], int]) -> bool:
    return most is not None and count() >= most


def _too_many_files(what: str, most: int | None) -> ApiError:
    return ApiError(400, f"The quota for {what} is reached. The maximum is {most}.", code="file_quota_exceeded")
