"""The verbs results, query and explain as users call them: arguments, formats, exit codes, problems."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from result_states import State, every_state

from batchops.cli.main import run

SPEC = """
name: {name}
source: {{query: "SELECT 1 AS id, 'x' AS body", key: id}}
provider: local
model: gpt-5-mini
template: "{{{{ body }}}}"
"""


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


Command = Callable[..., Ran]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose state knows review-sentiment, and whose specs declare new-job."""
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "new.yaml").write_text(SPEC.format(name="new-job"), encoding="utf-8")
    every_state(tmp_path / "state" / "batchops.duckdb").write()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    return tmp_path


@pytest.fixture
def batchops(project: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Command:
    def command(*words: str) -> Ran:
        capfdbinary.readouterr()
        code = run(words)
        captured = capfdbinary.readouterr()
        return Ran(code, captured.out.decode(), captured.err.decode())

    return command


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_results_print_a_table_unless_told_otherwise(batchops: Command) -> None:
    ran = batchops("results", "review-sentiment", "--status", "succeeded")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == (
        "review_id  status     sentiment  score  attempts  model                  input_tokens  output_tokens  cost_usd"
    )
    assert [line.split() for line in lines[2:]] == [
        ["9", "succeeded", "neg", "1e-7", "1", "gpt-5-mini-2025-08-07", "100", "20", "3.25e-05"],
        ["10", "succeeded", "pos", "0.75", "1", "gpt-5-mini-2025-08-07", "100", "20", "3.25e-05"],
    ]


def test_json_flag_and_jsonl_format_print_the_same_lines(batchops: Command) -> None:
    by_flag = batchops("results", "review-sentiment", "--json").out
    assert by_flag == batchops("results", "review-sentiment", "--format", "jsonl").out
    assert [json.loads(line)["key"]["review_id"] for line in by_flag.splitlines()] == [9, 10, 11, 12, 13, 14]


@pytest.mark.parametrize(
    ("name", "first_bytes"),
    [("a.jsonl", b'{"job"'), ("b.CSV", b"review_id,"), ("c.parquet", b"PAR1"), ("d.txt", b"review_id ")],
)
def test_suffix_of_the_output_chooses_the_format_and_folders_are_made(
    batchops: Command, project: Path, name: str, first_bytes: bytes
) -> None:
    ran = batchops("results", "review-sentiment", "-o", f"out/deep/{name}")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert (project / "out" / "deep" / name).read_bytes().startswith(first_bytes)
    assert names(project / "out" / "deep") == [name]


def test_output_replaces_a_file_whole_and_is_readable_like_any_new_file(batchops: Command, project: Path) -> None:
    target = project / "answers.csv"
    target.write_text("before", encoding="utf-8")
    assert batchops("results", "review-sentiment", "-o", "answers.csv", "--limit", "1").code == 0
    assert target.read_text(encoding="utf-8").count("\n") == 2
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~mask


def test_output_stays_untouched_when_the_answers_cannot_be_read(batchops: Command, project: Path) -> None:
    target = project / "answers.csv"
    target.write_text("before", encoding="utf-8")
    answers = project / "state" / "answers" / "1.parquet"
    answers.write_bytes(answers.read_bytes()[:-40] + b"x" * 40)
    ran = batchops("results", "review-sentiment", "-o", "answers.csv")
    assert (ran.code, "[answer_file_damaged]" in ran.err) == (1, True)
    assert target.read_text(encoding="utf-8") == "before"
    assert names(project) == ["answers.csv", "jobs", "state"]


def test_a_link_stays_one_and_what_it_points_to_is_replaced(batchops: Command, project: Path) -> None:
    (project / "kept").mkdir()
    (project / "out.csv").symlink_to("kept/real.csv")
    assert batchops("results", "review-sentiment", "-o", "out.csv").code == 0
    assert ((project / "out.csv").is_symlink(), names(project / "kept")) == (True, ["real.csv"])
    assert (project / "kept" / "real.csv").read_text(encoding="utf-8").startswith("review_id,")


def test_a_pipe_is_written_to_and_stays_one(batchops: Command, project: Path) -> None:
    os.mkfifo(project / "pipe")
    with ThreadPoolExecutor() as pool:
        read = pool.submit((project / "pipe").read_text, encoding="utf-8")
        assert batchops("results", "review-sentiment", "--format", "csv", "-o", "pipe").code == 0
        assert read.result().count("\n") == 7
    assert stat.S_ISFIFO((project / "pipe").stat().st_mode)


def test_a_missing_answer_file_is_named_and_not_taken_for_no_answer(batchops: Command, project: Path) -> None:
    (project / "state" / "answers" / "1.parquet").unlink()
    ran = batchops("results", "review-sentiment")
    assert (ran.code, ran.out) == (1, "")
    assert "[answer_file_missing]" in ran.err
    assert "1.parquet" in ran.err
    assert batchops("query", "SELECT count(*) AS n FROM requests", "--format", "csv").out == "n\n8\n"


def test_output_into_a_file_that_cannot_be_made_is_a_problem_of_its_own(batchops: Command, project: Path) -> None:
    (project / "file").write_text("", encoding="utf-8")
    ran = batchops("results", "review-sentiment", "-o", "file/x.csv")
    assert (ran.code, "[output_unwritable]" in ran.err) == (1, True)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--status", "suceeded"], "unknown_status", 'Did you mean "succeeded"?'),
        (["--status", ""], "unknown_status", "--status is empty; write one of succeeded,"),
        (["--status", ","], "unknown_status", "--status is empty; write one of succeeded,"),
        (["-o", "x.json"], "unknown_format", 'The suffix ".json" names no format.'),
        (["--format", "parquet"], "output_needed", "-o FILE.parquet"),
        (["--json", "--format", "csv"], "format_conflict", "--json is jsonl, --format says csv."),
    ],
)
def test_a_command_line_that_cannot_be_carried_out_exits_64(
    batchops: Command, words: list[str], code: str, said: str
) -> None:
    ran = batchops("results", "review-sentiment", *words)
    shown = ran.out if "--json" in words else ran.err
    assert (ran.code, code in shown, said in shown) == (64, True, True)


def test_an_unknown_job_gets_a_did_you_mean_from_state_and_specs(batchops: Command) -> None:
    ran = batchops("results", "review-sentimen")
    assert (ran.code, ran.out) == (64, "")
    assert ran.err == (
        'error: Unknown job. No job is called "review-sentimen". Did you mean "review-sentiment"? [unknown_job]\n'
    )
    assert 'Did you mean "new-job"?' in batchops("results", "newjob").err


def test_a_job_that_was_never_applied_has_no_rows_and_says_how_to_ask(batchops: Command) -> None:
    note = "No row of new-job was asked yet. To ask: batchops apply\n"
    assert batchops("results", "new-job", "--format", "jsonl") == Ran(0, "", note)
    assert batchops("results", "new-job") == Ran(0, "", note)
    ran = batchops("results", "new-job", "--format", "csv")
    assert (ran.code, ran.out.split(",")[:3], ran.out.count("\n")) == (0, ["id", "status", "answer"], 1)


def test_columns_of_one_name_are_refused_where_an_object_would_lose_one(batchops: Command) -> None:
    ran = batchops("query", "SELECT 1 AS a, 2 AS a", "--format", "jsonl")
    assert (ran.code, "Rename with AS" in ran.err) == (64, True)
    assert batchops("query", "SELECT 1 AS a, 2 AS a", "--format", "csv").out == "a,a\n1,2\n"


def test_no_row_of_a_status_is_told_apart_from_no_row_asked(batchops: Command) -> None:
    ran = batchops("results", "review-sentiment", "--status", "truncated")
    assert ran == Ran(0, "", "No row of review-sentiment is truncated.\n")


def test_results_work_in_a_project_without_a_state(batchops: Command, project: Path) -> None:
    for path in (project / "state").glob("*.duckdb"):
        path.unlink()
    assert batchops("results", "new-job").code == 0
    assert batchops("results", "review-sentiment").code == 64
    assert not list((project / "state").glob("*.duckdb")), "reading makes no state"


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("jsonl", '{"sentiment":"neg","n":1}\n{"sentiment":"pos","n":1}\n{"sentiment":null,"n":4}\n'),
        ("json", '[\n {"sentiment":"neg","n":1},\n {"sentiment":"pos","n":1},\n {"sentiment":null,"n":4}\n]\n'),
        ("csv", "sentiment,n\nneg,1\npos,1\n,4\n"),
        ("table", "sentiment  n\n─────────  ─\nneg        1\npos        1\n           4\n"),
    ],
)
def test_query_prints_any_select_in_four_formats(batchops: Command, form: str, expected: str) -> None:
    sql = 'SELECT sentiment, count(*) AS n FROM results."review-sentiment" GROUP BY ALL ORDER BY ALL NULLS LAST'
    assert batchops("query", sql, "--format", form) == Ran(0, expected, "")


def test_query_reaches_the_views_of_the_state_in_words(batchops: Command) -> None:
    sql = "SELECT job, status, n, completed, failed, cost_usd, created_at FROM batches WHERE phase = 'created'"
    assert json.loads(batchops("query", sql, "--json").out) == [
        {
            "job": "review-sentiment",
            "status": "in_progress",
            "n": 1,
            "completed": 0,
            "failed": 0,
            "cost_usd": None,
            "created_at": "2026-11-22T10:05:00Z",
        }
    ]
    sql = "SELECT state, outcome, count(*) FROM requests WHERE state <> 'answered' GROUP BY ALL ORDER BY ALL"
    assert batchops("query", sql, "--format", "csv").out == (
        "state,outcome,count_star()\ngiven_up,not_found,1\ngiven_up,refused,1\nheld,quota_exhausted,1\n"
        "in_flight,server_error,1\npending,,1\nwaiting,rate_limited,1\n"
    )
    for table in ("jobs", "rows", "attempts", "events", "main.requests", "main.meta"):
        assert batchops("query", f"FROM {table}").code == 0, table


@pytest.mark.parametrize(
    "sql",
    ["DROP TABLE rows", "SELECT 1; SELECT 2", "", "COPY rows TO 'x.csv'", "ATTACH 'x.db'", "SET threads = 8",
     "INSERT INTO rows SELECT * FROM rows", "INSTALL httpfs", "CALL pragma_version()", "EXPLAIN SELECT 1"],
)  # fmt: skip
def test_query_refuses_everything_but_one_select(batchops: Command, project: Path, sql: str) -> None:
    ran = batchops("query", sql)
    assert (ran.code, "[query_refused]" in ran.err) == (1, True)
    assert not (project / "x.csv").exists()


@pytest.mark.parametrize(
    "sql",
    ["FROM read_text('/etc/passwd')", "FROM read_csv('jobs/new.yaml')", "FROM 'jobs/new.yaml'", "FROM glob('*')",
     "FROM read_parquet('http://127.0.0.1:9/x.parquet')", "SELECT * FROM query('FROM read_text(''jobs/new.yaml'')')"],
)  # fmt: skip
def test_query_reads_no_file_and_no_network(batchops: Command, sql: str) -> None:
    ran = batchops("query", sql)
    assert (ran.code, ran.out, "[query_failed]" in ran.err) == (1, "", True), ran


def test_query_shows_the_place_and_the_words_of_what_failed(batchops: Command) -> None:
    assert batchops("query", "SELECT *\nFROM results.review") == Ran(
        1,
        "",
        "query:2:6: error: Query failed. Catalog Error: Table with name review does not exist!"
        ' Answers are in: results."review-sentiment". [query_failed]\n'
        "  2 | FROM results.review\n"
        "    |      ^\n",
    )
    late = batchops("query", "SELECT error('late') FROM range(3)", "--format", "jsonl")
    assert (late.code, "late" in late.err) == (1, True)


def test_query_says_that_an_embedding_has_another_shape_than_its_column(batchops: Command, project: Path) -> None:
    state = State(project / "vectors" / "state" / "batchops.duckdb")
    (project / "vectors" / "jobs").mkdir(parents=True)
    job = state.job("vectors", key_types=("INTEGER",), spec={"endpoint": "/v1/embeddings"})
    batch = state.submission(job)
    for number in range(1001):
        state.answered(job, str(number), batch, number, [0.5] if number < 1000 else [[0.5], [1.5]])
    state.write()
    there = ("-C", str(project / "vectors"), "query")
    ran = batchops(*there, "SELECT id, answer FROM results.vectors ORDER BY id LIMIT 1")
    assert (ran.code, "several shapes" in ran.err, "-o FILE.parquet" in ran.err) == (1, True, True)
    assert batchops(*there, "SELECT count(*) FROM results.vectors", "--format", "csv").code == 0


def test_query_prints_values_of_every_type_exactly(batchops: Command) -> None:
    sql = """SELECT 1.10::DECIMAL(9,2) AS a, 'nan'::DOUBLE AS b, '\\xAA'::BLOB AS c, {'k': [1.5, NULL]} AS d,
        MAP {1: 'x'} AS e, 170141183460469231731687303715884105727::HUGEINT AS f, DATE '2026-01-02' AS g,
        TIMESTAMPTZ '2026-01-02 03:04:05.5+00' AS h, TIME '01:02:03' AS i, true AS j, 'a
b' AS k, NULL AS l, '00000000-0000-0000-0000-000000000001'::UUID AS m"""
    assert batchops("query", sql, "--format", "jsonl").out == (
        '{"a":1.10,"b":null,"c":"qg==","d":{"k":[1.5,null]},"e":{"1":"x"},'
        '"f":170141183460469231731687303715884105727,"g":"2026-01-02","h":"2026-01-02T03:04:05.500000Z",'
        '"i":"01:02:03","j":true,"k":"a\\nb","l":null,"m":"00000000-0000-0000-0000-000000000001"}\n'
    )
    assert batchops("query", "SELECT 1 AS x WHERE false", "--json").out == "[]\n"


def test_explain_a_row_tells_why_what_next_and_every_try(batchops: Command) -> None:
    assert batchops("explain", "review-sentiment@14") == Ran(
        0,
        "review-sentiment@14\n"
        '  Key     {"review_id": 14}\n'
        "  Status  in_flight\n"
        "  Why     In batch batch_second since 2026-11-22T10:05:00Z.\n"
        "  Next    The next apply looks at the batch, and fetches it when it has ended.\n"
        "  Digest  ef419b57ddba3acdd179e87780c245ea, round 0\n"
        "  Spent   nothing\n"
        "\n"
        "Tries, oldest first:\n"
        "  ROUND  TRY  BATCH         SENT                  OUTCOME       HTTP  MESSAGE\n"
        "  ─────  ───  ────────────  ────────────────────  ────────────  ────  ────────────────────────\n"
        "      0    1  batch_1       2026-11-22T10:00:02Z  server_error   500  The server had an error.\n"
        "      0    2  batch_second  2026-11-22T10:05:00Z  (created)\n",
        "",
    )


@pytest.mark.parametrize(
    ("key", "why", "what_next"),
    [
        ("10", "Answered after 1 attempt.", "Nothing, as long as its request stays the same."),
        ("11", "The latest try ended rate_limited (429, slow_down) and it is asked again.",
         "The next apply asks it again."),
        ("12", "Given up after 1 attempt: the latest try ended refused (200).",
         "Nothing until another round is opened: batchops retry review-sentiment"),
        ("13", "Held. The latest try ended quota_exhausted (429, insufficient_quota).",
         "Nothing until another round is opened: batchops retry review-sentiment"),
        ("15", "Not asked yet.", "The next apply asks it."),
    ],
)  # fmt: skip
def test_explain_has_a_reason_and_a_next_step_for_every_state(
    batchops: Command, key: str, why: str, what_next: str
) -> None:
    document = json.loads(batchops("explain", f"review-sentiment@{key}", "--json").out)
    assert (document["why"], document["next"], document["key"]) == (why, what_next, {"review_id": int(key)})


def test_explain_a_job_tells_rows_errors_and_batches(batchops: Command) -> None:
    assert batchops("explain", "review-sentiment").out == (
        "review-sentiment\n"
        "  Provider     local (simulated answers), /v1/chat/completions, model gpt-5-mini\n"
        "  Environment  default\n"
        "  Key          review_id\n"
        "  Health       Held\n"
        "  Rows         7: 1 pending, 1 in flight, 2 answered, 1 waiting, 1 given up, 1 held\n"
        "  Spent        $0.000065\n"
        "  Next retry   2026-11-22T10:04:00Z\n"
        "  Spec         prompt p1, model m1, params a1\n"
        "\n"
        "Rows whose latest try did not succeed:\n"
        "  CLASS            CODE                ROWS  FOR EXAMPLE\n"
        "  ───────────────  ──────────────────  ────  ─────────────────\n"
        '  quota_exhausted  insufficient_quota     1  {"review_id": 13}\n'
        '  rate_limited     slow_down              1  {"review_id": 11}\n'
        '  refused                                 1  {"review_id": 12}\n'
        '  server_error                            1  {"review_id": 14}\n'
        "\n"
        "Batches, newest first:\n"
        "  BATCH         STATUS       REQUESTS  FAILED  SENT                       COST\n"
        "  ────────────  ───────────  ────────  ──────  ────────────────────  ─────────\n"
        "  batch_second  in_progress       0/1          2026-11-22T10:05:00Z\n"
        "  batch_1       fetched           3/6       3  2026-11-22T10:00:02Z  $0.000065\n"
    )
    never = batchops("explain", "new-job")
    assert (never.code, never.err) == (0, "new-job was never applied. To ask: batchops apply\n")


def test_explain_names_the_nearest_key_for_one_that_is_not_there(batchops: Command) -> None:
    ran = batchops("explain", "review-sentiment@99")
    assert (ran.code, ran.err) == (
        1,
        'error: Unknown row. No row of review-sentiment has the key "99". Did you mean review-sentiment@9?'
        " [unknown_row]\n",
    )


def test_explain_takes_composite_keys_as_lists_in_any_spacing(project: Path, batchops: Command) -> None:
    state = State(project / "state" / "two.duckdb")
    job = state.job("visits", key=("city", "n"), key_types=("VARCHAR", "INTEGER"))
    state.answered(job, '["São Paulo","7"]', state.submission(job), 0, "ok")
    state.write()
    (project / "batchops.toml").write_text('[state]\nurl = "state/two.duckdb"\n', encoding="utf-8")
    ran = batchops("explain", 'visits@["São Paulo", 7]', "--json")
    document = json.loads(ran.out)
    assert (document["key"], document["answer"]) == ({"city": "São Paulo", "n": 7}, "ok")
    assert "[invalid_address]" in batchops("explain", "visits@Paulo").err
    assert batchops("explain", "NOT A JOB").code == 64


def test_explain_says_which_job_paid_for_an_answer_that_is_used_again(project: Path, batchops: Command) -> None:
    state = State(project / "state" / "two.duckdb")
    payer, reader = state.job("payer"), state.job("reader")
    digest = state.answered(payer, "x", state.submission(payer), 0, "shared")
    state.add("rows", job_id=reader, key="other", digest=digest, round=0)
    state.write()
    (project / "batchops.toml").write_text('[state]\nurl = "state/two.duckdb"\n', encoding="utf-8")
    assert "Answered for payer, and used again here without paying." in batchops("explain", "reader@other").out
