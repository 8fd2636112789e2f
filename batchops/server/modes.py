"""How each relative of the Batch API differs on the wire, so that clients can be tried against its shape.

A mode is a table entry: the service's profile (limits, windows, endpoints) and what it does to the JSON that goes out
and comes in. The application itself knows one API, OpenAI's; `translation` puts a mode in front of it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

import orjson

from batchops.profiles import CLASSIC_AZURE, PROFILES, Profile
from batchops.server.listing import Filter, dashscope, everything
from batchops.server.options import Limits

Json = dict[str, Any]
_DAY: Final = 86_400


def _same(shown: Json) -> Json:
    return shown


def _same_id(object_id: str) -> str:
    return object_id


@dataclass(frozen=True)
class Mode:
    """One service's ways. Ids are translated at the edge; inside there are only this server's own."""

    profile: Profile
    base: str = "/v1"
    """What a client is told as the path of its base URL."""
    prefixes: tuple[str, ...] = ()
    """Other paths that /v1 is served under; the longer before the shorter."""
    needs_api_version: bool = False
    """Calls outside /v1 need the query parameter `api-version`."""
    created_status: int = 200
    """Of the reply to the creation of a batch."""
    show_batch: Callable[[Json], Json] = _same
    show_file: Callable[[Json], Json] = _same
    show_line: Callable[[Json], Json] | None = None
    """A line of a result file."""
    keep_metadata: Callable[[dict[str, str]], dict[str, str]] = _same
    outer_id: Callable[[str], str] = _same_id
    inner_id: Callable[[str], str] = _same_id
    batch_file_seconds: int | None = 30 * _DAY
    """How long an input file lives that was given no expiry; None: until it is deleted."""
    max_lasting_files: int | None = None
    """How many files without an expiry a key may have."""
    max_files: int | None = None
    """How many files a key may have."""
    max_batch_files: int | None = None
    """How many files of the purpose `batch` a key may have."""
    max_storage_bytes: int | None = None
    """How much a key's files may take."""
    max_open_batches: int | None = None
    """How many batches of a key may not have ended."""
    listed: Filter = everything
    """What a listing of batches shows."""
    lists_results: bool = True
    """Output and error files appear in the listing of files."""
    keeps_empty: frozenset[str] = frozenset()
    """Result files that a completed batch has even without a line: `output`, `error`."""
    expires: bool = True
    """Batches end when their window does."""
    checks_uploads: bool = False
    """An input file is validated when it is uploaded, and refused."""

    def limits(self, given: Limits) -> Limits:
        """Those of the server, cut or widened to what this service allows."""
        if self.profile.name == "openai":
            return given
        return replace(
            given,
            batch_requests=self.profile.max_requests,
            batch_bytes=self.profile.max_bytes,
            batches_per_hour=self.profile.max_batches_per_hour,
            upload_bytes=max(given.upload_bytes, self.profile.max_bytes),
            storage_bytes=min(given.storage_bytes, self.max_storage_bytes or given.storage_bytes),
        )


def _without(*names: str) -> Callable[[Json], Json]:
    """Objects without some keys: the service has never heard of them."""
    return lambda shown: {name: value for name, value in shown.items() if name not in names}


def _azure_batch(shown: Json) -> Json:
    """Empty texts where others say null; a young batch does not know its counts yet."""
    ids = {name: shown[name] or "" for name in ("output_file_id", "error_file_id")}
    young = {"endpoint": None, "request_counts": None} if shown["status"] == "validating" else {}
    rest = {name: value for name, value in shown.items() if name not in ("usage", "model")}
    return {**rest, **ids, **young, "expires_at": shown["created_at"] + _DAY}


def _ogx_batch(shown: Json) -> Json:
    """No usage and few times; no counts before it works; a cancelled batch has lost what it had answered."""
    unknown: Json = dict.fromkeys(("usage", "model", "in_progress_at", "finalizing_at", "expires_at"))
    if shown["status"] in ("validating", "failed"):
        unknown["request_counts"] = None
    if shown["status"] == "cancelled":
        unknown |= {"output_file_id": None, "error_file_id": None}
    return {**shown, **unknown}


def _ogx_file(shown: Json) -> Json:
    purpose = "batch" if shown["purpose"] == "batch_output" else shown["purpose"]
    return {**shown, "purpose": purpose, "status_details": ""}


def _ogx_line(line: Json) -> Json:
    """The body is JSON inside a text; a failed request has an error and no response."""
    response = line["response"]
    if response is not None and response["status_code"] == 200:
        body = orjson.dumps(response["body"]).decode()
        return {"id": line["id"], "custom_id": line["custom_id"], "response": {**response, "body": body}}
    error = line["error"] or response["body"]["error"]
    failed = {"type": "request_failed", "message": error["message"]}
    return {"id": line["id"], "custom_id": line["custom_id"], "error": failed}


_FILE_UUID: Final = "f11e0000"


def _to_uuid(object_id: str) -> str:
    kind, _, digits = object_id.replace("_", "-").partition("-")
    return str(UUID(hex=f"{_FILE_UUID}{digits}" if kind == "file" else digits))


def _from_uuid(given: str) -> str:
    try:
        digits = UUID(given).hex
    except ValueError:
        return given
    return f"file-{digits.removeprefix(_FILE_UUID)}" if digits.startswith(_FILE_UUID) else f"batch_{digits}"


_MANAGED: Final = "litellm_proxy:application/octet-stream;unified_id,"


def _to_blob(object_id: str) -> str:
    """Long, and nothing that an id of OpenAI's looks like."""
    return base64.urlsafe_b64encode(f"{_MANAGED}{object_id};target_model_names,".encode()).decode().rstrip("=")


def _from_blob(given: str) -> str:
    try:
        text = base64.urlsafe_b64decode(given + "=" * (-len(given) % 4)).decode()
    except (binascii.Error, ValueError):
        return given
    return text.removeprefix(_MANAGED).partition(";")[0] if text.startswith(_MANAGED) else given


def _only_ds(metadata: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in metadata.items() if name.startswith("ds_")}


def _doubleword_metadata(metadata: dict[str, str]) -> dict[str, str]:
    return {**metadata, "request_source": "api", "created_by": "tester@example"}


_PLAIN: Final = _without("usage", "model")

MODES: Final[Mapping[str, Mode]] = MappingProxyType(
    {
        mode.profile.name: mode
        for mode in (
            Mode(PROFILES["openai"]),
            Mode(
                replace(PROFILES["azure"], paths=CLASSIC_AZURE),
                base="",
                prefixes=("/openai/v1", "/openai"),
                needs_api_version=True,
                created_status=201,
                show_batch=_azure_batch,
                keeps_empty=frozenset({"error"}),
                expires=False,
                batch_file_seconds=None,
                max_lasting_files=500,
            ),
            Mode(PROFILES["groq"], base="/openai/v1", prefixes=("/openai/v1",), show_batch=_PLAIN),
            Mode(
                PROFILES["dashscope"],
                base="/compatible-mode/v1",
                prefixes=("/compatible-mode/v1",),
                show_batch=_PLAIN,
                keep_metadata=_only_ds,
                max_files=10_000,
                max_storage_bytes=100 * 10**9,
                listed=dashscope,
            ),
            # Documented as 500 batches; that those count which have not ended is the reading that one can live with.
            Mode(PROFILES["nebius"], show_batch=_PLAIN, max_open_batches=500),
            Mode(PROFILES["moonshot"], show_batch=_PLAIN, max_batch_files=1_000),
            Mode(
                PROFILES["doubleword"],
                created_status=201,
                outer_id=_to_uuid,
                inner_id=_from_uuid,
                keep_metadata=_doubleword_metadata,
                checks_uploads=True,
            ),
            Mode(PROFILES["parasail"], show_batch=_PLAIN),
            Mode(
                PROFILES["ogx"],
                show_batch=_ogx_batch,
                show_file=_ogx_file,
                show_line=_ogx_line,
                keeps_empty=frozenset({"output", "error"}),
                expires=False,
            ),
            Mode(PROFILES["litellm"], outer_id=_to_blob, inner_id=_from_blob, lists_results=False),
        )
    }
)
"""By the name of the profile."""
