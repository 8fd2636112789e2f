"""schemathesis against the served OpenAPI texts: no server error, no answer off the schema, no check or path left out.

What the server offers is described more strictly here than to its users: answers in real time must fit OpenAI's own
schemas, and no call goes without a key. It runs as a process of its own, over HTTP, and does what it does by itself:
examples, edges of every parameter, random requests, and calls that follow one another. What the server offers to tests
is a text with a run of its own: turning the clock and planning faults under the other one would spoil what it sees.
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
from types import FunctionType
from typing import Any, TypeAlias
from urllib.parse import urljoin

import pytest
from batch_desk import Desk, chat, serving

from batchops.server.app import ROUTES

KEYS = {"alice": "sk-alice", "bob": "sk-bob"}
"""Of two who must not see each other's files and batches."""
LINE = 2_000
OFFICIAL = json.loads((Path(__file__).parent / "data" / "openai_schemas.json").read_text(encoding="utf-8"))
ANSWERS = {
    "/chat/completions": "CreateChatCompletionResponse",
    "/responses": "Response",
    "/embeddings": "CreateEmbeddingResponse",
    "/moderations": "CreateModerationResponse",
}
SETTINGS = """
[auth.wfc]
path = "keys.json"
user = "alice"
peers = ["alice", "bob"]

[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 413]
"""
"""What refuses a wrong call here. By itself schemathesis takes server errors for refusals, and 413 for none."""
PHASES = ("examples", "coverage", "fuzzing", "stateful")
SEED = "SCHEMATHESIS_SEED"
"""The variable that makes a full run that found something once more."""


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with serving(tmp_path / "data", keys=tuple(KEYS.values()), key=KEYS["alice"]) as desk:
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


def served(desk: Desk, name: str) -> dict[str, Any]:
    """A text as the server hands it out, but for the key that it leaves open: this server asks for one."""
    text: dict[str, Any] = desk.raw("GET", f"/_batchops/{name}").json()
    assert {} in text["security"]
    return {**text, "security": [way for way in text["security"] if way]}


def operations(text: dict[str, Any]) -> list[str]:
    """Method and path of everything a text describes."""
    base = text["servers"][0]["url"]
    return [
        f"{method.upper()} {base}{path}"
        for path, described in text["paths"].items()
        for method in ("get", "post", "delete")
        if method in described
    ]


def run(desk: Desk, folder: Path, text: dict[str, Any], *flags: str) -> dict[str, Any]:
    """A whole run; its report. What schemathesis finds fails the test, and so does what it leaves out."""
    (folder / "schemathesis.toml").write_text(SETTINGS)
    (folder / "keys.json").write_text(json.dumps({"auth": [bearer(name, key) for name, key in KEYS.items()]}))
    (folder / "openapi.json").write_text(json.dumps(text))
    words = ["openapi.json", "--url", urljoin(desk.url, text["servers"][0]["url"])]
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
    output = "\n".join(line[:LINE] for line in done.stdout.splitlines())  # a body may have a thousand tokens
    assert done.returncode == 0, f"schemathesis {' '.join(words)}\n{output}\n{done.stderr[-LINE:]}"
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    nothing_was_left_out(report, offered=len(operations(text)))
    return report


def bearer(name: str, key: str) -> dict[str, Any]:
    return {"name": name, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {key}"}]}


def nothing_was_left_out(report: dict[str, Any], *, offered: int) -> None:
    assert report["complete"]
    assert report["operations"]["tested"] == report["operations"]["total"] == offered
    assert {name: phase["status"] for name, phase in report["phases"].items()} == dict.fromkeys(PHASES, "success")
    # Probes of an operation, which the check of another call sends: without a key, with a wrong one, and with somebody
    # else's for each kind of id that it is given.
    assert 0 < report["test_cases"]["without_checks"] <= 8 * offered


def api(desk: Desk) -> dict[str, Any]:
    return strict(served(desk, "openapi.json"))


def control(desk: Desk) -> dict[str, Any]:
    """What the server offers to tests; a batch has run, so that there is something to tell."""
    desk.wait(desk.submit([chat("a"), chat("b")]))
    return served(desk, "openapi-control.json")


Text: TypeAlias = FunctionType
TEXTS = pytest.mark.parametrize("text", [api, control])
Record: TypeAlias = Callable[[str, object], None]


def test_everything_that_is_offered_is_described(desk: Desk) -> None:
    described = [*operations(api(desk)), *operations(control(desk))]
    assert sorted(described) == sorted(f"{method} {path}" for method, path, _ in ROUTES)


def test_each_run_of_a_process_is_held_to_the_same_schemas(desk: Desk) -> None:
    assert api(desk) == api(desk)


@TEXTS
def test_a_bounded_run_finds_nothing(desk: Desk, tmp_path: Path, record_property: Record, text: Text) -> None:
    report = run(desk, tmp_path, text(desk), "--generation-deterministic", "--max-examples", "3")
    record_property("reached", said(text, report))


@pytest.mark.full
@TEXTS
def test_a_full_run_finds_nothing(desk: Desk, tmp_path: Path, record_property: Record, text: Text) -> None:
    seed = os.environ.get(SEED) or str(secrets.randbelow(2**32))
    print(f"To make this run again: {SEED}={seed}")  # pytest shows it when the test fails
    flags = ["--seed", seed, "--generation-database", "none", "--max-examples", "200"]
    record_property("reached", f"{said(text, run(desk, tmp_path, text(desk), *flags))} (seed {seed})")


def said(text: Text, report: dict[str, Any]) -> str:
    return f"schemathesis, {text.__name__}: {report['test_cases']['generated']:,} calls, none off the schema"
