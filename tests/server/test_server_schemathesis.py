"""schemathesis against a served OpenAPI text: no server error and no answer off the schema, no check or path left out.

What the server offers is described more strictly here than to its users: answers in real time must fit OpenAI's own
schemas. It runs as a process of its own, over HTTP, with a key that the server asks for, and does what it does by
itself: examples, edges of every parameter, random requests, and calls that follow one another.
"""

from __future__ import annotations

import copy
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from batch_desk import Desk, serving

KEY = "sk-schemathesis"
OFFICIAL = json.loads((Path(__file__).parent / "data" / "openai_schemas.json").read_text(encoding="utf-8"))
ANSWERS = {
    "/chat/completions": "CreateChatCompletionResponse",
    "/responses": "Response",
    "/embeddings": "CreateEmbeddingResponse",
    "/moderations": "CreateModerationResponse",
}
PHASES = ("examples", "coverage", "fuzzing", "stateful")
SEED = "SCHEMATHESIS_SEED"
"""The variable that makes a full run that found something once more."""


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with serving(tmp_path / "data", keys=(KEY,), key=KEY) as desk:
        yield desk


def strict(text: dict[str, Any]) -> dict[str, Any]:
    """The server's OpenAPI text with OpenAI's schemas for the answers in real time."""
    # The text has no word for `encoding_format: base64`, which the SDK asks for unless told otherwise.
    official = copy.deepcopy(OFFICIAL["components"]["schemas"])  # each run of the process changes its own
    embedding = official["Embedding"]["properties"]
    embedding["embedding"] = {"oneOf": [embedding["embedding"], {"type": "string"}]}
    prefixed = json.loads(json.dumps(official).replace("schemas/", "schemas/Official"))
    text["components"]["schemas"] |= {f"Official{name}": schema for name, schema in prefixed.items()}
    for path, name in ANSWERS.items():
        answer = text["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]
        answer["schema"] = {"$ref": f"#/components/schemas/Official{name}"}
    return text


def run(desk: Desk, folder: Path, *flags: str) -> dict[str, Any]:
    """A whole run; its report. Fails the test, with what schemathesis says, when it finds anything."""
    served = desk.raw("GET", "/_batchops/openapi.json").json()
    (folder / "openapi.json").write_text(json.dumps(strict(served)))
    words = ["openapi.json", "--url", urljoin(desk.url, "/v1"), "--header", f"Authorization: Bearer {KEY}"]
    words += ["--checks", "all", "--phases", ",".join(PHASES), "--continue-on-failure"]
    words += ["--request-timeout", "300", "--max-response-time", "300"]  # 2,048 embeddings on a busy machine take long
    words += ["--report-json-path", "report.json", "--no-color", *flags]
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    said = f"schemathesis {' '.join(words)}\n{done.stdout[-20_000:]}\n{done.stderr[-2_000:]}"
    assert done.returncode == 0, said
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


def nothing_was_left_out(report: dict[str, Any]) -> None:
    paths = json.loads((Path(__file__).parents[2] / "batchops/server/openapi.json").read_text())["paths"]
    offered = sum(method in operations for operations in paths.values() for method in ("get", "post", "delete"))
    assert report["complete"]
    assert report["operations"]["tested"] == report["operations"]["total"] == offered
    assert {name: phase["status"] for name, phase in report["phases"].items()} == dict.fromkeys(PHASES, "success")
    assert report["test_cases"]["without_checks"] == 0


def test_each_run_of_a_process_is_held_to_the_same_schemas() -> None:
    served = (Path(__file__).parents[2] / "batchops/server/openapi.json").read_text()
    assert strict(json.loads(served)) == strict(json.loads(served))


def test_a_bounded_run_finds_nothing(
    desk: Desk, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    report = run(desk, tmp_path, "--generation-deterministic", "--max-examples", "3")
    nothing_was_left_out(report)
    record_property("reached", f"schemathesis: {report['test_cases']['generated']:,} calls, none off the schema")


@pytest.mark.full
def test_a_full_run_finds_nothing(desk: Desk, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    seed = os.environ.get(SEED) or str(secrets.randbelow(2**32))
    print(f"To make this run again: {SEED}={seed}")  # pytest shows it when the test fails
    report = run(desk, tmp_path, "--seed", seed, "--generation-database", "none", "--max-examples", "200")
    nothing_was_left_out(report)
    calls = f"{report['test_cases']['generated']:,} calls of seed {seed}"
    record_property("reached", f"schemathesis: {calls}, none off the schema")
