"""The HTTP surface: /v1/files and /v1/batches, and the real-time endpoints behind them."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from batchops.server import parameters, quotas
from batchops.server.answering import Abandoned, Stop
from batchops.server.control import CONTROL_ROUTES
from batchops.server.store import Batch, File
from batchops.server.surface import Endpoint, Json, Service, json_body, service_of
from batchops.server.upload import receive_upload
from batchops.server.wire import TERMINAL, ApiError, batch_object, error_object, file_object, page

_LOG = logging.getLogger("batchops.server")
_NEVER_SECONDS = 100 * 365 * 86400
_PATIENCE_SECONDS = 60.0  # in real time; a batch has a day
_FORM_BYTES = 1024 * 1024  # what a form may add to its file


# Files


async def create_file(request: Request) -> Response:
    service = service_of(request)
    owner, limits = service.owner(request), service.options.limits
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limits.upload_bytes + _FORM_BYTES:
        raise ApiError(400, "File is too large.", param="file")
    service.count_upload(owner)
    path = service.blobs.temporary()
    try:
        upload = await receive_upload(
            request.headers.get("content-type", ""), _body(request), path, max_bytes=limits.upload_bytes
        )
        purpose, seconds = parameters.upload_fields(upload, service.mode.profile)
        if purpose == "batch":
            await run_in_threadpool(parameters.check_batch_file, upload)
            if service.mode.checks_uploads:
                await run_in_threadpool(parameters.check_lines, upload, limits, service.mode.profile)
            seconds = seconds or service.mode.batch_file_seconds
        now = service.clock.seconds()
        file = File(
            id=f"file-{secrets.token_hex(12)}",
            owner=owner,
            filename=upload.filename or "upload",
            purpose=purpose,
            bytes=upload.bytes,
            created_at=now,
            expires_at=now + seconds if seconds else None,
        )
        quotas.check_file(service, file)
        await run_in_threadpool(_store_file, service, path, file)
    finally:
        path.unlink(missing_ok=True)
    return Json(file_object(file))


def _store_file(service: Service, path: Path, file: File) -> None:
    service.blobs.keep(path, file.id)
    try:
        with service.adding:
            quotas.check_file(service, file)
            service.store.add_file(file)
    except ApiError:
        service.blobs.drop(file.id)
        raise


async def _body(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        if chunk:
            yield chunk


async def list_files(request: Request) -> Response:
    service = service_of(request)
    query = request.query_params
    order = parameters.choice({"order": query.get("order", "desc")}, "order", ("asc", "desc"))
    try:
        files, has_more = service.store.files(
            service.owner(request),
            now=service.clock.seconds(),
            limit=parameters.limit(query, default=10_000, most=10_000),
            purpose=query.get("purpose"),
            after=query.get("after") or None,
            newest_first=order == "desc",
        )
    except LookupError:
        raise _no_file(query["after"]) from None
    return Json(page([file_object(file) for file in files if not service.is_hidden(file.id)], has_more=has_more))


def _no_file(file_id: str) -> ApiError:
    return ApiError(404, f"No such File object: {file_id}", param="id")


def _file(request: Request) -> File:
    service = service_of(request)
    file_id = request.path_params["file_id"]
    file = service.store.file(service.owner(request), file_id, now=service.clock.seconds())
    if file is None:
        raise _no_file(file_id)
    return file


async def get_file(request: Request) -> Response:
    return Json(file_object(_file(request)))


async def delete_file(request: Request) -> Response:
    service, file = service_of(request), _file(request)
    gone = await run_in_threadpool(service.store.delete_file, file.owner, file.id, now=service.clock.seconds())
    if not gone:
        raise _no_file(file.id)
    service.blobs.drop(file.id)
    return Json({"id": file.id, "object": "file", "deleted": True})


async def get_content(request: Request) -> Response:
    file = _file(request)
    path = service_of(request).blobs.path(file.id)
    if not path.exists():
        raise _no_file(file.id)
    return _Content(path, filename=file.filename, media_type="application/octet-stream")


class _Content(FileResponse):
    chunk_size = 1024 * 1024  # each piece costs a change of threads: 64 KiB of them are slower by a half

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_unless_refused(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                raise _refused_range(message["status"], Headers(raw=message["headers"]).get("content-range"))
            await send(message)

        await super().__call__(scope, receive, send_unless_refused)


def _refused_range(status: int, content_range: str | None) -> ApiError:
    """What starlette would answer in plain text."""
    if content_range is None:
        return ApiError(status, "Invalid 'Range' header. Ask for one such as 'bytes=0-1023'.")
    message = "The 'Range' header asks for bytes that the file does not have."
    return ApiError(status, message, headers={"content-range": content_range})


# Batches


async def create_batch(request: Request) -> Response:
    service = service_of(request)
    owner = service.owner(request)
    body = parameters.parse_json(await json_body(request))
    profile, now = service.mode.profile, service.clock.seconds()
    file_id = parameters.text(body, "input_file_id")
    endpoint, window = parameters.batch_endpoint(body, profile), parameters.window(body, profile)
    batch = Batch(
        id=f"batch_{secrets.token_hex(16)}",
        owner=owner,
        input_file_id=file_id,
        endpoint=endpoint,
        completion_window=window,
        created_at=now,
        expires_at=now + (parameters.window_seconds(window) if service.mode.expires else _NEVER_SECONDS),
        metadata=parameters.metadata(body.get("metadata")),
        output_expires_seconds=parameters.life(body.get("output_expires_after"), "output_expires_after", profile),
    )
    quotas.check_batch(service, owner)
    service.count_batch(owner)
    batch = replace(batch, fate=service.faults.for_batch(batch))
    await run_in_threadpool(_store_batch, service, batch)
    service.runner.submit(batch)
    return Json(batch_object(batch))


def _store_batch(service: Service, batch: Batch) -> None:
    with service.adding:
        quotas.check_batch(service, batch.owner)
        service.store.add_batch(batch)


def _batch(request: Request) -> Batch:
    service = service_of(request)
    batch_id = request.path_params["batch_id"]
    batch = service.store.batch(service.owner(request), batch_id)
    if batch is None:
        raise ApiError(404, f"No batch found with id '{batch_id}'.")
    return batch


async def get_batch(request: Request) -> Response:
    return Json(batch_object(service_of(request).runner.view(_batch(request))))


async def list_batches(request: Request) -> Response:
    service = service_of(request)
    after = request.query_params.get("after") or None
    size = parameters.limit(request.query_params, default=20, most=100)
    keep = service.mode.listed(request.query_params, service.clock.seconds())
    try:
        batches, has_more = service.store.batches(service.owner(request), limit=size, after=after, keep=keep)
    except LookupError:
        raise ApiError(404, f"No batch found with id '{after}'.", param="after") from None
    shown = [batch_object(service.runner.view(batch)) for batch in batches if not service.is_hidden(batch.id)]
    return Json(page(shown, has_more=has_more))


async def cancel_batch(request: Request) -> Response:
    service, batch = service_of(request), _batch(request)
    now = service.clock.seconds()

    def cancelling(before: Batch) -> Batch:
        if before.status in TERMINAL or before.status == "cancelling":
            return before
        return replace(before, status="cancelling", cancelling_at=now)

    after = await run_in_threadpool(service.store.change_batch, batch.id, cancelling)
    if after.status in TERMINAL - {"cancelled"}:
        raise ApiError(409, f"Cannot cancel a batch with status '{after.status}'.")
    if after.status == "cancelling":
        service.runner.stop(after)
    return Json(batch_object(service.runner.view(after)))


# Real time: the same answers one by one


async def answer_now(request: Request) -> Response:
    service = service_of(request)
    service.owner(request)
    body = parameters.parse_json(await json_body(request))
    if body.get("stream"):
        raise ApiError(400, "Streaming is not supported here.", param="stream", code="unsupported_value")
    try:
        reply = await run_in_threadpool(service.answerer.answer, request.url.path, body, stop=_after(_PATIENCE_SECONDS))
    except Abandoned:
        message = "No answer could be had in time. Try again later."
        raise ApiError(503, message, kind="server_error", code="server_is_overloaded") from None
    except (TypeError, ValueError, KeyError, AttributeError):
        raise ApiError(400, "The body of your request is not of the expected form.") from None
    return Json(reply.body, status_code=reply.status or 500)


def _after(seconds: float) -> Stop:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


async def list_models(request: Request) -> Response:
    service = service_of(request)
    service.owner(request)
    names = sorted(service.options.models) or ["batchops-simulated"]
    models = [{"id": name, "object": "model", "created": 0, "owned_by": "batchops"} for name in names]
    return Json({"object": "list", "data": models})


# The application

ROUTES: tuple[tuple[str, str, Endpoint], ...] = (
    ("POST", "/v1/files", create_file),
    ("GET", "/v1/files", list_files),
    ("GET", "/v1/files/{file_id}", get_file),
    ("DELETE", "/v1/files/{file_id}", delete_file),
    ("GET", "/v1/files/{file_id}/content", get_content),
    ("POST", "/v1/batches", create_batch),
    ("GET", "/v1/batches", list_batches),
    ("GET", "/v1/batches/{batch_id}", get_batch),
    ("POST", "/v1/batches/{batch_id}/cancel", cancel_batch),
    ("POST", "/v1/chat/completions", answer_now),
    ("POST", "/v1/responses", answer_now),
    ("POST", "/v1/embeddings", answer_now),
    ("POST", "/v1/moderations", answer_now),
    ("POST", "/v1/completions", answer_now),
    ("GET", "/v1/models", list_models),
    *CONTROL_ROUTES,
)


async def _api_error(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, ApiError)
    return Json(problem.body, status_code=problem.status, headers=problem.headers)


async def _http_error(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    call = f"{request.method} {request.url.path}"
    message = f"Invalid URL ({call})" if problem.status_code == 404 else f"Invalid method for URL ({call})"
    body = error_object(message, kind="invalid_request_error")
    return Json(body, status_code=problem.status_code, headers=dict(problem.headers or {}))


async def _failed(request: Request, problem: Exception) -> Response:
    _LOG.error("%s %s failed", request.method, request.url.path, exc_info=problem)
    return Json(error_object("The server had an error.", kind="server_error", code="server_error"), status_code=500)


async def _disconnected(_: Request, __: Exception) -> Response:
    return Response(status_code=400)


def _routes() -> list[Route]:
    """One route a path, so that a wrong method is told of all the right ones."""
    offered: dict[str, dict[str, Endpoint]] = {}
    for method, path, endpoint in ROUTES:
        offered.setdefault(path, {})[method] = endpoint
    return [Route(path, _by_method(offered[path]), methods=list(offered[path])) for path in offered]


def _by_method(endpoints: dict[str, Endpoint]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        return await endpoints["GET" if request.method == "HEAD" else request.method](request)

    return endpoint


def make_app(service: Service) -> Starlette:
    """The ASGI application without what a fault plan does to its calls; see `interference`."""
    app = Starlette(
        routes=_routes(),
        exception_handlers={
            ApiError: _api_error,
            HTTPException: _http_error,
            ClientDisconnect: _disconnected,
            Exception: _failed,
        },
    )
    app.state.service = service
    return app
