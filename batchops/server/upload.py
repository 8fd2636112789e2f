"""Multipart uploads straight to disk: however large the file, memory stays flat."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from batchops.server.wire import ApiError

_MOST_FIELD_BYTES = 64 * 1024
_MOST_PARTS = 64
_NAMELESS = "upload"
logging.getLogger("python_multipart").addHandler(logging.NullHandler())  # what a client sends is not our news
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass
class Upload:
    """What a form carried. `path` is where the file's content is; `filename` is only ever shown, never opened."""

    path: Path
    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    bytes: int = 0


def _bad(message: str, *, param: str | None = None) -> ApiError:
    return ApiError(400, message, param=param)


async def receive_upload(content_type: str, chunks: AsyncIterator[bytes], path: Path, *, max_bytes: int) -> Upload:
    """Read a whole form into `path` and the fields. Raises ApiError for what is not a well-formed form."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise _bad("Expected a multipart/form-data body with a 'file' and a 'purpose'.")
    with path.open("wb") as target:
        form = _Form(Upload(path), target, max_bytes)
        try:
            parser = MultipartParser(boundary, form.callbacks())
            async for chunk in chunks:
                parser.write(chunk)
            parser.finalize()
        except FormParserError as problem:
            raise _bad("The multipart body of the request could not be parsed.") from problem
    if not form.is_ended:
        raise _bad("The multipart body of the request ended too early.")
    return form.upload


class _Form:
    """The parser's callbacks: headers of a part, then its content to the file or to a field."""

    def __init__(self, upload: Upload, target: IO[bytes], max_bytes: int) -> None:
        self.upload = upload
        self.is_ended = False
        self._target, self._max_bytes = target, max_bytes
        self._header, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._field: str | None = None
        self._text = bytearray()
        self._is_file = False
        self._parts = 0

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._part_begins,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_ends,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_part_end": self._part_ends,
            "on_end": self._ends,
        }

    def _part_begins(self) -> None:
        self._headers, self._text, self._is_file = {}, bytearray(), False
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise _bad("The form has too many parts.")

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header = self._value = b""

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._field = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = self._field == "file"
        if self._is_file and self.upload.filename is not None:
            raise _bad("Only one file can be uploaded at a time.", param="file")
        if self._is_file:
            self.upload.filename = _shown_name(options.get(b"filename", b"").decode("utf-8", "replace"))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if not self._is_file:
            self._text += data[start:end]
            if len(self._text) > _MOST_FIELD_BYTES:
                raise _bad("A field of the form is too long.", param=self._field)
            return
        self.upload.bytes += end - start
        if self.upload.bytes > self._max_bytes:
            raise _bad("File is too large.", param="file")
        self._target.write(memoryview(data)[start:end])

    def _part_ends(self) -> None:
        if not self._is_file and self._field:
            self.upload.fields[self._field] = self._text.decode("utf-8", "replace")

    def _ends(self) -> None:
        self.is_ended = True


def _shown_name(filename: str) -> str:
    """The last part of a client's file name, without control characters; `upload` if it has none."""
    return _CONTROL.sub("", filename.replace("\\", "/").rsplit("/", 1)[-1])[:255] or _NAMELESS
