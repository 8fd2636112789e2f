"""Every sink, on the same rows: whole output compared, and nasty text that comes back as it went in."""

from __future__ import annotations

import csv
import io
import itertools
import json
import resource
import signal
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest
from result_states import SCHEMA, State, every_state, the_job

from batchops.diagnostics import BatchopsError
from batchops.results import answers, ordering
from batchops.results.answers import Answers, Selection, prepare
from batchops.results.sinks import SINKS, Target, sink
from batchops.store.connection import open_memory, open_scratch
from batchops.store.snapshot import snapshot
from batchops.terminal import cells

PIECES = (
    '"', "'", "\n", "\r\n", "\r", "\t", "\x00", "\x1b[31m", "\x7f", "\x85", "\u2028", "\u2029", "{{ x }}", "{% if %}",
    "😀", "👩‍👩‍👧", "e\u0301", "العربية", "\u202e", "日本語", "\\", "\\n", "\\u0000", ",", ";", "|", " ", "", "null",
    "None", "=1+1", "a" * 10_000, "\ufeff", "\U0010ffff", "<b>", "%s", "$1", "--", "'; DROP TABLE rows; --", "[1,2]",
)  # fmt: skip


def nasty_texts() -> list[str]:
    """200 texts: every piece alone, at the ends, doubled, and in pairs."""
    alone = [text for piece in PIECES for text in (piece, f"x{piece}", f"{piece}x", piece * 2)]
    pairs = [a + b for a, b in itertools.pairwise(PIECES)]
    return (alone + pairs)[:200]


def nasty_state(path: Path, spec: dict[str, Any] | None = None) -> list[str]:
    state = State(path)
    job = state.job("nasty", key=("n", "text"), key_types=("INTEGER", "VARCHAR"), spec=spec)
    batch = state.submission(job)
    texts = nasty_texts()
    for number, text in enumerate(texts):
        key = json.dumps([str(number), text], ensure_ascii=False, separators=(",", ":"))
        state.answered(job, key, batch, number, {"sentiment": text, "score": 1} if spec else text)
    state.write()
    return texts


def many(folder: Path, rows: int, *, repeats: int) -> Path:
    """A state whose job `many` has so many answers, each of so many times eight characters, in no order of its keys."""
    state = State(folder / "s.duckdb")
    job = state.job("many", key_types=("BIGINT",))
    batch = state.submission(job)
    for number in range(rows):
        state.answered(job, str(number * 7919 % rows), batch, number, f"{number:08}" * repeats)
    return state.write()


def write(path: Path, address: str, form: str, *, width: int | None = None, **selection: Any) -> bytes:
    out = io.BytesIO()
    file = path.parent / f"out.{form}"
    with snapshot(path) as con:
        prepare(con)
        found = Answers(con, the_job(con, address), path.parent, Selection(**selection)).materialized()
        sink(form)(found, Target(out, path=file, width=width))
    return out.getvalue()


def read_parquet(path: Path) -> list[dict[str, Any]]:
    con = duckdb.connect(":memory:")
    result = con.execute(f"SELECT * FROM '{path}'")
    names = [column[0] for column in result.description or ()]
    rows = [dict(zip(names, row, strict=True)) for row in result.fetchall()]
    con.close()
    return rows


@pytest.mark.parametrize("spec", [None, {"schema": SCHEMA}], ids=["text", "schema"])
def test_200_nasty_texts_come_back_byte_for_byte_from_jsonl_csv_and_parquet(
    tmp_path: Path, spec: dict[str, Any] | None
) -> None:
    path = tmp_path / "s.duckdb"
    texts = nasty_state(path, spec)
    column = "sentiment" if spec else "answer"
    lines = [json.loads(line) for line in write(path, "nasty", "jsonl").decode().split("\n")[:-1]]
    assert [(row["key"]["text"], row["answer"]["sentiment"] if spec else row["answer"]) for row in lines] == [
        (text, text) for text in texts
    ]
    csv.field_size_limit(10**6)
    table = list(csv.DictReader(io.StringIO(write(path, "nasty", "csv").decode(), newline="")))
    assert [(int(row["n"]), row["text"], row[column]) for row in table] == [
        (number, text, text) for number, text in enumerate(texts)
    ]
    write(path, "nasty", "parquet")
    assert [(row["n"], row["text"], row[column]) for row in read_parquet(tmp_path / "out.parquet")] == [
        (number, text, text) for number, text in enumerate(texts)
    ]


@pytest.mark.parametrize("width", [20, 80, None])
def test_a_table_of_nasty_texts_has_one_line_a_row_and_no_control_character(tmp_path: Path, width: int | None) -> None:
    path = tmp_path / "s.duckdb"
    texts = nasty_state(path)
    printed = write(path, "nasty", "table", width=width).decode()
    lines = printed.split("\n")[:-1]
    assert len(lines) == len(texts) + 2 + (width is not None)
    assert not [c for c in printed if c != "\n" and (ord(c) < 32 or c in "\x7f\x85\u2028\u2029\u202e\ufeff")]
    assert width is None or max(map(cells, lines)) <= width


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet", "table"])
@pytest.mark.parametrize("case", ["nasty", "review-sentiment"])
@pytest.mark.parametrize("selection", [{"everything": True}, {"limit": 7}, {"limit": 2}], ids=["all", "limit", "few"])
def test_many_and_long_answers_are_put_in_order_in_other_ways_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, case: str, selection: dict[str, Any]
) -> None:
    path, temporary = tmp_path / "s.duckdb", tmp_path / "status=failed"  # a name that DuckDB would take for a column
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    if case == "nasty":
        nasty_state(path)
    else:
        every_state(path).write()
    written = []
    for amount in ordering.Amount:
        monkeypatch.setattr(answers, "amount", lambda *_, amount=amount: amount)
        monkeypatch.setattr(ordering, "MANY_ROWS", 10**9 if amount is ordering.Amount.FEW else 0)
        monkeypatch.setattr(answers, "_BATCH_OF_ROWS", 2)
        printed = write(path, case, form, **selection)
        written.append(read_parquet(tmp_path / "out.parquet") if form == "parquet" else printed)
    assert written[0] == written[1] == written[2]
    assert len(written[0]) > 1


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_more_answers_than_memory_holds_come_out_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """10,000 answers of 20 kB with 270 MB to hold them: a sort of the engine cannot."""
    path = many(tmp_path, 10_000, repeats=2500)
    monkeypatch.setattr("batchops.store.snapshot.open_memory", partial(open_memory, memory_limit="270MB", threads=1))
    printed = write(path, "many", form)
    if form == "parquet":
        found = [(row["id"], row["answer"][:8]) for row in read_parquet(tmp_path / "out.parquet")]
    else:
        found = [(row["key"]["id"], row["answer"][:8]) for row in map(json.loads, printed.splitlines())]
    assert [key for key, _ in found] == list(range(10_000))
    assert all(key == int(start) * 7919 % 10_000 for key, start in found)


def test_amount_of_answers_is_told_by_their_length_and_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = many(tmp_path, 10, repeats=12)
    with snapshot(path) as con:
        prepare(con)
        recorded = the_job(con, "many")
        paths = Answers(con, recorded, path.parent).paths
        told = partial(ordering.amount, con, recorded.job_id, paths)
        assert told() is ordering.Amount.FEW
        monkeypatch.setattr(ordering, "MANY_ROWS", 9)
        assert told() is ordering.Amount.MANY
        monkeypatch.setattr(ordering, "LONG_BYTES", 97)
        assert told() is ordering.Amount.MANY
        monkeypatch.setattr(ordering, "MANY_BYTES", 999)
        assert told() is ordering.Amount.LONG


def test_many_answers_come_out_in_the_memory_that_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """100,000 answers with 70 MB: one query of all tables and the answers, sorted, needs more."""
    path = many(tmp_path, 100_000, repeats=30)

    def refused(_: object) -> None:
        raise AssertionError("more memory was asked for")

    monkeypatch.setattr(answers, "lift_memory_limit", refused)
    monkeypatch.setattr(
        "batchops.store.snapshot.open_memory", lambda **given: open_scratch(tmp_path, memory_limit="70MB")
    )
    monkeypatch.setattr(ordering, "MANY_ROWS", 1_000)
    write(path, "many", "parquet")
    assert [row["id"] for row in read_parquet(tmp_path / "out.parquet")] == list(range(100_000))


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize("amount", ordering.Amount)
def test_answers_come_out_even_where_the_memory_that_is_allowed_is_too_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, amount: ordering.Amount
) -> None:
    monkeypatch.setattr(answers, "amount", lambda *_: amount)
    path = many(tmp_path, 20_000, repeats=50)
    monkeypatch.setattr(
        "batchops.store.snapshot.open_memory", lambda **given: open_memory(**given | {"memory_limit": "24MB"})
    )
    printed = write(path, "many", form)
    assert len(read_parquet(tmp_path / "out.parquet") if form == "parquet" else printed.splitlines()) == 20_000


@pytest.mark.parametrize(("kind", "first"), [("HUGEINT", 2**126), ("UHUGEINT", 2**128 - 9), ("HUGEINT", -(2**60))])
def test_keys_of_128_bits_are_exact_in_parquet(tmp_path: Path, kind: str, first: int) -> None:
    state = State(tmp_path / "s.duckdb")
    job = state.job("huge", key_types=(kind,))
    batch = state.submission(job)
    keys = [first + number for number in range(6)]
    for number, key in enumerate(keys):
        state.answered(job, str(key), batch, number, f"{key}")
    write(state.write(), "huge", "parquet")
    found = read_parquet(tmp_path / "out.parquet")
    assert [(int(row["id"]), row["answer"]) for row in found] == [(key, str(key)) for key in keys]


def test_a_temporary_folder_that_takes_no_more_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordering, "LONG_BYTES", 0)
    monkeypatch.setattr(ordering, "MANY_BYTES", 0)
    path = every_state(tmp_path / "s.duckdb").write()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(BatchopsError, match="TMPDIR") as refused:
            write(path, "review-sentiment", "jsonl")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert refused.value.diagnostics[0].code == "scratch_unwritable"


def test_an_empty_text_is_not_a_null_in_csv(tmp_path: Path) -> None:
    state = State(tmp_path / "s.duckdb")
    job = state.job("a")
    batch = state.submission(job)
    state.answered(job, "1", batch, 0, "")
    state.answered(job, "2", batch, 1, None)
    lines = write(state.write(), "a", "csv").decode().splitlines()
    assert [line.split(",")[:3] for line in lines[1:]] == [["1", "succeeded", '""'], ["2", "succeeded", ""]]


def test_csv_of_every_state(tmp_path: Path) -> None:
    path = every_state(tmp_path / "s.duckdb").write()
    assert write(path, "review-sentiment", "csv").decode() == (
        "review_id,status,sentiment,score,error_class,error_code,error_message,attempts,model,finish_reason,"
        "input_tokens,output_tokens,cached_tokens,reasoning_tokens,cost_usd,batch_id,digest\n"
        "9,succeeded,neg,1e-7,,,,1,gpt-5-mini-2025-08-07,stop,100,20,0,0,3.25e-05,batch_1,"
        "ed068000238b02de9de39c28680f0163\n"
        "10,succeeded,pos,0.75,,,,1,gpt-5-mini-2025-08-07,stop,100,20,0,0,3.25e-05,batch_1,"
        "f21c431104ba6de8b6045e9d7ae6d9af\n"
        "11,rate_limited,,,rate_limited,slow_down,About rate_limited.,1,gpt-5-mini,,,,,,,batch_1,"
        "1935be65d9b16ff28869b751f1485159\n"
        "12,refused,,,refused,,About refused.,1,gpt-5-mini,stop,,,,,,batch_1,c045c92d7e56a3be70499ca646db7d81\n"
        "13,held,,,quota_exhausted,insufficient_quota,About quota_exhausted.,1,gpt-5-mini,,,,,,,batch_1,"
        "6031d90f20faec69844a35edf0b9fe46\n"
        "14,in_flight,,,,,,1,gpt-5-mini,,,,,,,batch_second,ef419b57ddba3acdd179e87780c245ea\n"
    )


def test_a_table_is_aligned_and_cut_to_the_terminal(tmp_path: Path) -> None:
    path = every_state(tmp_path / "s.duckdb").write()
    lines = write(path, "review-sentiment", "table", width=60).decode().splitlines()
    assert lines == [
        "review_id  status        sentiment  score  error_class",
        "─────────  ────────────  ─────────  ─────  ───────────────",
        "        9  succeeded     neg         1e-7",
        "       10  succeeded     pos         0.75",
        "       11  rate_limited                    rate_limited",
        "       12  refused                         refused",
        "       13  held                            quota_exhausted",
        "       14  in_flight",
        "(6 more: error_code, attempts, model, input_tokens, output_…",
    ]


def test_columns_of_errors_are_left_out_of_a_table_without_errors(tmp_path: Path) -> None:
    path = every_state(tmp_path / "s.duckdb").write()
    printed = write(path, "review-sentiment", "table", statuses=frozenset({"succeeded"})).decode()
    assert printed.splitlines()[0].split() == [
        "review_id", "status", "sentiment", "score", "attempts", "model", "input_tokens", "output_tokens", "cost_usd",
    ]  # fmt: skip


def test_parquet_keeps_integers_numbers_booleans_and_simple_lists(tmp_path: Path) -> None:
    state = State(tmp_path / "s.duckdb")
    properties = {
        "whole": {"type": "integer"},
        "part": {"type": ["number", "null"]},
        "yes": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
        "words": {"type": "array", "items": {"type": "string"}},
        "tree": {"type": "object"},
        "a/b~c": {"enum": ["x"]},
        "status": {"type": "string"},
        "id": {"type": "string"},
    }
    job = state.job("a", key_types=("UBIGINT",), spec={"schema": {"type": "object", "properties": properties}})
    batch = state.submission(job)
    answer = {"whole": 5, "part": 0.5, "yes": True, "words": ["a", "b,c"], "tree": {"k": [1]}, "a/b~c": "x"}
    state.answered(job, "18446744073709551615", batch, 0, {**answer, "status": "s", "id": "i"})
    state.answered(job, "2", batch, 1, {"part": None, "words": []})
    path = state.write()
    assert write(path, "a", "parquet") == b""
    found = read_parquet(tmp_path / "out.parquet")
    names = ["id", "status", "whole", "part", "yes", "words", "tree", "a/b~c", "status_1", "id_1", "cost_usd"]
    assert [[row[name] for name in names] for row in found] == [
        [2, "succeeded", None, None, None, [], None, None, None, None, 0.0000325],
        [2**64 - 1, "succeeded", 5, 0.5, True, ["a", "b,c"], '{"k":[1]}', "x", "s", "i", 0.0000325],
    ]


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        ([[0.1, -2e-9], [1, 0]], [[0.1, -2e-9], [1.0, 0.0]]),
        ([[[0.5], [1.5]], [[2.5]]], [[[0.5], [1.5]], [[2.5]]]),
        ([[0.5], [[1.5], [2.5]]], [[[0.5]], [[1.5], [2.5]]]),
    ],
    ids=["vectors", "lists of vectors", "both"],
)
def test_embeddings_are_lists_of_numbers_in_parquet(tmp_path: Path, vectors: list[Any], expected: list[Any]) -> None:
    state = State(tmp_path / "s.duckdb")
    job = state.job("a", spec={"endpoint": "/v1/embeddings"})
    batch = state.submission(job)
    for number, vector in enumerate(vectors):
        state.answered(job, str(number), batch, number, vector)
    write(state.write(), "a", "parquet")
    assert [row["answer"] for row in read_parquet(tmp_path / "out.parquet")] == expected


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ([[0.5, 1], [0.25, 2]], [[[0.5, 1.0]], [[0.5, 1.0], [0.25, 2.0]]]),
        ("AACAPw==", ["[0.5,1]", "AACAPw=="]),
        (None, [[0.5, 1.0], None]),
    ],
    ids=["a list of vectors", "text", "none"],
)
def test_an_embedding_of_another_shape_than_the_first_thousand_is_no_null(
    tmp_path: Path, last: Any, expected: list[Any]
) -> None:
    state = State(tmp_path / "s.duckdb")
    job = state.job("a", key_types=("INTEGER",), spec={"endpoint": "/v1/embeddings"})
    batch = state.submission(job)
    for number in range(1500):
        state.answered(job, str(number), batch, number, [0.5, 1])
    state.answered(job, "1500", batch, 1500, last)
    write(state.write(), "a", "parquet")
    found = [row["answer"] for row in read_parquet(tmp_path / "out.parquet")]
    assert [len(found), found[0], found[1500]] == [1501, *expected]


@pytest.mark.parametrize("form", SINKS)
def test_a_sink_counts_what_it_wrote_and_accepts_a_job_without_rows(tmp_path: Path, form: str) -> None:
    state = every_state(tmp_path / "s.duckdb")
    state.job("nothing")
    path = state.write()
    with snapshot(path) as con:
        prepare(con)
        counts = {
            address: sink(form)(
                Answers(con, the_job(con, address), tmp_path), Target(io.BytesIO(), path=tmp_path / "x")
            )
            for address in ("review-sentiment", "nothing")
        }
    assert counts == {"review-sentiment": 6, "nothing": 0}


def test_a_csv_without_rows_is_its_header(tmp_path: Path) -> None:
    state = State(tmp_path / "s.duckdb")
    state.job("a", key=("id", "part"), key_types=("VARCHAR", "VARCHAR"))
    assert write(state.write(), "a", "csv").decode().startswith("id,part,status,answer,error_class,")
