"""Sources are streamed for a plan, kept for an apply, and read as a whole when small or different each time.

Three rows count as many here, but where a test is about small sources.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from batchops.diagnostics import BatchopsError, Stale
from batchops.engine import gather as gathering
from batchops.engine import operations, sources, work
from batchops.engine.approved import job_record
from batchops.engine.gather import Gathered, gather
from batchops.engine.operations import apply, make_plan
from batchops.engine.planning import assemble
from batchops.engine.project import Project, open_project
from batchops.engine.saved import read_saved, restrict, save_plan
from batchops.engine.work import GENEROUS_LIMIT
from batchops.plan.diff import find_open
from batchops.plan.events import StopFlag
from batchops.plan.model import Action, Plan
from batchops.settings import load_settings
from batchops.store.job_changes import RecordPlan

JOB = """\
name: job
source: {{query: "{query}", key: id}}
model: gpt-5-mini
template: "{template}"
"""
ROWS = "FROM read_csv('data/rows.csv', types={'id': 'BIGINT', 'text': 'VARCHAR'})"


class Bench:
    """A project of one job over data/rows.csv. What it gathers is closed with `until_closed`."""

    def __init__(self, root: Path, until_closed: ExitStack) -> None:
        self.root, self._until_closed = root, until_closed
        (root / "jobs").mkdir()
        (root / "data").mkdir()
        (root / "batchops.toml").write_text('provider = "local"\n')
        self.job()
        self.rows({1: "one", 2: "two", 3: "three"})

    def job(self, *, query: str = ROWS, template: str = "{{ text }}") -> None:
        text = JOB.format(query=query.replace('"', '\\"'), template=template)
        (self.root / "jobs" / "job.yaml").write_text(text)

    def rows(self, rows: dict[int, str]) -> None:
        lines = ["id,text", *(f"{key},{text}" for key, text in rows.items())]
        (self.root / "data" / "rows.csv").write_text("\n".join(lines) + "\n")

    def opened(self) -> Project:
        return open_project(self.root, load_settings(self.root, environ={}))

    def gathered(self, *, keeps_rows: bool) -> Gathered:
        project = self._until_closed.enter_context(self.opened())
        gathered = gather(project, project.jobs(), is_whole_project=True, keeps_rows=keeps_rows)
        self._until_closed.callback(gathered.close)
        return gathered

    def answer(self) -> None:
        """Approve what is wanted now, and have all of it answered."""
        with self.opened() as project, project.leased(timedelta(0)) as store:
            gathered = gather(project, project.jobs(), is_whole_project=True, keeps_rows=True)
            record = job_record(project, gathered.jobs[0], is_limited=False)
            store.commit(RecordPlan((record,), "plan"), con=gathered.con)
            gathered.close()
        with duckdb.connect(self.root / "state" / "batchops.duckdb") as con:
            con.execute("UPDATE requests SET state = 2, outcome = 0, attempts = 1")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources, "FEW_ROWS", 0)
    with ExitStack() as opened:
        yield Bench(tmp_path, opened)


@pytest.fixture(params=[False, True], ids=["plan", "apply"])
def keeps_rows(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def rows_at_hand(gathered: Gathered) -> list[str]:
    tables = gathered.con.execute("SELECT table_name FROM duckdb_tables() WHERE table_name = 'source_0'").fetchall()
    if not tables:
        return []
    return [text for (text,) in gathered.con.execute("SELECT text FROM source_0 ORDER BY ALL").fetchall()]


def plan_of(gathered: Gathered, samples: int = 3) -> Plan:
    return assemble(gathered, (), samples=samples)


def shown(plan: Plan) -> list[object]:
    return [sample.after["messages"][0]["content"] for sample in plan.jobs[0].samples]


def test_a_plan_holds_no_row_of_the_source(bench: Bench) -> None:
    new = bench.gathered(keeps_rows=False)
    plan = plan_of(new)
    assert (plan.rows(Action.SUBMIT), sorted(map(str, shown(plan)))) == (3, ["one", "three", "two"])
    assert rows_at_hand(new) == []
    bench.answer()
    bench.rows({1: "one", 2: "other", 4: "four"})
    moved = bench.gathered(keeps_rows=False)
    plan = plan_of(moved)
    assert plan.jobs[0].rows == {Action.SUBMIT: 1, Action.RESUBMIT: 1, Action.UNCHANGED: 1}
    assert sorted(map(str, shown(plan))) == ["four", "other"]
    assert rows_at_hand(moved) == []


def test_an_apply_keeps_the_rows_that_it_may_send_and_no_others(bench: Bench) -> None:
    assert rows_at_hand(bench.gathered(keeps_rows=True)) == ["one", "three", "two"]
    bench.answer()
    bench.rows({1: "one", 2: "other", 4: "four"})
    assert rows_at_hand(bench.gathered(keeps_rows=True)) == ["four", "other"]


def test_few_rows_are_read_once_and_held(bench: Bench, monkeypatch: pytest.MonkeyPatch, keeps_rows: bool) -> None:
    monkeypatch.setattr(sources, "FEW_ROWS", 3)
    for moment in ("new", "answered"):
        gathered = bench.gathered(keeps_rows=keeps_rows)
        assert rows_at_hand(gathered) == ["one", "three", "two"], moment
        bench.rows({1: "late"})  # nobody reads it any more
        assert sorted(map(str, shown(plan_of(gathered)))) == (["one", "three", "two"] if moment == "new" else [])
        assert not gathered.diagnostics
        bench.rows({1: "one", 2: "two", 3: "three"})
        bench.answer()


def test_more_rows_than_few_are_let_go_of(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "FEW_ROWS", 2)
    gathered = bench.gathered(keeps_rows=False)
    assert rows_at_hand(gathered) == []
    assert plan_of(gathered).rows(Action.SUBMIT) == 3
    bench.rows({1: "one", 2: "two"})
    bench.answer()
    bench.rows({1: "one", 2: "two", 3: "three"})
    grown = bench.gathered(keeps_rows=False)
    assert plan_of(grown).jobs[0].rows == {Action.SUBMIT: 1, Action.UNCHANGED: 2}
    assert rows_at_hand(grown) == []


def test_of_a_source_known_as_large_no_row_is_read_for_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "FEW_ROWS", 2)
    monkeypatch.setattr(sources, "SURELY_MANY", 0)  # which the engine expects more than of a new job
    monkeypatch.setattr(sources, "load_few", lambda *_, **__: pytest.fail("it was tried"))
    new = plan_of(bench.gathered(keeps_rows=False))
    assert (new.rows(Action.SUBMIT), sorted(map(str, shown(new)))) == (3, ["one", "three", "two"])
    bench.answer()
    assert plan_of(bench.gathered(keeps_rows=False)).jobs[0].rows == {Action.UNCHANGED: 3}


@pytest.mark.parametrize("edit", [{"template": "Say {{ text }}"}, {"template": "{{ text|trim }}"}])
def test_rows_of_an_edited_request_are_digested_in_the_first_pass(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    keeps_rows: bool,
    edit: dict[str, str],
) -> None:
    bench.answer()
    bench.job(**edit)
    rows = {Action.RESUBMIT: 3} if "Say" in edit["template"] else {Action.UNCHANGED: 3}
    with monkeypatch.context() as patched:
        patched.setattr(sources, "fingerprint", lambda *_, **__: pytest.fail("there was another pass"))
        gathered = bench.gathered(keeps_rows=keeps_rows)
        assert plan_of(gathered).jobs[0].rows == rows
    assert len(rows_at_hand(gathered)) == (3 if keeps_rows else 0)
    bench.answer()
    again = bench.gathered(keeps_rows=keeps_rows)
    assert (plan_of(again).jobs[0].rows, rows_at_hand(again)) == ({Action.UNCHANGED: 3}, [])
    assert again.con.execute("FROM settled_0 ORDER BY ALL").fetchall() == [("in_flight", 0), ("unchanged", 3)]


def test_nothing_is_read_again_when_nothing_changed(bench: Bench, keeps_rows: bool) -> None:
    bench.answer()
    gathered = bench.gathered(keeps_rows=keeps_rows)
    assert plan_of(gathered).jobs[0].rows == {Action.UNCHANGED: 3}
    assert rows_at_hand(gathered) == []
    assert gathered.con.execute("SELECT count(*) FROM digests_0").fetchone() == (0,)


@pytest.mark.parametrize(
    "then",
    [{1: "one", 2: "again", 3: "three", 4: "four"}, {1: "one", 3: "three"}, {2: "two", 4: "four"}],
    ids=["changed", "gone", "other keys"],
)
def test_a_source_that_moves_between_the_passes_is_read_as_a_whole(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    keeps_rows: bool,
    then: dict[int, str],
) -> None:
    bench.answer()
    bench.rows({1: "one", 2: "other", 3: "three", 4: "new"})

    def find_and_move(*given: object, **named: object) -> None:
        bench.rows(then)
        find_open(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(gathering, "find_open", find_and_move)
    gathered = bench.gathered(keeps_rows=keeps_rows)
    desired = gathered.con.execute("SELECT key FROM desired_0 ORDER BY ALL").fetchall()
    wanted = {1: "one", 2: "two", 3: "three"}
    plan = plan_of(gathered)
    if gathered.diagnostics:
        assert [(found.code, found.address) for found in gathered.diagnostics] == [("source_moved", "job")]
        assert desired == [(str(key),) for key in then]
        changed = {text for key, text in then.items() if wanted.get(key) != text}
        assert set(shown(plan)) == changed
    else:  # a plan, and every row that it looked at again was still there: it shows those as they are now
        assert not keeps_rows
        assert set(then) >= {2, 4}
        assert set(shown(plan)) <= {*then.values()}


def test_a_query_that_gives_other_rows_each_time_is_run_once(bench: Bench, keeps_rows: bool) -> None:
    bench.job(query="SELECT range AS id, random()::VARCHAR AS text FROM range(50)")
    gathered = bench.gathered(keeps_rows=keeps_rows)
    texts = rows_at_hand(gathered)
    assert len(texts) == 50
    assert set(shown(plan_of(gathered))) <= set(texts)
    assert not gathered.diagnostics


def test_a_query_that_needs_more_memory_is_given_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    query = "SELECT 1 AS id, md5(list(repeat(i::VARCHAR, 100))::VARCHAR) AS text FROM range(100000) t(i)"
    bench.job(query=query)
    monkeypatch.setattr(work, "FRUGAL_LIMIT", "40MB")
    assert plan_of(bench.gathered(keeps_rows=False)).rows(Action.SUBMIT) == 1
    monkeypatch.setattr(work, "GENEROUS_LIMIT", "40MB")
    with pytest.raises(BatchopsError) as refused:
        bench.gathered(keeps_rows=False)
    (found,) = refused.value.diagnostics
    assert (found.code, found.address) == ("out_of_memory", "job")
    assert found.location is not None


@pytest.mark.parametrize("template", ["{{ text[:2] }}", "{{ text }}"], ids=["jinja", "sql"])
def test_a_query_that_runs_out_of_memory_after_many_rows_is_told_like_one_that_does_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, keeps_rows: bool, template: str
) -> None:
    """The second file is one piece of 30 MB; the rows of the first are rendered by then."""
    pieces = {"a": "i::VARCHAR AS text FROM range(20000)", "b": "repeat(md5(i::VARCHAR), 900) AS text FROM range(1000)"}
    for name, rows in pieces.items():
        path = bench.root / "data" / f"{name}.parquet"
        duckdb.sql(f"COPY (SELECT '{name}' || i AS id, {rows} t(i)) TO '{path}' (COMPRESSION uncompressed)")
    bench.job(query="SELECT id, text FROM read_parquet(['data/a.parquet', 'data/b.parquet'])", template=template)
    monkeypatch.setattr(work, "FRUGAL_LIMIT", "24MB")
    monkeypatch.setattr(work, "GENEROUS_LIMIT", "24MB")
    with pytest.raises(BatchopsError) as refused:
        bench.gathered(keeps_rows=keeps_rows)
    (found,) = refused.value.diagnostics
    assert (found.code, found.address, "SET threads" in found.detail) == ("out_of_memory", "job", False)


def test_a_key_that_stands_twice_is_counted_right_where_jinja_takes_one_of_its_rows(bench: Bench) -> None:
    bench.job(
        query="SELECT i // 2 AS id, if(i % 2 = 0, 'ß', 'a') || i AS text FROM range(6) r(i)",
        template="{{ text|upper }}",
    )
    with pytest.raises(BatchopsError, match=r"3 values of id stand in several: 0 \(2 rows\)"):
        bench.gathered(keeps_rows=False)


def test_a_query_that_fails_while_it_streams_is_told_at_its_place(bench: Bench, keeps_rows: bool) -> None:
    bench.rows({1: "7", 2: "8"})
    bench.job(query=f"SELECT id, text::INTEGER AS text {ROWS}")
    bench.answer()
    bench.rows({1: "7", 2: "x"})
    with pytest.raises(BatchopsError) as refused:
        bench.gathered(keeps_rows=keeps_rows)
    (found,) = refused.value.diagnostics
    assert (found.code, found.address) == ("query_failed", "job")
    assert found.location is not None
    assert found.location.start.line == 2


@pytest.mark.parametrize("template", ["{{ text }}", "{{ text[:2] }}"], ids=["sql", "jinja"])
def test_both_ways_to_read_rows_give_the_same_digests(bench: Bench, template: str) -> None:
    bench.job(template=template)
    made = []
    for keeps_rows in (False, True):
        con = bench.gathered(keeps_rows=keeps_rows).con
        made.append(con.execute("SELECT key, digest, action, reason FROM changes_0 ORDER BY key").fetchall())
    assert made[0] == made[1]
    assert len(made[0]) == 3


def test_a_null_key_is_told_even_where_its_row_is_left_to_jinja(bench: Bench, keeps_rows: bool) -> None:
    """`ŉ` in upper case is unsure: SQL leaves that row, and no other, to Jinja2."""
    rows = "SELECT NULLIF(range, 1) AS id, CASE range WHEN 1 THEN 'ŉ' ELSE 'n' END AS text FROM range(3)"
    bench.job(query=rows, template="{{ text | upper }}")
    with pytest.raises(BatchopsError) as refused:
        bench.gathered(keeps_rows=keeps_rows)
    assert [found.code for found in refused.value.diagnostics] == ["key_null"]


HEAVY = "(SELECT length(v::VARCHAR) FROM (SELECT list(repeat(i::VARCHAR, 100)) AS v FROM range(100000) t(i)))"


def test_a_second_pass_that_needs_more_memory_is_given_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no template uses is not computed before its rows are loaded."""
    bench.job(query="SELECT 1 AS id, 'a' AS text, 1 AS heavy")
    bench.answer()
    bench.job(query=f"SELECT 1 AS id, 'b' AS text, {HEAVY} AS heavy")
    monkeypatch.setattr(work, "FRUGAL_LIMIT", "40MB")
    gathered = bench.gathered(keeps_rows=True)
    assert plan_of(gathered).rows(Action.RESUBMIT) == 1
    assert rows_at_hand(gathered) == ["b"]


def test_jobs_before_one_that_needs_more_memory_are_read_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, keeps_rows: bool
) -> None:
    bench.answer()
    for name, query in (("another", ROWS), ("hungry", f"SELECT 1 AS id, {HEAVY} AS text")):
        text = JOB.format(query=query.replace('"', '\\"'), template="{{ text }}")
        (bench.root / "jobs" / f"{name}.yaml").write_text(text.replace("name: job", f"name: {name}"))
    monkeypatch.setattr(work, "FRUGAL_LIMIT", "40MB")
    rows = {job.address: dict(job.rows) for job in plan_of(bench.gathered(keeps_rows=keeps_rows)).jobs}
    assert rows == {"another": {Action.REUSE: 3}, "hungry": {Action.SUBMIT: 1}, "job": {Action.UNCHANGED: 3}}


def test_a_key_asked_for_twice_is_one_row(bench: Bench) -> None:
    text = (bench.root / "jobs" / "job.yaml").read_text()
    (bench.root / "jobs" / "job.yaml").write_text(text.replace("key: id", "key: [id, text]"))
    bench.answer()
    asked = {"job": {'["1","one"]', '["1", "one"]', '[1, "one"]'}}
    with bench.opened() as project:
        gathered = gather(project, project.jobs(), is_whole_project=True, keeps_rows=True, replaced=asked)
        rows = plan_of(gathered).jobs[0].rows
        gathered.close()
    assert rows == {Action.RESUBMIT: 1, Action.UNCHANGED: 2}


def test_a_saved_plan_is_stale_when_a_row_to_pay_again_changed_while_it_was_read(bench: Bench) -> None:
    """It stood answered, so its text is read only once the plan asks for it."""
    bench.answer()
    with bench.opened() as project:
        planned = gather(project, project.jobs(), is_whole_project=True, keeps_rows=False, replaced={"job": {"1"}})
        save_plan(planned, plan_of(planned), bench.root / "plan.json")
        planned.close()
        gathered = gather(project, project.jobs(), is_whole_project=True, keeps_rows=True)
        bench.rows({1: "other", 2: "two", 3: "three"})
        with pytest.raises(Stale, match="1 of its rows changed"):
            restrict(gathered, read_saved(bench.root / "plan.json"), is_resumed=False)
        gathered.close()


@pytest.fixture
def memory_given(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The limits under which rows are gathered, the first of them too small for the rows of the job."""
    given: list[str] = []

    def noted(*words: Any, memory: str, **more: Any) -> Gathered:
        given.append(memory)
        return gather(*words, memory=memory, **more)

    monkeypatch.setattr(operations, "gather", noted)
    monkeypatch.setattr(operations, "FRUGAL_LIMIT", "2MB")
    monkeypatch.setattr(operations, "MEMORY_LIMIT", "2MB")
    bench.job(query="SELECT i AS id, 'x' || i AS text FROM range(20000) t(i)")
    return given


def test_a_plan_that_needs_more_memory_is_made_again_with_it(bench: Bench, memory_given: list[str]) -> None:
    with bench.opened() as project:
        plan = make_plan(project, offline=True, out=bench.root / "saved.plan")
    assert plan.jobs[0].rows == {Action.SUBMIT: 20_000}
    assert memory_given == ["2MB", GENEROUS_LIMIT]
    assert (bench.root / "saved.plan").stat().st_size > 0
    assert not list((bench.root / "state" / "work").iterdir())


def test_an_apply_that_needs_more_memory_plans_again_with_it_before_anything_is_asked(
    bench: Bench, memory_given: list[str]
) -> None:
    shown: list[Plan] = []

    def approve(plan: Plan) -> bool:
        shown.append(plan)
        return False

    with bench.opened() as project, pytest.raises(BatchopsError, match="Nothing was paid"):
        apply(project, approve=approve, emit=lambda _: None, stop=StopFlag())
    assert [plan.jobs[0].rows for plan in shown] == [{Action.SUBMIT: 20_000}]
    assert memory_given == ["2MB", GENEROUS_LIMIT]
    assert not list((bench.root / "state" / "work").iterdir())
