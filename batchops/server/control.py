"""The routes under /_batchops/, for tests: a ledger of what was executed, the clock, the fault plan."""

from __future__ import annotations

import os
from importlib import resources
from typing import Any

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from batchops import __version__
from batchops.server import parameters
from batchops.server.faults import RULES, parse_rules
from batchops.server.surface import Endpoint, Json, json_body, service_of
from batchops.server.wire import ApiError


async def health(request: Request) -> Response:
    service = service_of(request)
    return Json({"status": "ok", "version": __version__, "pid": os.getpid(), "instance": service.instance})


async def openapi(request: Request) -> Response:
    """What this server offers, in OpenAPI."""
    return Response(await run_in_threadpool(_text, "openapi.json"), media_type="application/json")


async def openapi_control(request: Request) -> Response:
    """What it offers to tests, in OpenAPI. A text of its own: calling all of the other must not turn the clock."""
    text = orjson.loads(await run_in_threadpool(_text, "openapi-control.json"))
    text["components"]["schemas"] |= {rule.__name__: rule.model_json_schema() for rule in RULES}
    return Json(text)


def _text(name: str) -> bytes:
    return (resources.files("batchops.server") / name).read_bytes()


async def ledger(request: Request) -> Response:
    """Every line that was executed, with how often, and how many calls of each kind came in since the start."""
    service = service_of(request)
    owner, wanted = service.owner(request), request.query_params.get("batch_id")
    ended: set[str] = set()
    rows: list[dict[str, Any]] = []
    for batch_id, custom_id, times in service.store.executions(owner, wanted):
        ended.add(batch_id)
        rows.append({"batch_id": batch_id, "custom_id": custom_id, "count": times})
    for batch_id, executions in service.runner.live_executions():
        if batch_id not in ended and wanted in (None, batch_id) and service.store.batch(owner, batch_id):
            rows += [{"batch_id": batch_id, "custom_id": name, "count": n} for name, n in executions.items()]
    total = sum(row["count"] for row in rows)
    return Json({"object": "ledger", "executed": total, "executions": rows, "calls": dict(service.calls)})


async def advance_clock(request: Request) -> Response:
    service = service_of(request)
    service.owner(request)
    seconds = parameters.parse_json(await json_body(request)).get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < 10**10:
        raise parameters.invalid_type("seconds", "a number of at least 0", seconds)
    now = await run_in_threadpool(service.clock.advance, seconds)
    await run_in_threadpool(service.store.set_fact, "clock_offset", service.clock.offset_seconds)
    return Json({"now": now})


async def replace_faults(request: Request) -> Response:
    service = service_of(request)
    service.owner(request)
    try:
        rules = parse_rules(parameters.parse_json(await json_body(request)))
    except ValueError as problem:
        raise ApiError(400, f"Invalid fault plan: {problem}.") from problem
    service.faults.replace(rules)
    return Json({"rules": len(rules)})


async def report_faults(request: Request) -> Response:
    """How often each rule of the fault plan has fired since it was loaded."""
    service = service_of(request)
    service.owner(request)
    return Json({"object": "fault_plan", "rules": service.faults.report()})


CONTROL_ROUTES: tuple[tuple[str, str, Endpoint], ...] = (
    ("GET", "/_batchops/health", health),
    ("GET", "/_batchops/openapi.json", openapi),
    ("GET", "/_batchops/openapi-control.json", openapi_control),
    ("GET", "/_batchops/ledger", ledger),
    ("POST", "/_batchops/clock/advance", advance_clock),
    ("POST", "/_batchops/faults", replace_faults),
    ("GET", "/_batchops/faults", report_faults),
)
