"""Times `batchops serve` against a plain copy of the same file: `make bench`, or `server.py LINES` for another size.

A file of 4,000 bytes a line is uploaded, validated and answered by the simulation, and the result is downloaded. Every
repeat has a server process and a data folder of its own; the client is this process, on a bare socket, so that the
server is what is measured. The floor is a copy that is synced, as the server's own files are.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil  # type: ignore[import-untyped]
from measuring import REPEATS, median, peak_mb, size_asked

LINES = 50_000
LINE_BYTES = 4_000
COPY = """\
import os, shutil
shutil.copyfile("input.jsonl", "copy.jsonl")
os.fsync(os.open("copy.jsonl", os.O_RDWR))
"""
HEAD = (
    b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--x\r\ncontent-disposition: form-data; name="file"; filename="input.jsonl"\r\n\r\n'
)
TAIL = b"\r\n--x--\r\n"


@dataclass
class Phase:
    """One thing the server does: how long it took in each repeat, how many bytes went through, memory by its end.

    Its own seconds of work are told beside those of the clock, which other programs of the machine may stretch.
    """

    name: str
    megabytes: float = 0
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_mb: float = 0

    @contextmanager
    def timed(self, pid: int) -> Iterator[None]:
        began, worked = time.perf_counter(), _cpu_seconds(pid)
        yield
        self.seconds.append(time.perf_counter() - began)
        self.cpu_seconds.append(_cpu_seconds(pid) - worked)
        self.peak_mb = max(self.peak_mb, peak_mb(pid))

    def row(self, floor_mb_per_second: float) -> str:
        speed = self.megabytes / statistics.median(self.seconds)
        ratio = floor_mb_per_second / speed
        worked = f"{statistics.median(self.cpu_seconds):.2f}" if self.cpu_seconds else "-"
        times = f"{statistics.median(self.seconds):8.2f} s{worked:>8} CPU"
        return f"{self.name:32}{times}{speed:8.0f} MB/s{ratio:8.1f} × floor{self.peak_mb:8.0f} MB"


def _cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


class Client:
    """Just enough HTTP to keep the client's own work out of the measurement."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._address = (parts.hostname, parts.port)

    def call(self, method: str, path: str, body: bytes = b"") -> Any:
        sent = b"content-type: application/json\r\n" if body else b""
        with self._asked(method, path, len(body), sent) as connection:
            connection.sendall(body)
            return json.loads(b"".join(_answer(connection)))

    def upload(self, path: Path) -> str:
        size = len(HEAD) + path.stat().st_size + len(TAIL)
        kind = b"content-type: multipart/form-data; boundary=x\r\n"
        with self._asked("POST", "/v1/files", size, kind) as connection, path.open("rb") as content:
            connection.sendall(HEAD)
            connection.sendfile(content)
            connection.sendall(TAIL)
            return str(json.loads(b"".join(_answer(connection)))["id"])

    def download(self, file_id: str, target: Path) -> None:
        with self._asked("GET", f"/v1/files/{file_id}/content", 0) as connection, target.open("wb") as written:
            written.writelines(_answer(connection))

    @contextmanager
    def _asked(self, method: str, path: str, size: int, headers: bytes = b"") -> Iterator[socket.socket]:
        with socket.create_connection(self._address, timeout=600) as connection:
            head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {size}\r\n"
            connection.sendall(head.encode() + headers + b"\r\n")
            yield connection


def _answer(connection: socket.socket) -> Iterator[bytes]:
    """The body of an answer with a content-length, in pieces. RuntimeError when it is not a 200 or is cut."""
    head = b""
    while b"\r\n\r\n" not in head:
        if not (piece := connection.recv(65536)):
            raise RuntimeError("the server hung up")
        head += piece
    head, _, body = head.partition(b"\r\n\r\n")
    found = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    if b" 200 " not in head.split(b"\r\n", 1)[0] or found is None:
        raise RuntimeError((head + body).decode(errors="replace"))
    left = int(found[1])
    while True:
        left -= len(body)
        yield body
        if left == 0:
            return
        if not (body := connection.recv(1 << 20)):
            raise RuntimeError(f"{left} bytes of the answer are missing")


@contextmanager
def serving(data: Path) -> Iterator[tuple[int, Client]]:
    """The command as a process: its pid and a client of it."""
    command = [sys.executable, "-m", "batchops", "serve", "--port", "0", "--data", str(data)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = process.stderr.readline().decode()
        try:
            yield process.pid, Client(said.split()[-1])
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def make_input(path: Path, lines: int) -> None:
    """Lines of LINE_BYTES bytes with quotes, accents and escapes, different in each."""
    with path.open("w", encoding="utf-8") as target:
        for number in range(lines):
            text = f'Row {number} says "hello",\n\u00e9\u00e8 \u2026 and goes on. ' + f"{number * 7919:032x} " * 120
            body = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": text}]}
            line = {"custom_id": f"row-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            written = json.dumps(line, ensure_ascii=False)
            cut = len(written.encode()) - LINE_BYTES + 1
            line["body"]["messages"][0]["content"] = text[:-cut]  # type: ignore[index]
            target.write(json.dumps(line, ensure_ascii=False) + "\n")


def wait(client: Client, batch_id: str, *statuses: str) -> dict[str, Any]:
    while (batch := client.call("GET", f"/v1/batches/{batch_id}"))["status"] not in statuses:
        if batch["status"] == "failed":
            raise RuntimeError(str(batch["errors"]))
        time.sleep(0.05)  # each look takes the server some two milliseconds of its one interpreter
    return dict(batch)


def once(folder: Path, upload: Phase, check: Phase, answer: Phase, download: Phase) -> None:
    """One life of a server, from upload to download."""
    source, lines = folder / "input.jsonl", sum(1 for _ in (folder / "input.jsonl").open("rb"))
    with tempfile.TemporaryDirectory(dir=folder) as data, serving(Path(data)) as (pid, client):
        with upload.timed(pid):
            file_id = client.upload(source)
        window = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
        with check.timed(pid):
            batch_id = client.call("POST", "/v1/batches", json.dumps({"input_file_id": file_id, **window}).encode())[
                "id"
            ]
            wait(client, batch_id, "in_progress", "finalizing", "completed")
        with answer.timed(pid):
            done = wait(client, batch_id, "completed")
        assert done["request_counts"] == {"total": lines, "completed": lines, "failed": 0}
        with download.timed(pid):
            client.download(done["output_file_id"], folder / "output.jsonl")
    download.megabytes = (folder / "output.jsonl").stat().st_size / 1e6
    assert sum(1 for _ in (folder / "output.jsonl").open("rb")) == lines


def main(lines: int) -> None:
    print(f"{os.cpu_count()} CPUs, Python {sys.version.split()[0]}, medians of {REPEATS}; memory at its peak")
    with tempfile.TemporaryDirectory(prefix="batchops-bench-") as name:
        folder = Path(name)
        make_input(folder / "input.jsonl", lines)
        megabytes = (folder / "input.jsonl").stat().st_size / 1e6
        copied = median([sys.executable, "-c", COPY], folder)
        names = (
            f"upload {megabytes:,.0f} MB",
            f"validate {lines:,} lines",
            f"answer {lines:,} lines",
            "download the result",
        )
        phases = [Phase(what, megabytes) for what in names]
        for _ in range(REPEATS):
            once(folder, *phases)
    speed = megabytes / copied.seconds
    floor = Phase(f"copy {megabytes:,.0f} MB and sync (floor)", megabytes, [copied.seconds], peak_mb=copied.peak_mb)
    print(floor.row(speed))
    for phase in phases:
        print(phase.row(speed), flush=True)


if __name__ == "__main__":
    main(size_asked(__doc__, LINES, what="LINES"))
