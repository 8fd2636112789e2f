"""Everything that the service can be told to do wrong, by name. Each mishap is a fault plan that fires in one apply."""

from __future__ import annotations

from typing import Any

Rule = dict[str, Any]

_CREATE, _UPLOAD, _LIST = "POST /v1/batches", "POST /v1/files", "GET /v1/batches"
_BATCH, _CONTENT, _DELETE = "GET /v1/batches/*", "GET /v1/files/*/content", "DELETE /v1/files/*"
_LOST: Rule = {"on": _CREATE, "effect": "drop_before", "times": 1}


def _call(on: str, effect: str, **keys: Any) -> tuple[Rule, ...]:
    return ({"on": on, "effect": effect, "times": 1, **keys},)


def _batch(effect: str, **keys: Any) -> tuple[Rule, ...]:
    return ({"on": "batch", "effect": effect, "times": 1, **keys},)


def _line(effect: str, **keys: Any) -> tuple[Rule, ...]:
    return ({"on": "line", "effect": effect, "times": 1, **keys},)


MISHAPS: dict[str, tuple[Rule, ...]] = {
    "upload: reply lost": _call(_UPLOAD, "drop_after"),
    "upload: lost on its way": _call(_UPLOAD, "drop_before"),
    "upload: 500 after it was done": _call(_UPLOAD, "error_after"),
    "upload: garbage": _call(_UPLOAD, "garbage"),
    "upload: refused": _call(_UPLOAD, "error_before", status=400),
    "create: reply lost": _call(_CREATE, "drop_after"),
    "create: lost on its way": _call(_CREATE, "drop_before"),
    "create: 500 after it was done": _call(_CREATE, "error_after"),
    "create: 503 before it was done": _call(_CREATE, "error_before", status=503),
    "create: 409 after it was done": _call(_CREATE, "error_after", status=409),
    "create: garbage": _call(_CREATE, "garbage"),
    "create: refused": _call(_CREATE, "error_before", status=400),
    "create: throttled": _call(_CREATE, "throttle", retry_after=0),
    "create: listed late": _call(_CREATE, "hide_from_list", seconds=0.05),
    "list: 500": _call(_LIST, "error_before"),
    "list: garbage": _call(_LIST, "garbage"),
    "list: reset": _call(_LIST, "drop_after"),
    "look: 500 while settling": (_LOST, {"on": _LIST, "effect": "error_before", "nth": 2}),
    "delete: reply lost": (_LOST, *_call(_DELETE, "drop_after")),
    "delete: 500 before it was done": (_LOST, *_call(_DELETE, "error_before")),
    "delete: garbage": (_LOST, *_call(_DELETE, "garbage")),
    "poll: 500": _call(_BATCH, "error_before"),
    "poll: garbage": _call(_BATCH, "garbage"),
    "poll: 404": _call(_BATCH, "error_before", status=404),
    "poll: 401": _call(_BATCH, "error_before", status=401),
    "download: cut": _call(_CONTENT, "truncate"),
    "download: cut without a word": _call(_CONTENT, "truncate", quiet=True),
    "download: reset": _call(_CONTENT, "drop_after"),
    "download: 500": _call(_CONTENT, "error_before"),
    "download: a page": _call(_CONTENT, "garbage"),
    "batch: expired half done": _batch("expire", at=0.5),
    "batch: expired undone": _batch("expire", at=0.0),
    "batch: cancelled half done": _batch("cancel", at=0.5),
    "batch: failed for a line": _batch("fail", code="invalid_json_line", message="Not JSON.", line=1),
    "batch: failed for its file": _batch("fail", code="invalid_request", message="No file.", param="file_id"),
    "batch: queue full": _batch("fail"),
    "batch: stalls": _batch("stall", seconds=1000),
    "batch: file ids come late": _batch("late_file_ids", looks=2),
    "line: 500": _line("error"),
    "line: 429": _line("error", status=429, code="rate_limit_exceeded"),
    "line: 400": _line("error", status=400, code="invalid_prompt"),
    "line: 404": _line("error", status=404, code="not_found"),
    "line: timeout": _line("timeout"),
    "line: status 0": _line("status_0"),
    "line: truncated answer": _line("length"),
    "line: refusal": _line("refusal"),
    "line: content filter": _line("content_filter"),
    "line: no JSON": _line("invalid_json"),
    "line: another schema": _line("schema_mismatch"),
    "line: empty": _line("empty"),
    "line: missing": _line("missing"),
    "line: twice": _line("duplicate"),
    "line: in the wrong file": _line("wrong_file"),
    "line: account empty": _line("error", status=429, code="insufficient_quota"),
}


def rules(names: list[str]) -> list[Rule]:
    """One fault plan for several mishaps; each rule bears the name of its mishap. A mishap fires with its last rule."""
    plan: list[Rule] = []
    for name in names:
        *before, last = MISHAPS[name]
        plan += [{**rule, "name": ""} for rule in before]
        plan.append({**last, "name": name})
    return plan
