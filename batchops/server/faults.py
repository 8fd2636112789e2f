"""Fault plans: what goes wrong, when. A plan is a list of rules in TOML or JSON; the first rule that fires wins.

A rule's `on` says what it looks at: a call (`"POST /v1/batches"`), a `batch` when it is created, or a `line` when it is
executed. `nth`, `times` and `probability` say how often; dice are thrown from the server's seed.
"""

from __future__ import annotations

import re
import threading
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from batchops.diagnostics import BatchopsError, error
from batchops.server.store import Batch


def _one_or_many(value: object) -> object:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _whole(value: object) -> object:
    """JSON Schema's integer: `3.0` is one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_Whole: TypeAlias = Annotated[int, BeforeValidator(_whole)]
_Count: TypeAlias = Annotated[int, Field(ge=1, le=2**53), BeforeValidator(_whole)]  # what JSON writes without loss
_Seconds: TypeAlias = Annotated[float, Field(ge=0, le=10**10)]


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = ""
    nth: Annotated[
        tuple[_Count, ...], BeforeValidator(_one_or_many, json_schema_input_type=_Count | tuple[_Count, ...])
    ] = ()
    """Which of the matching calls, batches or lines, counted from 1 since the plan was loaded; empty: all."""
    times: _Count | None = None
    probability: float = Field(default=1.0, ge=0, le=1)


class CallRule(_Rule):
    """Something happens to an HTTP call. `on` is a method and a path; `*` is one part of it, `**` any."""

    on: str = Field(pattern=r"^(\*|[A-Z]+) /[!-~]*$")
    effect: Literal[
        "drop_before",
        "drop_after",
        "error_before",
        "error_after",
        "garbage",
        "truncate",
        "slow",
        "throttle",
        "hide_from_list",
    ]
    status: _Whole = Field(default=500, ge=400, le=599)
    code: str | None = None
    message: str = "The server had an error while processing your request. (fault plan)"
    retry_after: _Seconds = 1
    seconds: _Seconds | None = None
    looks: _Count | None = None
    share: float = Field(default=0.5, ge=0, le=1)
    quiet: bool = False
    body: str = "<html><body><h1>502 Bad Gateway</h1></body></html>"
    content_type: str = Field(default="text/html", pattern=r"^[!-~]([ -~]*[!-~])?$")


class BatchRule(_Rule):
    """A batch takes another course. `at` is the share of its lines that are executed before."""

    on: Literal["batch"]
    effect: Literal["expire", "cancel", "fail", "stall", "late_file_ids"]
    metadata: dict[str, str] = Field(default_factory=dict)
    endpoint: str = "*"
    at: float = Field(default=0.5, ge=0, le=1)
    seconds: _Seconds | None = None
    status: Literal["validating", "in_progress", "finalizing"] = "in_progress"
    looks: _Count = 3
    code: str = "token_limit_exceeded"
    message: str | None = None
    param: str | None = None
    line: _Count | None = None


class LineRule(_Rule):
    """A line gets another answer, or its answer goes astray. `contains` looks into the request's texts."""

    on: Literal["line"]
    effect: Literal[
        "error",
        "length",
        "refusal",
        "content_filter",
        "invalid_json",
        "schema_mismatch",
        "empty",
        "missing",
        "duplicate",
        "wrong_file",
        "status_0",
        "timeout",
    ]
    custom_id: str = "*"
    contains: str | None = None
    status: _Whole = Field(default=500, ge=0, le=599)
    code: str | None = None
    type: str | None = None
    message: str = "The server had an error while processing your request. (fault plan)"


Rule: TypeAlias = CallRule | BatchRule | LineRule
RULES: Final = (CallRule, BatchRule, LineRule)


def parse_rules(document: object) -> tuple[Rule, ...]:
    """The rules of a plan's tree, `{"rules": […]}`. Raises ValueError that says which rule is wrong and why."""
    if not isinstance(document, dict) or set(document) - {"rules"} or not isinstance(document.get("rules", []), list):
        raise ValueError("a fault plan has one key, `rules`: a list")
    return tuple(_rule(index, written) for index, written in enumerate(document.get("rules", []), 1))


def _rule(number: int, written: object) -> Rule:
    on = written.get("on") if isinstance(written, dict) else None
    try:
        match on:
            case "batch":
                return BatchRule.model_validate(written)
            case "line":
                return LineRule.model_validate(written)
        return CallRule.model_validate(written)
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the rule"
        raise ValueError(f"rule {number}: {where}: {first['msg']}") from problem


def load_rules(path: Path) -> tuple[Rule, ...]:
    """The rules of a file: JSON if its name ends so, TOML otherwise. Raises BatchopsError."""
    try:
        text = path.read_bytes()
        tree = orjson.loads(text) if path.suffix == ".json" else tomllib.loads(text.decode())
        return parse_rules(tree)
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else problem
        raise BatchopsError(error("invalid_fault_plan", "Invalid fault plan.", f"{path}: {reason}.")) from problem


@dataclass
class _Watched:
    """A rule at work: how often it saw what it looks at, and fired."""

    number: int
    rule: Rule
    seen: int = 0
    fired: int = 0


class Faults:
    """A plan at work. Thread-safe; it can be replaced at run time: who looks into it then ends with the old one."""

    def __init__(self, rules: Iterable[Rule] = (), *, seed: int = 0) -> None:
        self._lock = threading.Lock()
        self._seed = seed
        self.replace(rules)

    def replace(self, rules: Iterable[Rule]) -> None:
        """Start over with other rules; all counts begin anew."""
        self._watched = tuple(_Watched(number, rule) for number, rule in enumerate(rules))
        self.has_line_rules = any(isinstance(watched.rule, LineRule) for watched in self._watched)

    def report(self) -> list[dict[str, Any]]:
        """Each rule's name, what it looks at, how often it saw that and how often it fired, in the plan's order."""
        with self._lock:
            return [
                {
                    "name": watched.rule.name,
                    "on": watched.rule.on,
                    "effect": watched.rule.effect,
                    "seen": watched.seen,
                    "fired": watched.fired,
                }
                for watched in self._watched
            ]

    def for_call(self, method: str, path: str) -> CallRule | None:
        call = f"{method} {path}"
        for watched in self._watched:
            rule = watched.rule
            if isinstance(rule, CallRule) and _pattern(rule.on).fullmatch(call) and self._fires(watched, call):
                return rule
        return None

    def for_batch(self, batch: Batch) -> dict[str, dict[str, Any]] | None:
        """Every fate that meets a new batch, by effect."""
        fates: dict[str, dict[str, Any]] = {}
        for watched in self._watched:
            rule = watched.rule
            if isinstance(rule, BatchRule) and _meets_batch(rule, batch) and self._fires(watched, batch.id):
                fates.setdefault(rule.effect, rule.model_dump(exclude={"on", "nth", "times", "probability"}))
        return fates or None

    def for_line(self, dice: str, custom_id: str, body: dict[str, Any]) -> LineRule | None:
        for watched in self._watched:
            rule = watched.rule
            if not isinstance(rule, LineRule) or not _meets_line(rule, custom_id, body):
                continue
            if self._fires(watched, f"{dice} {custom_id}"):
                return rule
        return None

    def _fires(self, watched: _Watched, dice: str) -> bool:
        rule = watched.rule
        with self._lock:
            watched.seen += 1
            if rule.nth and watched.seen not in rule.nth:
                return False
            if rule.times is not None and watched.fired >= rule.times:
                return False
            if rule.probability < 1 and self._throw(watched, dice) >= rule.probability:
                return False
            watched.fired += 1
            return True

    def _throw(self, watched: _Watched, dice: str) -> float:
        """A number in [0, 1): for a line by what it is, for a call by how many came before it."""
        turn = "" if isinstance(watched.rule, LineRule) else str(watched.seen)
        thrown = blake2b(f"{self._seed} {watched.number} {turn} {dice if not turn else ''}".encode(), digest_size=8)
        return int.from_bytes(thrown.digest()) / 2**64


def _pattern(on: str) -> re.Pattern[str]:
    escaped = re.escape(on).replace(r"\*\*", ".*").replace(r"\*", "[^/ ]*")
    return re.compile(escaped)


def _meets_batch(rule: BatchRule, batch: Batch) -> bool:
    metadata = batch.metadata or {}
    pairs = all(fnmatchcase(metadata.get(key, ""), wanted) for key, wanted in rule.metadata.items())
    return pairs and fnmatchcase(batch.endpoint, rule.endpoint)


def _meets_line(rule: LineRule, custom_id: str, body: dict[str, Any]) -> bool:
    if not fnmatchcase(custom_id, rule.custom_id):
        return False
    return rule.contains is None or orjson.dumps(rule.contains)[1:-1] in orjson.dumps(body)
