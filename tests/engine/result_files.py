"""Result files of every endpoint, plain and odd, and a state that sent what they answer."""

from __future__ import annotations

import base64
import json
import random
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb

from batchops.engine.judging import ANSWER_TYPES, JUDGED_TYPES, Judging, Totals
from batchops.engine.ledger import Submission
from batchops.engine.shards import custom_id
from batchops.plan.prices import Price
from batchops.providers.provider import BatchStatus, RemoteBatch
from batchops.spec.job import Retry
from batchops.store import migrations
from batchops.store.connection import open_memory
from batchops.store.store import StateReader

CHAT, RESPONSES, EMBEDDINGS = "/v1/chat/completions", "/v1/responses", "/v1/embeddings"
MODERATIONS, COMPLETIONS = "/v1/moderations", "/v1/completions"
MOST_LINES = 40
NOW = datetime(2026, 11, 25, tzinfo=UTC)
PRICE = Price(0.125, 0.0125, 1.0, long=Price(0.25, None, 1.5))
SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"enum": ["pos", "neg", 'é "quoted"', None, 7]},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "count": {"type": ["integer", "null"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "more": {"anyOf": [{"$ref": "#/$defs/more"}, {"type": "null"}]},
    },
    "required": ["label", "score", "count", "tags", "more"],
    "additionalProperties": False,
    "$defs": {
        "more": {
            "type": "object",
            "properties": {"is_sure": {"type": "boolean"}, "amount": {"type": "number"}},
            "required": ["is_sure", "amount"],
            "additionalProperties": False,
        }
    },
}
TOOLS = [{"type": "function", "function": {"name": "label", "parameters": SCHEMA}},
         {"type": "function", "function": {"name": "free"}}]  # fmt: skip


def digest(number: int) -> UUID:
    return UUID(int=number + 1)


def identifier(number: int) -> str:
    return custom_id(digest(number), 0, 1)


@dataclass(frozen=True)
class Case:
    """Files of one batch, and what its answers are judged by."""

    endpoint: str
    expect: Mapping[str, Any]
    files: Sequence[bytes]


class SentState(StateReader):
    """A state in memory with one submission of so many lines."""

    def __init__(self, expect: Mapping[str, Any], lines: int) -> None:
        super().__init__(Path("nowhere"))
        self.expect, self.lines = expect, lines

    @contextmanager
    def reading(self, con: duckdb.DuckDBPyConnection | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        assert con is not None
        con.execute("ATTACH ':memory:' AS state")
        migrations.perform(con, migrations.STEPS)
        con.execute("INSERT INTO state.submissions (submission_id, expect) VALUES (1, ?)", [json.dumps(self.expect)])
        con.execute(
            """INSERT INTO state.attempts SELECT 1, n, d, 0, 1, NULL, NULL
               FROM (SELECT unnest(range(?)) AS n, unnest(?::UUID[]) AS d)""",
            [self.lines, [digest(n) for n in range(self.lines)]],
        )
        con.execute(
            "INSERT INTO state.requests (digest, round, state, attempts, free_attempts, submission_id, line)"
            " SELECT digest, 0, 1, line % 3, 0, 1, line FROM state.attempts"
        )
        yield con
        con.execute("DETACH state")


def completed_batch(batch_id: str, endpoint: str, output_file_id: str | None = None) -> RemoteBatch:
    said = (batch_id, BatchStatus.COMPLETED, endpoint, "file_1", output_file_id)
    return RemoteBatch(*said, error_file_id=None, created_at=None, total=None, completed=None, failed=None)


def judged(case: Case, folder: Path, lines: int = MOST_LINES) -> tuple[list[Any], list[Any], Totals]:
    """The relations `judged` and `answers` of a case, by line, and the totals."""
    paths = []
    for number, content in enumerate(case.files):
        paths.append(folder / f"{number}.jsonl")
        paths[-1].write_bytes(content)
    submission = Submission(
        1, UUID(int=0), "job", "local", case.endpoint, "m", "created", 1, lines, 0, None, None, "batch_1", {}, None
    )
    remote = completed_batch("batch_1", case.endpoint)
    state = SentState(case.expect, lines)
    with (
        closing(open_memory()) as con,
        closing(Judging(state, submission, remote, Retry(), PRICE, con=con, folder=folder, now=NOW)) as judging,
    ):
        judging.judge_files(paths)
        judging.judge_unseen()
        totals = judging.finish()
        relations = (("judged", JUDGED_TYPES), ("answers", ANSWER_TYPES))
        found = [judging.con.execute(f"SELECT {', '.join(types)} FROM {name} ORDER BY line").fetchall()
                 for name, types in relations]  # fmt: skip
        return found[0], found[1], totals


class Writer:
    """Writes random result files; the same seed, the same files. Half of the lines are odd in some way."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        endpoint, self.kind = self.one(
            (CHAT, "text"), (CHAT, "schema"), (CHAT, "schema"), (CHAT, "call"), (CHAT, "both"), (COMPLETIONS, "text"),
            (RESPONSES, "text"), (RESPONSES, "schema"), (EMBEDDINGS, "text"), (MODERATIONS, "text"),
        )  # fmt: skip
        self.endpoint: str = endpoint
        self.is_spaced, self.is_ascii = self.is_so(2), self.is_so(2)

    def one(self, *choices: Any) -> Any:
        return self.random.choice(choices)

    def is_so(self, of: int) -> bool:
        return self.random.randrange(of) == 0

    def case(self) -> Case:
        expect: dict[str, Any] = {"schema": SCHEMA} if self.kind in {"schema", "both"} else {}
        if self.kind in {"call", "both"}:
            expect["tools"] = TOOLS
        numbers = list(range(self.random.randint(1, MOST_LINES)))
        numbers += [self.random.randrange(MOST_LINES + 3) for _ in range(self.one(0, 0, 1, 4))]  # repeated, foreign
        written = [self.line(number) for number in numbers]
        if self.is_so(4):
            self.random.shuffle(written)
        cut = self.one(len(written), len(written), len(written) // 2, 0)
        return Case(self.endpoint, expect, tuple(self.file(part) for part in (written[:cut], written[cut:])))

    def file(self, written: Sequence[bytes]) -> bytes:
        end = self.one(*[b"\n"] * 12, b"\r\n", b"\n\n", b"\r")
        mark = b"\xef\xbb\xbf" if self.is_so(8) else b""
        odd = (b'\n{"a":"\xff"}\n', b'\n{"a":"\x01"}', b'\n{"a":"\x00"}')
        last: bytes = self.one(end, end, end, b"", b"\n", self.one(*odd) if self.is_so(3) else end)
        return bytes(mark + end.join(written) + last)

    def line(self, number: int) -> bytes:
        is_plain = self.random.random() < 0.7
        body: Any = self.body(is_plain=is_plain)
        if self.kind == "call":
            body = _as_call(body, "label" if is_plain else self.one("label", "free", "other"))
        status: Any = 200 if is_plain else self.one(200, 200, 200, 500, 429, 200.0, None, "200", 10**6)
        error: Any = None
        if not is_plain:
            error = self.one(None, None, None, {"code": "batch_expired", "message": "m"}, {"code": None})
            body = json.dumps(body) if self.is_so(8) else body
        if status == 500:
            body = {"error": {"message": "m", "code": "server_error"}}
        response = {"status_code": status, "request_id": f"r{number}", "body": body}
        line = {"id": f"b{number}", "custom_id": identifier(number), "response": response, "error": error}
        text = self.json(line, is_spaced=self.is_spaced, is_ascii=self.is_ascii)
        if not is_plain or self.is_so(12):
            text = self.one(*MISHAPS)(text)
        return str(text).encode("utf-8", "surrogatepass")

    def body(self, *, is_plain: bool) -> dict[str, Any]:
        """The body of a reply, mostly a success."""
        r = self.random
        said = self.text() if self.kind == "text" else self.structured(is_plain=is_plain)
        model = "gpt-5-mini" if is_plain else self.one("gpt-5-mini", "", None, "é")
        head = {"id": f"id-{r.randrange(99)}", "model": model, "usage": self.usage(is_plain=is_plain)}
        finish = "stop" if is_plain else self.one("stop", "stop", "stop", "length", "content_filter", None, "")
        if self.endpoint == COMPLETIONS:
            return {**head, "choices": [{"text": said, "index": 0, "logprobs": None, "finish_reason": finish}]}
        if self.endpoint == RESPONSES:
            part = {"type": "output_text", "text": said, "annotations": []}
            output: list[Any] = [{"type": "message", "id": "m", "role": "assistant", "content": [part]}]
            if not is_plain and self.is_so(2):
                output.insert(0, {"type": "reasoning", "summary": []})
            status = "completed" if is_plain else self.one("completed", "completed", "incomplete", "failed", None)
            more = {"error": None, "incomplete_details": None, "temperature": 1.0, "output": output}
            return {**head, "usage": {"input_tokens": r.randrange(99), "output_tokens": 7}, "status": status, **more}
        if self.endpoint == EMBEDDINGS:
            vector: Any = [r.uniform(-1, 1) * 10 ** r.randint(-9, 0) for _ in range(r.randint(1, 3))]
            if not is_plain:
                vector = self.one(base64.b64encode(struct.pack("<2f", 0.5, -0.25)).decode(), [1, 0.5], [True], vector)
            return {**head, "data": [{"index": 0, "embedding": vector}]}
        if self.endpoint == MODERATIONS:
            return {**head, "results": [{"flagged": self.is_so(2)}]}
        message: dict[str, Any] = {"role": "assistant", "content": said, "refusal": None}
        if not is_plain:
            message["refusal"] = self.one(None, None, None, "No.")
            message["content"] = [{"type": "text", "text": said}] if self.is_so(6) else said
        return {**head, "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}]}

    def usage(self, *, is_plain: bool) -> Any:
        r = self.random
        full = {
            "prompt_tokens": r.randrange(600_000),
            "completion_tokens": r.randrange(10**6),
            "prompt_tokens_details": {"cached_tokens": r.randrange(800_000)},
            "completion_tokens_details": {"reasoning_tokens": r.randrange(99)},
        }
        odd: tuple[Any, ...] = (None, {}, {"prompt_tokens": 1.0, "completion_tokens": -1}, {"prompt_tokens": True})
        return full if is_plain else self.one(full, full, *odd, {"prompt_tokens": 10**12, "completion_tokens": "3"})

    def text(self) -> str:
        return str(self.one("hello", " ", *TEXTS, chr(self.random.randrange(0xD7FF)), chr(self.random.randrange(256))))

    def number(self) -> str:
        r = self.random
        free = (str(r.randint(-5, 10**6)), repr(r.uniform(-1, 1) * 10.0 ** r.randint(-30, 30)), f"{r.random():.3f}")
        return str(self.one(*free, self.one(*NUMBERS)))

    def structured(self, *, is_plain: bool) -> str:
        """The JSON text of an answer, that mostly fits SCHEMA."""
        score = self.one("0.5", "0", "1", "1.0", f"{self.random.random():.2f}")
        more = self.one(None, {"is_sure": self.is_so(2), "amount": "@2"}, {"is_sure": True})
        value: dict[str, Any] = {
            "label": self.one("pos", "pos", "neg", 'é "quoted"', None, 7, "other"),
            "score": "@0",
            "count": self.one(None, "@1", 3),
            "tags": [self.text() for _ in range(self.random.randrange(3))],
            "more": more if more is None or "amount" in more or not is_plain else None,
        }
        if self.is_so(12):
            value = dict(reversed(value.items()))
        if self.is_so(12):
            value[self.one("extra", "label")] = "x"
        text = self.json(value, is_spaced=self.is_so(2), is_ascii=self.is_so(2))
        for mark, plain in (("@0", score), ("@1", "12"), ("@2", "-2.5")):
            text = text.replace(f'"{mark}"', plain if self.is_so(2) else self.number())
        if self.is_so(12):
            text = text.replace('{"', '{"label":"pos","', 1)  # a key twice
        return text + str(self.one(*[""] * 8, " ", "\n", ",", "}"))

    def json(self, value: Any, *, is_spaced: bool, is_ascii: bool) -> str:
        return json.dumps(value, separators=(", ", ": ") if is_spaced else (",", ":"), ensure_ascii=is_ascii)


TEXTS = ("a\u2028b", 'say "no"', "a\\b/c", "\x7f\x1f\x0b", "é😀", "\ud800", "\x00", ",}", "NaN", "\\u0041", "")
NUMBERS = (
    "-0", "1.0", "1e5", "1E-7", "0.00001", "0.0001", "-0.0", "0.10", "12345678901234567890", "NaN", "01", "1e400",
    "0.1234567890123456789", "1234567.12345678", "999999999999999", "-1.5", "100000000000000000",
)  # fmt: skip


def _as_call(body: dict[str, Any], name: str) -> dict[str, Any]:
    """The same reply with what it says as the arguments of a tool."""
    message = body["choices"][0]["message"]
    function = {"name": name, "arguments": message["content"]}
    message.update(content=None, tool_calls=[{"id": "c", "type": "function", "function": function}])
    return body


def _twice(key: str, value: str) -> Callable[[str], str]:
    """The key a second time, before the first."""
    return lambda text: re.sub(rf'"{key}":( ?)', rf'"{key}":\1{value},\1"{key}":\1', text, count=1)


def _late(key: str, value: str) -> Callable[[str], str]:
    """The key a second time, behind the value of the first, as far as that is a simple one."""
    return lambda text: re.sub(rf'("{key}": ?(?:"[^"\\]*"|[\d.]+|null))', rf'\1,"{key}":{value}', text, count=1)


MISHAPS: tuple[Callable[[str], str], ...] = (
    *[lambda text: text] * 8,
    _twice("content", '"first"'),
    _late("content", '"second"'),
    _late("finish_reason", '"length"'),
    _late("status_code", "500"),
    _late("custom_id", '"foreign"'),
    _late("model", '"other"'),
    _late("prompt_tokens", "77"),
    _late("text", '"second"'),
    lambda text: text.replace('"refusal"', '"refus\\u0061l"'),
    lambda text: text.replace("null", "NaN"),
    lambda text: text.replace("}", ",}", 1),
    lambda text: text[:-1] + ",}",
    lambda text: text[: len(text) // 2],
    lambda text: text.replace(":", " :"),
    lambda text: text + " ",
    lambda text: "  " + text,
    lambda text: text + "x",
    lambda text: text.replace("stop", "length"),
    lambda text: text.replace("stop", "st\\u006fp"),
    lambda text: text.replace("a", "\\u0061"),
    lambda text: text.replace("assistant", "\\ud800"),
    lambda text: text.replace(",", ",\t", 3),
    lambda text: "",
    lambda text: "[]",
)
