"""The port to a Files+Batches service: few methods; each says whether it may repeat and what it raises.

Values are normalised here once and for all: lower-case statuses, None instead of empty text, epoch seconds. An adapter
turns every foreign exception into `ProviderRefusal` (a definite no) or `Uncertain` (it may have happened), chained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from batchops.profiles import Profile
from batchops.settings import ProviderSettings


class BatchStatus(StrEnum):
    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def is_terminal(self) -> bool:
        return self in {self.COMPLETED, self.FAILED, self.EXPIRED, self.CANCELLED}


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file at the provider; `created_at` is its clock in epoch seconds."""

    id: str
    filename: str
    bytes: int | None
    created_at: int | None


@dataclass(frozen=True, slots=True)
class BatchError:
    """One entry of a batch's validation errors; `line` is 1-based."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class RemoteBatch:
    """A batch at the provider, normalised; `raw` is what it sent. Counts lie (see docs/providers.md): read files."""

    id: str
    status: BatchStatus
    endpoint: str | None
    input_file_id: str | None
    output_file_id: str | None
    error_file_id: str | None
    created_at: int | None
    total: int | None
    completed: int | None
    failed: int | None
    errors: tuple[BatchError, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict)


class ProviderError(Exception):
    """Something the provider said or failed to say. `status` is HTTP's, `code` the service's own word.

    `message` is a sentence with its full stop; it quotes neither a key nor a body.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.retry_after_seconds = retry_after_seconds


class ProviderRefusal(ProviderError):
    """A definite no: the request was not carried out. 4xx except 408 and 409."""


class Unreachable(ProviderRefusal):
    """Nothing was sent: connection refused, DNS, TLS."""


class Denied(ProviderRefusal):
    """401 or 403: the key is wrong or does not see this."""


class Missing(ProviderRefusal):
    """404: no such file or batch, or not in this project."""


class Throttled(ProviderRefusal):
    """429 that passes by waiting, `token_limit_exceeded` included."""


class QuotaExhausted(ProviderRefusal):
    """Money is out: waiting does not help."""


class Uncertain(ProviderError):
    """The reply was lost, a 5xx, 408 or 409, or no well-formed object with an id: it may have happened."""


class Provider(Protocol):
    """A connected service. Methods block; they may be called from several threads.

    Reads (`find_*`, `retrieve`, `list_batches`, `download`) retry by themselves and raise `Uncertain` when they gave
    up. Writes (`upload`, `create`) are sent exactly once. `delete_file` and `cancel` may repeat.
    """

    name: str
    is_simulated: bool
    profile: Profile

    def upload(self, path: Path, filename: str, *, model: str | None = None) -> RemoteFile:
        """Upload one input file, purpose `batch`. One try. `model` is told to gateways that route by it."""

    def find_file(self, filename: str, size_bytes: int) -> RemoteFile | None:
        """The newest uploaded file with this name and size."""

    def retrieve_file(self, file_id: str) -> RemoteFile:
        """One file. Raises Missing."""

    def create(
        self,
        *,
        input_file_id: str,
        endpoint: str,
        completion_window: str,
        metadata: Mapping[str, str],
        output_expires_after_seconds: int | None = None,
    ) -> RemoteBatch:
        """Create a batch: the one call that costs money. One try. `endpoint` is the service's path for it."""

    def retrieve(self, batch_id: str) -> RemoteBatch:
        """One batch. Raises Missing, Denied."""

    def list_batches(self, *, since: int | None = None) -> Iterator[RemoteBatch]:
        """Batches, newest first, paged to the end or until one was created before `since` (epoch seconds)."""

    def download(self, file_id: str, path: Path) -> None:
        """Stream a file's content to `path`; starts again when it was cut short. Raises Missing."""

    def delete_file(self, file_id: str) -> None:
        """Make the file not exist; one that is gone already counts as done."""

    def cancel(self, batch_id: str) -> RemoteBatch:
        """Ask for cancellation; a batch that has ended already is returned as it is."""

    def close(self) -> None:
        """Let go of connections and of an embedded server."""


@dataclass(frozen=True, slots=True)
class ProviderContext:
    """What an adapter needs to connect. `environ` is where `env:` references are looked up."""

    name: str
    settings: ProviderSettings
    root: Path
    environ: Mapping[str, str] = field(repr=False)
