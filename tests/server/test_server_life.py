"""A server's life: started, shared, closed, killed, started again; and nobody's batch is answered twice."""

from __future__ import annotations

import base64
import errno
import functools
import json
import os
import signal
import struct
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from batch_desk import Desk, at, chat, serving
from filelock import FileLock
from openai.types import Batch
from serve_command import started

from batchops.cli.main import run
from batchops.diagnostics import BatchopsError
from batchops.server.blobs import Blobs
from batchops.server.embedded import ensure_served, find_served
from batchops.server.journal import Entry, Journal
from batchops.server.lines import Reply, result_line

ANSWERS = """
import os, time
LOG = os.environ["ANSWER_LOG"]

def answer(body, url):
    text = body["messages"][-1]["content"]
    with open(LOG, "a") as log:
        log.write(text + "\\n")
    time.sleep(0.002)
    return text.upper()

def vector(body, url):
    given = body["input"]
    if given == "none":
        return []
    if given == "nan":
        return [float("nan")]
    return [[float(len(text)), 0.5] for text in given] if isinstance(given, list) else (0.25, len(given))

def unwritable(body, url):
    return {"choices": {1, 2}}

def fail(body, url):
    raise ValueError("secret " + body["messages"][-1]["content"])
"""


def answered_once(desk: Desk, batch_id: str) -> set[str]:
    """The custom_ids of a batch, each executed once."""
    rows = desk.ledger(batch_id)["executions"]
    assert {row["count"] for row in rows} == {1}
    return {row["custom_id"] for row in rows}


# Embedded


def test_embedded_server_leaves_nothing(tmp_path: Path) -> None:
    with ensure_served(tmp_path):
        pass  # pays for the imports
    threads = threading.active_count()
    descriptors = _open_files()
    server = ensure_served(tmp_path)
    with at(server.url) as desk:
        assert desk.wait(desk.submit([chat("a")])).status == "completed"
    server.close()
    server.close()
    assert threading.active_count() == threads
    assert not (tmp_path / "server.json").exists()
    assert _open_files() <= descriptors


def _open_files() -> int:
    listed = Path("/proc/self/fd")
    return len(list(listed.iterdir())) if listed.exists() else 0


def test_second_caller_finds_the_server_of_the_first(tmp_path: Path) -> None:
    with ensure_served(tmp_path) as first, ensure_served(tmp_path) as second:
        assert (first.is_owner, second.is_owner) == (True, False)
        assert first.url == second.url
        second.close()
        with at(first.url) as desk:
            assert desk.raw("GET", "/_batchops/health").json()["pid"] == os.getpid()


def test_other_process_finds_the_server_and_takes_over_when_its_owner_is_gone(tmp_path: Path) -> None:
    with started(tmp_path) as other:
        with ensure_served(tmp_path) as found:
            assert (found.url, found.is_owner) == (other.url, False)
            with at(found.url) as desk:
                batch = desk.wait(desk.submit([chat("a")]))
        other.end(signal.SIGKILL)
        with ensure_served(tmp_path) as own, at(own.url) as desk:
            assert own.is_owner
            assert desk.sdk.batches.retrieve(batch.id) == batch
            assert len(desk.lines(batch.output_file_id)) == 1


def test_address_of_a_dead_server_is_not_believed(tmp_path: Path) -> None:
    with ensure_served(tmp_path):
        written = (tmp_path / "server.json").read_text()
        assert find_served(tmp_path) is not None
    (tmp_path / "server.json").write_text(written)
    assert find_served(tmp_path) is None
    with ensure_served(tmp_path / "other"):
        of_another = json.loads((tmp_path / "other" / "server.json").read_text())
        (tmp_path / "server.json").write_text(json.dumps({**of_another, "instance": "x"}))
        assert find_served(tmp_path) is None


def test_folder_that_is_locked_but_not_served_is_refused(tmp_path: Path) -> None:
    with FileLock(tmp_path / "server.lock"), pytest.raises(BatchopsError) as refused:
        ensure_served(tmp_path, patience_seconds=0.05)
    assert [problem.code for problem in refused.value.diagnostics] == ["data_dir_locked"]


def test_many_callers_at_once_share_one_server(tmp_path: Path) -> None:
    urls: list[str] = []
    gate = threading.Barrier(6)

    def call() -> None:
        gate.wait()
        server = ensure_served(tmp_path)
        urls.append(server.url)
        gate.wait()
        server.close()

    callers = [threading.Thread(target=call) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(urls) == 6
    assert len(set(urls)) == 1


# Closed and killed


def test_files_and_batches_survive_a_restart(tmp_path: Path) -> None:
    with serving(tmp_path) as desk:
        file_id = desk.upload([chat("a"), chat("b")])
        done = desk.wait(desk.create(file_id, metadata={"k": "v"}))
        content = desk.sdk.files.content(file_id).read()
    with serving(tmp_path) as desk:
        assert desk.sdk.batches.retrieve(done.id) == done
        assert desk.sdk.files.content(file_id).read() == content
        assert len(desk.lines(done.output_file_id)) == 2
        assert answered_once(desk, done.id) == {"a", "b"}


def test_advanced_clock_stays_advanced_over_a_restart(tmp_path: Path) -> None:
    with serving(tmp_path) as desk:
        desk.control("clock/advance", {"seconds": 10**6})
        first = desk.submit([chat("a")])
    with serving(tmp_path) as desk:
        assert desk.submit([chat("a")]).created_at >= first.created_at > time.time() + 900_000


def test_closed_server_goes_on_with_a_batch_where_it_was(tmp_path: Path) -> None:
    asked = [f"r{n}" for n in range(40)]
    with serving(tmp_path) as desk:
        desk.control("faults", {"rules": [{"on": "batch", "effect": "stall", "at": 0.5, "seconds": 3600}]})
        batch = desk.submit([chat(custom_id) for custom_id in asked])
        desk.wait(batch, lambda seen: seen.request_counts is not None and seen.request_counts.completed == 20)
    with serving(tmp_path) as desk:
        assert desk.sdk.batches.retrieve(batch.id).status == "in_progress"
        desk.control("clock/advance", {"seconds": 3601})
        done = desk.wait(batch)
        assert (done.status, answered_once(desk, batch.id)) == ("completed", set(asked))


def test_torn_last_entry_of_a_journal_is_answered_again(tmp_path: Path) -> None:
    with serving(tmp_path) as desk:
        desk.control("faults", {"rules": [{"on": "batch", "effect": "stall", "at": 0.5, "seconds": 3600}]})
        batch = desk.submit([chat(f"r{n}") for n in range(10)])
        desk.wait(batch, lambda seen: seen.request_counts is not None and seen.request_counts.completed == 5)
    journal = tmp_path / "work" / batch.id / "journal"
    journal.write_bytes(journal.read_bytes()[:-30])
    with serving(tmp_path) as desk:
        desk.control("clock/advance", {"seconds": 3601})
        assert len(desk.lines(desk.wait(batch).output_file_id)) == 10


def test_entry_that_the_disk_took_only_a_part_of_is_written_whole(tmp_path: Path) -> None:
    class Grudging:
        """A file that takes seven bytes at a time."""

        def __init__(self, file: Any) -> None:
            self._file = file

        def write(self, data: bytes) -> int:
            return int(self._file.write(data[:7]))

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

    line = result_line("a", "r1", Reply(200, {"usage": {"prompt_tokens": 3}}))
    with Journal(tmp_path / "journal") as journal:
        journal._file = Grudging(journal._file)  # type: ignore[assignment]
        journal.append([Entry(b"O", "r1", {}, line), Entry(b"O", "r2", {}, line)])
    assert (tmp_path / "journal").read_bytes() == (b"O" + line) * 2


@pytest.mark.parametrize("fails_at", [1, 2])
def test_disk_that_is_full_when_a_batch_ends_leaves_nothing_behind_and_ends_it_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    kept, keep = 0, Blobs.keep

    def keep_or_fail(blobs: Blobs, temporary: Path, file_id: str) -> None:
        nonlocal kept
        kept += 1
        if kept == fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        keep(blobs, temporary, file_id)

    with serving(tmp_path) as desk:
        desk.control("faults", {"rules": [{"on": "line", "custom_id": "b", "effect": "error"}]})
        file_id = desk.upload([chat("a"), chat("b")])
        monkeypatch.setattr(Blobs, "keep", keep_or_fail)
        batch = desk.create(file_id)
        while kept <= fails_at:
            desk.control("clock/advance", {"seconds": 10})
        done = desk.wait(batch)
        assert answered_once(desk, done.id) == {"a", "b"}
        stored = {path.name for folder in ("files", "tmp") for path in (tmp_path / folder).iterdir()}
        assert stored == {file_id, done.output_file_id, done.error_file_id}


def embedding(custom_id: str, given: Any, **more: Any) -> dict[str, Any]:
    body = {"model": "m", "input": given, **more}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": body}


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    (tmp_path / "made_answers.py").write_text(ANSWERS)
    return tmp_path / "asked.log"


def test_killed_server_answers_no_line_twice(tmp_path: Path, answers: Path) -> None:
    env = {"ANSWER_LOG": str(answers), "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    flags = ("--answers", "made_answers:answer")
    asked = {f"r{n}" for n in range(300)}
    batch_id = None
    for _ in range(3):
        with started(tmp_path / "data", *flags, env=env) as server, at(server.url) as desk:
            batch_id = batch_id or desk.submit([chat(custom_id, custom_id) for custom_id in sorted(asked)]).id
            before = desk.sdk.batches.retrieve(batch_id).request_counts
            assert before is not None
            reached = before.completed + 30
            desk.wait(batch_id, functools.partial(_has_completed, reached))
            server.end(signal.SIGKILL)
    with started(tmp_path / "data", *flags, env=env) as server, at(server.url) as desk:
        assert batch_id is not None
        done = desk.wait(batch_id)
        lines = desk.lines(done.output_file_id)
        assert answered_once(desk, batch_id) == asked
        assert server.end(signal.SIGTERM) == 0
    assert sorted(line["custom_id"] for line in lines) == sorted(asked)
    called = Counter(answers.read_text().split())
    assert set(called) == asked
    assert sum(called.values()) <= 300 + 3  # a call under way when its server was killed was never answered


def _has_completed(lines: int, batch: Batch) -> bool:
    return batch.request_counts is not None and batch.request_counts.completed >= lines


def test_function_that_raises_fails_its_line_and_tells_no_content(tmp_path: Path, answers: Path) -> None:
    env = {"ANSWER_LOG": str(answers), "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    with started(tmp_path / "data", "--answers", "made_answers:fail", env=env) as server, at(server.url) as desk:
        done = desk.wait(desk.submit([chat("a", "private words")]))
        [line] = desk.lines(done.error_file_id)
        assert line["response"]["status_code"] == 500
        assert "x-batchops-simulated" not in desk.raw("GET", "/_batchops/health").headers
        server.end(signal.SIGTERM)
        assert server.process.stderr is not None
        assert "private words" not in str(line) + server.process.stderr.read()


def test_vectors_of_a_function_are_put_into_shape(tmp_path: Path, answers: Path) -> None:
    env = {"ANSWER_LOG": str(answers), "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    good = [
        embedding("one", "abc"),
        embedding("two", ["a", "bc"]),
        embedding("packed", ["a"], encoding_format="base64"),
    ]
    bad = [embedding("none", "none"), embedding("nan", "nan")]
    with started(tmp_path / "data", "--answers", "made_answers:vector", env=env) as server, at(server.url) as desk:
        done = desk.wait(desk.submit([*good, *bad], "/v1/embeddings"))
        bodies = {line["custom_id"]: line["response"]["body"] for line in desk.lines(done.output_file_id)}
        assert {line["custom_id"] for line in desk.lines(done.error_file_id)} == {"none", "nan"}
    assert [each["embedding"] for each in bodies["one"]["data"]] == [[0.25, 3]]
    assert [each["embedding"] for each in bodies["two"]["data"]] == [[1.0, 0.5], [2.0, 0.5]]
    packed = base64.b64encode(struct.pack("<2f", 1.0, 0.5)).decode()
    assert [each["embedding"] for each in bodies["packed"]["data"]] == [packed]
    assert bodies["two"]["usage"]["prompt_tokens"] > 0


def test_function_that_returns_what_json_has_no_form_for_fails_its_line(tmp_path: Path, answers: Path) -> None:
    env = {"ANSWER_LOG": str(answers), "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    with started(tmp_path / "data", "--answers", "made_answers:unwritable", env=env) as server, at(server.url) as desk:
        [line] = desk.lines(desk.wait(desk.submit([chat("a")])).error_file_id)
        assert line["response"]["body"]["error"]["message"].endswith("a mapping that JSON has no form for.")


# The command


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_serve_says_where_it_is_and_ends_cleanly(tmp_path: Path, number: int, code: int) -> None:
    with started(tmp_path / "data", cwd=tmp_path) as server:
        assert server.said == f"Serving the Files+Batches API at {server.url}\n"
        with at(server.url) as desk:
            assert desk.raw("GET", "/_batchops/health").json()["status"] == "ok"
            assert server.end(number) == code
        assert server.process.stderr is not None
        assert server.process.stderr.read() == ""


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str]:
    """Exit code and stderr of a `serve` that is expected to end at once."""
    code = run(["serve", "--data", str(tmp_path / "data"), *flags])
    return code, capsys.readouterr().err


def test_data_folder_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ensure_served(tmp_path / "data"):
        code, said = refused(tmp_path, capsys, "--port", "0")
    assert (code, "error: Data folder is in use." in said) == (1, True)


def test_address_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ensure_served(tmp_path / "other") as server:
        code, said = refused(tmp_path, capsys, "--port", server.url.split(":")[2].split("/")[0])
    assert (code, "error: Address is unavailable." in said) == (1, True)
    assert refused(tmp_path, capsys, "--host", "203.0.113.1", "--port", "0")[0] == 1


@pytest.mark.parametrize(
    ("flags", "code", "summary"),
    [
        (["--answers", "nowhere:answer"], 1, "Answers cannot be made."),
        (["--answers", "json"], 1, "Answers cannot be made."),
        (["--answers", "json:nothing"], 1, "Answers cannot be made."),
        (["--faults", "missing.toml"], 1, "Invalid fault plan."),
        (["--key", "sk-secret"], 64, "Literal secret."),
        (["--key", "env:NOT_SET"], 64, "Environment variable not set."),
        (["--enqueued-tokens", "gpt=many"], 64, "Usage error."),
        (["--max-storage", "much"], 64, "Usage error."),
        (["--max-storage", ""], 64, "Usage error."),
        (["--max-storage", "0"], 64, "Usage error."),
        (["--max-storage", "0.1"], 64, "Usage error."),
        (["--enqueued-tokens", "gpt-5-mini=0"], 64, "Usage error."),
        (["--model", "gpt-5-mini", "--model", " "], 64, "Usage error."),
        (["--webhook", "http://127.0.0.1:9/"], 64, "Usage error."),
        (["--host", ""], 64, "Usage error."),
        (["--host", " "], 64, "Usage error."),
        (["--max-storage", "9" * 400], 64, "Usage error."),
        (["--enqueued-tokens", f"gpt-5-mini={'9' * 400}"], 64, "Usage error."),
        (["--data", "/proc/nowhere"], 1, "Data folder cannot be made."),
    ],
)
def test_wrong_flag_is_refused_before_anything_is_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], code: int, summary: str
) -> None:
    ended, said = refused(tmp_path, capsys, "--port", "0", *flags)
    assert (ended, summary in said) == (code, True), said
    assert "sk-secret" not in said
    assert not list(tmp_path.glob("data/server.sqlite"))
