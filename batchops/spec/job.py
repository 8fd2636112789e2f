"""What a user declares: `JobSpec` and its parts, frozen. `Job` is a spec with its files read, ready to be rendered.

Every field of `JobSpec` says whether it can change an answer (`ANSWER`), which rows are asked (`ROWS`), or neither
(`FREE`: editing it never causes paid work). A test fails for a field that says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Strict,
    StringConstraints,
    Tag,
    WithJsonSchema,
)

from batchops.diagnostics import Location, Position
from batchops.spec.document import Document, Path
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


UNSEEN: Final[Mapping[Outcome, str]] = {
    Outcome.EXPIRED: "The batch expired before this request was executed.",
    Outcome.CANCELLED: "The batch was cancelled before this request was executed.",
    Outcome.MISSING: "No line came back for this request.",
}
"""What to say of a request that came back in no file of its batch."""


Endpoint: TypeAlias = Literal[
    "/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/moderations", "/v1/completions"
]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _one_or_many_of(entry: dict[str, Any], least: int) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [entry, {"type": "array", "items": entry, "minItems": least}]})


_TEXT: Final[dict[str, Any]] = {"type": "string"}
_OUTCOME: Final[dict[str, Any]] = {"enum": [str(outcome) for outcome in Outcome]}
Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_many), _one_or_many_of(_TEXT, 0)]
Columns = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_one_or_many), _one_or_many_of(_TEXT, 1)]
Outcomes = Annotated[
    tuple[Outcome, ...], Field(min_length=1), BeforeValidator(_one_or_many), _one_or_many_of(_OUTCOME, 1)
]


class Part(BaseModel):
    """A piece of a spec: unknown keys are errors, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class FileText(Part):
    """Text that lives in a file; the path is relative to the project root."""

    file: str = Field(description="A path from the project root.")


def _form(value: object) -> str:
    """The tag of a value that may be written in several forms; `problems` shows none of these tags."""
    if isinstance(value, str):
        return "<text>"
    if isinstance(value, (list, tuple)):
        return "<list>"
    return "<mapping>" if isinstance(value, (dict, Part)) else "<other>"


def _one_of(accepted: str) -> Discriminator:
    """Choose by form, so that an error speaks of the form that was written and not of every other one."""
    return Discriminator(_form, custom_error_type="wrong_form", custom_error_message=accepted)


Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Strict()]


class Source(Part):
    """Which rows are asked: a query, and the columns that name a row for ever."""

    query: str | None = Field(None, description="One DuckDB SELECT. Its rows become requests, its columns variables.")
    file: str | None = Field(None, description="A file with the query, instead of query:.")
    key: Columns = Field(description="The column, or columns, that name a row: not null and unique.")
    nulls: Literal["error", "empty", "text"] = Field(
        "error", description="A NULL that a template would print: an error, an empty text, or the text None."
    )
    sensitive: Names = Field((), description="Columns never shown in samples, diffs and logs.")
    attach: JsonValue = Field(None, description="Other databases that the query may read. Not supported yet.")


class Message(Part):
    """One message of a conversation. `content` is a template, a file, or content parts with templated strings."""

    role: Literal["system", "developer", "user", "assistant", "tool"] = Field(description="Who speaks.")
    content: Annotated[
        Annotated[str, Tag("<text>")]
        | Annotated[FileText, Tag("<mapping>")]
        | Annotated[tuple[dict[str, JsonValue], ...], Tag("<list>")],
        _one_of("text, {file: …} or a list of content parts"),
    ] = Field(description="A template, {file: …}, or content parts with templated strings.")
    name: str | None = Field(None, description="Tells speakers with the same role apart.")


Template: TypeAlias = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[FileText, Tag("<mapping>")]
    | Annotated[tuple[Message, ...], Tag("<list>")],
    _one_of("text, {file: …} or a list of messages"),
]
Schema: TypeAlias = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[dict[str, JsonValue], Tag("<mapping>")],
    _one_of("the path of a JSON Schema, or the schema itself"),
]


class Backoff(Part):
    """How long a failed row waits: `initial`, then `multiplier` times longer each time, up to `max`."""

    initial: Duration = Field(timedelta(minutes=1), description="The first wait.")
    multiplier: float = Field(2, ge=1, strict=True, description="How much longer each further wait is.")
    max: Duration = Field(timedelta(hours=1), description="The longest wait.")


class Rule(Part):
    """What to do after an outcome: the first rule whose `when` names it wins."""

    when: Outcomes = Field(description="Outcome classes: one or several.")
    do: Literal["retry", "hold", "give_up"] = Field(description="Ask again, stop the job, or give the row up.")
    cap: Annotated[str, StringConstraints(pattern=r"^x\d+(\.\d+)?$")] | None = Field(
        None, description="Multiply the output cap: x2. Without a cap in params the row is given up."
    )
    set: dict[str, JsonValue] | None = Field(None, description="Parameters of the retry.")
    model: str | None = Field(None, min_length=1, description="The model of the retry.")
    template: Template | None = Field(None, description="Other words for the retry.")


class Retry(Part):
    """When a failed row is asked again, and how many may stay failed."""

    max_attempts: Whole = Field(3, ge=1, le=100, description="Tries per row and digest, the first one included.")
    backoff: Backoff = Field(Backoff(), description="How long a failed row waits.")
    rules: tuple[Rule, ...] = Field((), description="Rules that stand before the default ones.")
    max_failed: Share = Field(0, description="So many given-up rows are still a success: a share or a count.")


class Batch(Part):
    """How requests are packed into batches, and what is said about these."""

    max_requests: Whole = Field(50_000, ge=1, description="Requests in one batch, capped by the provider's profile.")
    max_bytes: Size = Field(200_000_000, ge=1, description="Bytes of one input file, capped by the provider's profile.")
    completion_window: str = Field("24h", description="How long the provider may take.", examples=["24h"])
    metadata: dict[str, str] = Field(
        default_factory=dict, max_length=11, description="At most 11 pairs that the provider keeps with each batch."
    )
    output_expires_after: Duration | None = Field(
        None, description="How long the provider keeps the answers: 1h to 30d."
    )


class Lifecycle(Part):
    """What edits may cause."""

    on_change: Literal["resubmit", "keep"] = Field(
        "resubmit", description="keep: answered rows keep their answers, only new rows are asked."
    )
    on_remove: Literal["keep", "forget"] = Field("keep", description="What happens to the answers of removed rows.")
    protect: Flag = Field(False, description="Refuse a plan that would pay again for answered rows.")
    reuse: Flag = Field(True, description="Never pay an answered digest again, whichever row asks.")


class JobSpec(Part):
    """One job as written. The order of the fields is the canonical order of the keys; see docs/jobs.md."""

    name: Annotated[Name, FREE] = Field(description="The job's name, unique in the project: a-z, 0-9, _ and -.")
    description: Annotated[str, FREE] = Field("", description="For readers.")
    owner: Annotated[str, FREE] = Field("", description="Who to ask.")
    tags: Annotated[Names, FREE] = Field((), description="Words for --select tag:x.")
    source: Annotated[Source, ROWS] = Field(description="Which rows are asked.")
    provider: Annotated[str | None, ANSWER] = Field(None, description="Who answers; default: the project's provider.")
    endpoint: Annotated[Endpoint, ANSWER] = Field("/v1/chat/completions", description="Where the requests go.")
    model: Annotated[str, ANSWER] = Field(
        min_length=1, description="The model's id at the provider.", examples=["gpt-5-mini", "text-embedding-3-small"]
    )
    template: Annotated[Template | None, ANSWER] = Field(
        None, description="Jinja2: text, {file: …}, or messages. The columns of the row are its variables."
    )
    body: Annotated[dict[str, JsonValue] | None, ANSWER] = Field(
        None, description="The request body with templated strings, instead of template:."
    )
    params: Annotated[dict[str, JsonValue], ANSWER] = Field(
        default_factory=dict, description="Passed through into the request body."
    )
    schema_: Annotated[Schema | None, ANSWER] = Field(
        None, alias="schema", description="The answer's JSON Schema: strict structured output."
    )
    tools: Annotated[tuple[dict[str, JsonValue], ...] | None, ANSWER] = Field(
        None, description="Functions whose arguments are the answer."
    )
    tool_choice: Annotated[JsonValue, ANSWER] = Field(None, description="auto, required, none, or one function.")
    retry: Annotated[Retry, FREE] = Field(Retry(), description="When a failed row is asked again.")
    batch: Annotated[Batch, FREE] = Field(Batch(), description="How requests are packed into batches.")
    # budget to output and matrix are described in the docs and refused by `load` until their turn comes.
    budget: Annotated[JsonValue, FREE] = Field(None, description="Limits of cost and rows. Not supported yet.")
    rollout: Annotated[JsonValue, FREE] = Field(None, description="Ask a few rows first. Not supported yet.")
    checks: Annotated[JsonValue, FREE] = Field(None, description="SQL over the answers. Not supported yet.")
    evaluate: Annotated[JsonValue, FREE] = Field(None, description="Answers against labels. Not supported yet.")
    output: Annotated[JsonValue, FREE] = Field(None, description="Where answers are written. Not supported yet.")
    lifecycle: Annotated[Lifecycle, ROWS] = Field(Lifecycle(), description="What an edit or a removed row may cause.")
    moved_from: Annotated[Name | None, FREE] = Field(
        None, description="The former name: a renamed job keeps its answers."
    )
    matrix: Annotated[JsonValue, ROWS] = Field(None, description="One instance per combination. Not supported yet.")
    enabled: Annotated[Flag, ROWS] = Field(True, description="false: the job is checked, and otherwise left alone.")


@dataclass(frozen=True)
class Job:
    """A job with every file it names read, and nothing left to look up.

    `template` has no FileText left in it; `schema` is the answer's JSON Schema as a tree (property order kept);
    `paths` are the files it depends on, the spec first, relative to the root; `document` knows where the spec is
    written, and `files` names the files that hold one text of it each, by its path such as `("source", "query")`.
    """

    spec: JobSpec
    address: str
    provider: str
    query: str
    template: str | tuple[Message, ...] | None
    schema: Mapping[str, Any] | None
    paths: tuple[str, ...]
    document: Document | None = field(default=None, compare=False, repr=False)
    files: Mapping[Path, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        return self.spec.name

    def location(self, *path: str | int) -> Location | None:
        """Where `path`, or the nearest part above it, is written."""
        return None if self.document is None else self.document.location(path)

    def text_start(self, path: Path) -> Location | None:
        """Where the first character of the text at `path` stands, in whichever file; None when that is not known."""
        if (file := self.files.get(path)) is not None:
            return Location(file, Position(1, 1))
        return None if self.document is None else self.document.places.texts.get(path)

    def text_location(self, path: Path, line: int, column: int = 1) -> Location | None:
        """Where line and column (1-based) of the text at `path` stand; the text's own place when that is not known."""
        start = self.text_start(path)
        if start is None:
            return self.location(*path)
        first = start.start
        return Location(start.filename, Position(first.line + line - 1, first.column + column - 1))
