"""What a user declares: `JobSpec` and its parts, frozen. `Job` is a spec with its files read, ready to be rendered.

Every field of `JobSpec` says whether it can change an answer (`ANSWER`), which rows are asked (`ROWS`), or neither
(`FREE`: editing it never causes paid work). A test fails for a field that says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, StringConstraints, model_validator

from batchops.diagnostics import Location
from batchops.units import Duration, Share, Size


class Effect(StrEnum):
    """What an edit of a field may cause."""

    ANSWER = "answer"
    ROWS = "rows"
    FREE = "free"


ANSWER: Final = Effect.ANSWER
ROWS: Final = Effect.ROWS
FREE: Final = Effect.FREE


class Outcome(StrEnum):
    """How one try of a request ended. The order is recorded in state: append only."""

    SUCCEEDED = "succeeded"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    TIMED_OUT = "timed_out"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    MISSING = "missing"
    TRUNCATED = "truncated"
    INVALID_JSON = "invalid_json"
    SCHEMA_MISMATCH = "schema_mismatch"
    REFUSED = "refused"
    CONTENT_FILTERED = "content_filtered"
    BAD_REQUEST = "bad_request"
    NOT_FOUND = "not_found"
    QUOTA_EXHAUSTED = "quota_exhausted"


Endpoint: TypeAlias = Literal[
    "/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/moderations", "/v1/completions"
]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]


class Part(BaseModel):
    """A piece of a spec: unknown keys are errors, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class FileText(Part):
    """Text that lives in a file; the path is relative to the project root."""

    file: str


class Source(Part):
    query: str | None = None
    file: str | None = None
    key: Names = Field(min_length=1)
    nulls: Literal["error", "empty", "text"] = "error"
    sensitive: Names = ()
    attach: JsonValue = None

    @model_validator(mode="after")
    def _one_query(self) -> Self:
        if (self.query is None) == (self.file is None):
            raise ValueError("write either query: or file:, not both")
        return self


class Message(Part):
    """One message of a conversation. `content` is a template, a file, or content parts with templated strings."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | FileText | tuple[dict[str, JsonValue], ...]
    name: str | None = None


Template: TypeAlias = str | FileText | tuple[Message, ...]


class Backoff(Part):
    initial: Duration = timedelta(minutes=1)
    multiplier: float = Field(default=2, ge=1)
    max: Duration = timedelta(hours=1)


class Rule(Part):
    """What to do after an outcome: the first rule whose `when` names it wins."""

    when: Annotated[tuple[Outcome, ...], BeforeValidator(_one_or_many)] = Field(min_length=1)
    do: Literal["retry", "hold", "give_up"]
    cap: Annotated[str, StringConstraints(pattern=r"^x\d+(\.\d+)?$")] | None = None
    set: dict[str, JsonValue] | None = None
    model: str | None = None
    template: Template | None = None


class Retry(Part):
    max_attempts: int = Field(default=3, ge=1, le=100)
    backoff: Backoff = Backoff()
    rules: tuple[Rule, ...] = ()
    max_failed: Share = 0


class Batch(Part):
    max_requests: int = Field(default=50_000, ge=1)
    max_bytes: Size = Field(default=200_000_000, ge=1)
    completion_window: str = "24h"
    metadata: dict[str, str] = Field(default_factory=dict, max_length=11)
    output_expires_after: Duration | None = None


class Lifecycle(Part):
    on_change: Literal["resubmit", "keep"] = "resubmit"
    on_remove: Literal["keep", "forget"] = "keep"
    protect: bool = False
    reuse: bool = True


class JobSpec(Part):
    """One job as written. See docs/jobs.md for every key."""

    name: Annotated[Name, FREE]
    description: Annotated[str, FREE] = ""
    owner: Annotated[str, FREE] = ""
    tags: Annotated[Names, FREE] = ()
    enabled: Annotated[bool, ROWS] = True
    source: Annotated[Source, ROWS]
    provider: Annotated[str | None, ANSWER] = None
    endpoint: Annotated[Endpoint, ANSWER] = "/v1/chat/completions"
    model: Annotated[str, ANSWER] = Field(min_length=1)
    template: Annotated[Template | None, ANSWER] = None
    body: Annotated[dict[str, JsonValue] | None, ANSWER] = None
    params: Annotated[dict[str, JsonValue], ANSWER] = Field(default_factory=dict)
    schema_: Annotated[str | dict[str, JsonValue] | None, ANSWER] = Field(default=None, alias="schema")
    tools: Annotated[tuple[dict[str, JsonValue], ...] | None, ANSWER] = None
    tool_choice: Annotated[JsonValue, ANSWER] = None
    retry: Annotated[Retry, FREE] = Retry()
    batch: Annotated[Batch, FREE] = Batch()
    lifecycle: Annotated[Lifecycle, ROWS] = Lifecycle()
    moved_from: Annotated[Name | None, FREE] = None
    # Described by the contract, refused by `load` until their turn comes.
    matrix: Annotated[JsonValue, ROWS] = None
    budget: Annotated[JsonValue, FREE] = None
    rollout: Annotated[JsonValue, FREE] = None
    checks: Annotated[JsonValue, FREE] = None
    evaluate: Annotated[JsonValue, FREE] = None
    output: Annotated[JsonValue, FREE] = None


@dataclass(frozen=True)
class Job:
    """A job with every file it names read, and nothing left to look up.

    `template` has no FileText left in it; `schema` is the answer's JSON Schema as a tree (property order kept);
    `paths` are the files it depends on, the spec first, relative to the root; `locations` finds a place in the YAML
    for a path such as `("source", "query")`.
    """

    spec: JobSpec
    address: str
    provider: str
    query: str
    template: str | tuple[Message, ...] | None
    schema: Mapping[str, Any] | None
    paths: tuple[str, ...]
    locations: Mapping[tuple[str | int, ...], Location] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        return self.spec.name

    def location(self, *path: str | int) -> Location | None:
        """Where `path`, or the nearest part above it, is written."""
        for length in range(len(path), -1, -1):
            if (found := self.locations.get(path[:length])) is not None:
                return found
        return None
