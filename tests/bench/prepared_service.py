"""A Files+Batches API that costs next to nothing: what is uploaded is kept, and answered when it is told so.

`prepared_service.py FOLDER chat|embeddings` serves on a free port of loopback and prints it. Batches are in progress
until POST /release, which makes the answers, and completed after it. Result files are plain files in FOLDER, for a
floor to read too.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any, Final

from measuring import command_line

VECTOR_NUMBERS: Final = 1536
_CUSTOM_ID: Final = re.compile(rb'"custom_id": ?"([^"]+)"')
_CHUNK_BYTES: Final = 1 << 20
_NOW: Final = int(time.time())


def chat_answers(identifiers: list[str]) -> Iterator[str]:
    """One line a request as the service writes it: a structured answer, and some 1,000 characters around it."""
    random = Random(7)
    for number, identifier in enumerate(identifiers):
        name = f"{random.getrandbits(128):032x}"
        said = {
            "label": random.choice(["positive", "negative", "neutral"]),
            "confidence": round(random.random(), 2),
            "reason": f'It says \u201c{name}\u201d and is "quoted", naïve. ' + name * 4,
        }
        message: dict[str, object] = {
            "role": "assistant",
            "content": json.dumps(said, ensure_ascii=False),
            "refusal": None,
            "annotations": [],
        }
        usage = {
            "prompt_tokens": 120 + number % 9,
            "completion_tokens": 60,
            "total_tokens": 180 + number % 9,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }
        body = {
            "id": f"chatcmpl-{name[:24]}",
            "object": "chat.completion",
            "created": _NOW + number // 100,
            "model": "gpt-5-mini-2025-08-07",
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": usage,
            "service_tier": "default",
            "system_fingerprint": None,
        }
        yield _line(name, identifier, body)


def embedding_answers(identifiers: list[str]) -> Iterator[str]:
    """One vector a request."""
    random = Random(7)
    for identifier in identifiers:
        vector = [random.gauss(0, 0.0255) for _ in range(VECTOR_NUMBERS)]
        data = [{"object": "embedding", "index": 0, "embedding": vector}]
        usage = {"prompt_tokens": 100, "total_tokens": 100}
        body = {"object": "list", "data": data, "model": "text-embedding-3-small", "usage": usage}
        yield _line(f"{random.getrandbits(128):032x}", identifier, body)


def _line(name: str, identifier: str, body: dict[str, Any]) -> str:
    response = {"status_code": 200, "request_id": name, "body": body}
    return json.dumps({"id": f"batch_req_{name}", "custom_id": identifier, "response": response, "error": None}) + "\n"


ANSWERS: Final[dict[str, Callable[[list[str]], Iterator[str]]]] = {
    "chat": chat_answers,
    "embeddings": embedding_answers,
}


class Handler(BaseHTTPRequestHandler):
    """Just what a client that is never in trouble asks for."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # a head and a body in two packets wait 40 ms for each other
    folder: Path
    kind: str
    batches: dict[str, dict[str, Any]] = {}  # noqa: RUF012  one service a process
    lock = threading.Lock()
    files = 0
    is_released = False

    def do_POST(self) -> None:
        if self.path == "/v1/files":
            self._say(self._upload(int(self.headers["Content-Length"])))
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/release":
            self._release()
            self._say({})
        else:
            self._say(self._create(json.loads(body)))

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.endswith("/content"):
            self._send(self.folder / f"{path.split('/')[3]}.jsonl")
        elif path in {"/v1/batches", "/v1/files"}:
            self._say({"object": "list", "data": [], "has_more": False})
        elif path.startswith("/v1/files/"):
            self._say(self._file(path.split("/")[3]))
        else:
            self._say(self._shown(path.split("/")[3]))

    def do_DELETE(self) -> None:
        self._say({"id": self.path.split("/")[3], "object": "file", "deleted": True})

    def _upload(self, size: int) -> dict[str, Any]:
        with self.lock:
            number = Handler.files
            Handler.files += 1
        with (self.folder / f"file-{number}.in").open("wb") as file:
            for start in range(0, size, _CHUNK_BYTES):
                file.write(self.rfile.read(min(_CHUNK_BYTES, size - start)))
        return self._file(f"file-{number}", size=size)

    def _release(self) -> None:
        """Answer every input file, and end all batches."""
        for path in sorted(self.folder.glob("*.in")):
            identifiers = [found.decode() for found in _CUSTOM_ID.findall(path.read_bytes())]
            with path.with_suffix(".jsonl").open("w", encoding="utf-8") as file:
                file.writelines(ANSWERS[self.kind](identifiers))
            path.unlink()
        Handler.is_released = True

    def _file(self, name: str, size: int | None = None) -> dict[str, Any]:
        found = (self.folder / f"{name}.jsonl").stat().st_size if size is None else size
        more = {"filename": "in.jsonl", "purpose": "batch", "status": "processed"}
        return {"id": name, "object": "file", "bytes": found, "created_at": _NOW, **more}

    def _create(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = f"batch_{len(self.batches)}"
        Handler.batches[name] = {"id": name, "object": "batch", "created_at": _NOW, **asked}
        return self._shown(name)

    def _shown(self, name: str) -> dict[str, Any]:
        found = self.batches[name]
        if not self.is_released:
            return {**found, "status": "in_progress"}
        return {**found, "status": "completed", "completed_at": _NOW, "output_file_id": found["input_file_id"]}

    def _say(self, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _send(self, path: Path) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(path.stat().st_size))
        self.end_headers()
        with path.open("rb") as file:
            shutil.copyfileobj(file, self.wfile, 1 << 20)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where input and result files go")
    parser.add_argument("kind", choices=("chat", "embeddings"))
    asked = parser.parse_args()
    Handler.folder, Handler.kind = asked.folder, asked.kind
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
