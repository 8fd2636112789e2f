"""What happens after a try that did not succeed: outcome × policy → verdict. Pure; `RULES` is the default policy.

An *amendment* is what later tries change in a body, as JSON: `{"set": {top-level key: value}, "model": …, "template":
…}`, each key only where there is something to say. It grows from try to try and never changes the row's digest.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, Final, Literal

from batchops.spec.job import Backoff, FileText, Outcome, Retry, Rule, Template

RULES: Final = (
    Rule(
        when=(
            Outcome.RATE_LIMITED,
            Outcome.SERVER_ERROR,
            Outcome.TIMED_OUT,
            Outcome.EXPIRED,
            Outcome.CANCELLED,
            Outcome.MISSING,
        ),
        do="retry",
    ),
    Rule(when=(Outcome.TRUNCATED,), do="retry", cap="x2"),
    Rule(when=(Outcome.INVALID_JSON, Outcome.SCHEMA_MISMATCH), do="retry"),
    Rule(when=(Outcome.QUOTA_EXHAUSTED,), do="hold"),
    Rule(when=(Outcome.REFUSED, Outcome.CONTENT_FILTERED, Outcome.BAD_REQUEST, Outcome.NOT_FOUND), do="give_up"),
)
"""Every outcome but success is in one of these; a user's rules stand before them."""

MAX_FREE_ATTEMPTS: Final = 10
"""Tries that count nothing, after which a row is held: a service that never executes it is not asked for ever."""

CAPS: Final[Mapping[str, tuple[str, ...]]] = {
    "/v1/chat/completions": ("max_completion_tokens", "max_tokens"),
    "/v1/responses": ("max_output_tokens",),
    "/v1/completions": ("max_tokens",),
}
"""The keys of a body that cap its output, by endpoint; the first that is present counts."""

_TOKEN_LIMIT_BACKOFF: Final = Backoff(initial=timedelta(minutes=5), max=timedelta(minutes=80))
_FREE: Final = frozenset({Outcome.EXPIRED, Outcome.CANCELLED})
_JITTER: Final = 0.1


class Cause(Enum):
    """How far a try got; only what may have been executed counts as an attempt."""

    EXECUTED = "executed"
    NEVER_EXECUTED = "never executed"
    """Its batch failed in validation, or was never created."""
    TOKEN_LIMIT = "token limit"  # noqa: S105  tokens of text
    """Its batch found the queue full."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a request. `delay` and `amendment` are for the next try; `rule` says why, for people.

    A request whose attempts are used has its next try in another round, if ever: a cap that was too small is not paid
    for again.
    """

    state: Literal["waiting", "given_up", "held"]
    counts: bool
    delay: timedelta
    amendment: dict[str, Any] | None
    rule: str
    stops_job: bool = False
    """`do: hold`: nothing more of the job is submitted until a person says so."""


def verdict(
    retry: Retry,
    outcome: Outcome,
    *,
    attempts: int,
    free_attempts: int,
    body: Mapping[str, Any],
    url: str,
    amendment: Mapping[str, Any] | None = None,
    jitter_seed: str | None = None,
    cause: Cause = Cause.EXECUTED,
) -> Verdict:
    """The verdict on one try that ended in `outcome`.

    `attempts` and `free_attempts` are those recorded before this try. `body` is the request's own, with or without
    `amendment`. Seed the jitter with the batch, not with the row: rows that failed together then fall due together.
    """
    rule, name = _rule_for(retry, outcome)
    is_free = cause is not Cause.EXECUTED or outcome in _FREE
    earlier = dict(amendment) if amendment else None

    def ended(state: Literal["given_up", "held"], why: str = "", later: dict[str, Any] | None = earlier) -> Verdict:
        counts = not is_free and rule.do != "hold"
        return Verdict(state, counts, timedelta(), later, f"{name}{why}", stops_job=rule.do == "hold")

    if rule.do != "retry":
        return ended("held" if rule.do == "hold" else "given_up")
    if is_free and free_attempts + 1 >= MAX_FREE_ATTEMPTS:
        return ended("held", f"; not executed {MAX_FREE_ATTEMPTS} times")
    later = _amended_by(rule, amended(body, amendment), url, earlier)
    if not is_free and attempts + 1 >= retry.max_attempts:
        return ended("given_up", f"; {attempts + 1} of {retry.max_attempts} attempts used", later or earlier)
    if later is None:
        return ended("given_up", "; no output cap in the body to raise")
    backoff = _TOKEN_LIMIT_BACKOFF if cause is Cause.TOKEN_LIMIT else retry.backoff
    delay = _delay(backoff, (free_attempts if is_free else attempts) + 1, jitter_seed)
    return Verdict("waiting", not is_free, delay, later or None, name)


def amended(body: Mapping[str, Any], amendment: Mapping[str, Any] | None) -> dict[str, Any]:
    """The body with an amendment's `set` and `model`; doing it twice changes nothing more.

    A `template` is not applied here: the row must be rendered with it first.
    """
    changes = amendment or {}
    model = {"model": changes["model"]} if "model" in changes else {}
    return {**body, **model, **changes.get("set", {})}


def _rule_for(retry: Retry, outcome: Outcome) -> tuple[Rule, str]:
    for number, rule in enumerate((*retry.rules, *RULES), 1):
        if outcome in rule.when:
            owner = f"rule {number}" if number <= len(retry.rules) else "default rule"
            return rule, f"{owner}: {outcome} → {_words(rule)}"
    raise ValueError(f"{outcome} needs no verdict")


def _words(rule: Rule) -> str:
    changes = [f"cap {rule.cap}" if rule.cap else "", f"model {rule.model}" if rule.model else ""]
    changes += ["set " + ", ".join(rule.set) if rule.set else "", "another template" if rule.template else ""]
    return ", ".join([rule.do, *filter(None, changes)])


def _amended_by(
    rule: Rule, body: Mapping[str, Any], url: str, earlier: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """The amendment after a rule; None where it wants a larger cap and there is none to raise."""
    raised: dict[str, Any] = {}
    if rule.cap is not None:
        found = _raised_cap(rule.cap, body, url)
        if found is None:
            return None
        raised = found
    later = dict(earlier or {})
    changes = {**later.get("set", {}), **raised, **(rule.set or {})}
    if changes:
        later["set"] = changes
    if rule.model is not None:
        later["model"] = rule.model
    if rule.template is not None:
        later["template"] = _plain(rule.template)
    return later


def _raised_cap(factor: str, body: Mapping[str, Any], url: str) -> dict[str, int] | None:
    """The body's cap times `x2`; None without a cap, or where it would stay the same: that never helps."""
    for key in CAPS.get(url, ()):
        cap = body.get(key)
        if isinstance(cap, int) and not isinstance(cap, bool) and cap > 0:
            larger = math.ceil(cap * float(factor.removeprefix("x")))
            return {key: larger} if larger > cap else None
    return None


def _delay(backoff: Backoff, number: int, seed: str | None) -> timedelta:
    """After the `number`-th try: initial × multiplier^(number-1), at most `max`, less up to a tenth of jitter."""
    try:
        seconds = backoff.initial.total_seconds() * backoff.multiplier ** (number - 1)
    except OverflowError:
        seconds = math.inf
    share = zlib.crc32(seed.encode()) / 2**32 if seed is not None else 0.0
    return timedelta(seconds=min(seconds, backoff.max.total_seconds()) * (1 - _JITTER * share))


def _plain(template: Template) -> Any:
    if isinstance(template, str):
        return template
    if isinstance(template, FileText):
        return template.model_dump(mode="json")
    return [message.model_dump(mode="json", exclude_none=True) for message in template]
