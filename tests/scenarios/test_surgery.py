"""Surgery as a user does it: cancel, retry, import, `state …` and unlock, with real processes over HTTP."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from desk import Desk
from service import Service, serving
from surgery_bench import ROWS, SETTINGS, codes, job, rows, state, write
from workshop import Workshop

from batchops.store.integrity import find_damage
from batchops.store.store import StateReader

STALL = {"on": "batch", "effect": "stall", "seconds": 1000}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("service") / "served") as found:
        yield found


@pytest.fixture
def shop(service: Service, tmp_path: Path) -> Desk:
    """A project with one job, whose provider has nothing of it yet: no two tests ask the same."""
    service.faults()
    return project(service, tmp_path / "project", salt=tmp_path.name)


def project(service: Service, root: Path, *, salt: str, name: str = "chat") -> Desk:
    workshop = Desk(root, environ=service.environ)
    root.mkdir(exist_ok=True)
    settings = SETTINGS.replace("demo", f"demo-{salt}")
    workshop.write({"batchops.toml": settings, "jobs/chat.yaml": job(name, params={"user": salt})})
    return workshop


def batch_of(shop: Desk) -> str:
    return str(rows(shop, "SELECT max(batch_id) AS id FROM state.submissions")[0]["id"])


def executed(service: Service, shop: Desk) -> list[int]:
    """How often each request of this project was executed."""
    digests = {str(row["digest"]).replace("-", "") for row in rows(shop, "SELECT digest FROM state.requests")}
    return [count for name, count in service.executions().items() if name.split("-")[0] in digests]


def test_cancel_holds_the_job_and_retry_goes_on_without_paying_twice(service: Service, shop: Desk) -> None:
    process = Workshop(shop.root, service.environ)
    service.faults({**STALL, "at": 0.5})
    shop.run("apply", "--auto-approve", "--json")
    done = process.run("cancel", "chat", "--json").json
    assert done["held"] == ["chat"]
    assert [batch["batch_id"] for batch in done["batches"]] == [batch_of(shop)]
    assert done["batches"][0]["status"] in {"cancelling", "cancelled"}
    service.advance(2000)
    shop.run("wait")
    service.faults()
    statuses = [row["status"] for row in shop.results("chat")]
    finished = statuses.count("succeeded")
    summary = shop.plan("--offline")["summary"]["rows"]
    assert {name for name, count in summary.items() if count} <= {"held", "unchanged"}, "a held job sends nothing"
    assert shop.apply(code=6).lines[-1]["summary"]["batches"]["create"] == 0
    told = process.run("retry", "chat", "--json").json["jobs"][0]
    assert told["was_held"] == "cancelled by hand"
    assert told["waiting"] + told["rows"] == ROWS - finished
    shop.apply()
    assert {row["status"] for row in shop.results("chat")} == {"succeeded"}
    assert set(executed(service, shop)) == {1}
    assert shop.plan("--detailed-exitcode")["summary"]["rows"]["unchanged"] == ROWS


def test_retry_gives_up_rows_another_round_and_leaves_the_others_alone(service: Service, shop: Desk) -> None:
    service.faults({"on": "line", "effect": "refusal", "contains": "review 3."})
    shop.apply(code=6)
    service.faults()
    assert shop.plan()["summary"]["rows"]["failed"] == 1
    assert "1 row gets another round." in shop.run("retry", "chat").out
    plan = shop.plan("--detailed-exitcode", code=2)
    assert (plan["summary"]["rows"]["retry"], plan["jobs"][0]["reasons"]["requested"]) == (1, 1)
    again = shop.apply().lines[-1]
    assert again["summary"]["rows"]["unchanged"] == ROWS
    assert {row["status"] for row in shop.results("chat")} == {"succeeded"}
    assert sorted(executed(service, shop)) == [1] * (ROWS + 1)
    assert "0 rows get another round." in shop.run("retry", "chat").out


def test_jobs_that_nobody_knows_are_named_with_the_nearest_one(shop: Desk) -> None:
    for verb in (["cancel", "chot"], ["retry", "chot"], ["import", "chot", "batch_1"]):
        ran = shop.run(*verb, "--json", code=64)
        assert codes(ran) == ["unknown_job"]
        assert 'Did you mean "chat"?' in ran.json["diagnostics"][0]["detail"]
    assert not state(shop).exists()
    for verb in (["cancel", "chat"], ["retry", "chat"]):
        shop.run(*verb)
    assert not state(shop).exists(), "a job that was never applied has nothing to cancel, hold or retry"


def test_a_batch_of_another_project_is_imported_and_pays_for_the_same_rows_here(
    service: Service, shop: Desk, tmp_path: Path
) -> None:
    shop.apply()
    batch = batch_of(shop)
    other = project(service, tmp_path / "other", salt=tmp_path.name, name="same-questions")
    done = other.run("import", "same-questions", batch, "--json").json
    assert done["batches"] == [{"batch_id": batch, "requests": ROWS, "is_fetched": True, "status": "completed"}]
    plan = other.plan()
    assert plan["summary"]["rows"]["reuse"] == ROWS
    assert plan["jobs"][0]["reasons"] == {"answered": ROWS}
    other.apply()
    assert {row["status"] for row in other.results("same-questions")} == {"succeeded"}
    assert set(executed(service, other)) == {1}
    assert find_damage(StateReader(state(other))) == ()
    assert codes(other.run("import", "same-questions", batch, "--json", code=1)) == ["batch_known"]
    assert codes(other.run("import", "same-questions", "batch_none", "--json", code=1)) == ["unknown_batch"]


def client(service: Service) -> openai.OpenAI:
    return openai.OpenAI(base_url=service.url, api_key=service.environ["OPENAI_API_KEY"], max_retries=0)


def foreign_batch(service: Service, lines: list[dict[str, Any]], endpoint: Any = "/v1/chat/completions") -> str:
    """A batch that a script of somebody else made."""
    text = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    with client(service) as sdk:
        file = sdk.files.create(file=("mine.jsonl", io.BytesIO(text)), purpose="batch")
        batch = sdk.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")
    return batch.id


def test_a_batch_made_by_a_script_is_imported_by_what_its_lines_ask(
    service: Service, shop: Desk, tmp_path: Path
) -> None:
    shop.apply()
    sent = service.lines(service.get(f"/batches/{batch_of(shop)}")["input_file_id"])
    mine = [{**line, "custom_id": f"mine-{i}"} for i, line in enumerate([*sent[:5], sent[0]])]
    batch = foreign_batch(service, mine)
    other = project(service, tmp_path / "other", salt=tmp_path.name)
    imported = other.run("import", "chat", batch, "--json").json["batches"][0]
    assert imported["requests"] == 6
    if not imported["is_fetched"]:
        other.run("wait")
    assert other.plan()["summary"]["rows"] == shop.plan()["summary"]["rows"] | {
        "reuse": 5, "submit": ROWS - 5, "unchanged": 0,
    }  # fmt: skip
    assert find_damage(StateReader(state(other))) == ()


def test_a_batch_that_asks_something_else_or_lost_its_input_is_not_imported(service: Service, shop: Desk) -> None:
    line = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings",
            "body": {"model": "text-embedding-3-small", "input": "x"}}  # fmt: skip
    batch = foreign_batch(service, [line], "/v1/embeddings")
    assert codes(shop.run("import", "chat", batch, "--json", code=1)) == ["nothing_to_adopt"]
    with client(service) as sdk:
        sdk.files.delete(service.get(f"/batches/{batch}")["input_file_id"])
    assert codes(shop.run("import", "chat", batch, "--json", code=1)) == ["input_file_gone"]
    assert rows(shop, "SELECT * FROM state.jobs") == []


@pytest.fixture
def lost_reply(service: Service, shop: Desk) -> tuple[str, str]:
    """A submission whose create was sent, and of which the state knows no more: its token, and the real batch."""
    service.faults(STALL)
    shop.run("apply", "--auto-approve", "--json")
    found = batch_of(shop), str(rows(shop, "SELECT token::VARCHAR AS token FROM state.submissions")[0]["token"])
    write(shop, "UPDATE submissions SET phase = 'creating', batch_id = NULL, remote = NULL")
    return found


def test_import_settles_the_submission_that_made_the_batch(
    service: Service, shop: Desk, lost_reply: tuple[str, str]
) -> None:
    batch, _ = lost_reply
    shop.run("import", "chat", batch)
    assert rows(shop, "SELECT phase, batch_id FROM state.submissions") == [{"phase": "created", "batch_id": batch}]
    service.advance(2000)
    shop.run("wait")
    assert shop.plan()["summary"]["rows"]["unchanged"] == ROWS
    assert set(executed(service, shop)) == {1}


def test_a_person_may_say_that_a_batch_does_not_exist(shop: Desk, lost_reply: tuple[str, str]) -> None:
    _, token = lost_reply
    assert codes(shop.run("state", "repair", "--absent", "another", "--json", code=1)) == ["not_unsettled"]
    done = shop.run("state", "repair", "--absent", token, "--json").json
    assert (done["address"], done["requests"]) == ("chat", ROWS)
    assert Path(done["backup"]).exists()
    assert shop.plan("--offline")["summary"]["rows"]["submit"] == ROWS
    assert codes(shop.run("state", "repair", "--absent", token, "--json", code=1)) == ["not_unsettled"]


def test_batch_not_cancelled_holds_the_job_all_the_same(service: Service, shop: Desk) -> None:
    service.faults(STALL)
    shop.run("apply", "--auto-approve", "--json")
    service.faults({"on": "POST /v1/batches/*/cancel", "effect": "error_before", "status": 400})
    ran = shop.run("cancel", "chat", "--json", code=1)
    assert codes(ran) == ["batch_not_cancelled"]
    assert ran.json["held"] == ["chat"]
    service.faults()
    assert shop.run("cancel", "chat", "--json").json["batches"]


def test_answers_that_are_lost_on_disk_are_fetched_again(service: Service, shop: Desk) -> None:
    shop.apply()
    before = shop.results("chat")
    (file,) = (state(shop).parent / "answers").glob("*.parquet")
    file.unlink()
    assert "answers_lost" in codes(shop.run("doctor", "--json", code=1))
    done = shop.run("state", "repair", "--json").json
    assert (done["sound"], done["fetch_again"]) == (True, [batch_of(shop)])
    assert Path(done["backup"]).exists()
    shop.run("wait")
    assert shop.results("chat") == before
    assert shop.plan("--detailed-exitcode")["summary"]["rows"]["unchanged"] == ROWS
    assert set(executed(service, shop)) == {1}


def test_answers_gone_at_the_provider_too_are_not_paid_again_unasked(service: Service, shop: Desk) -> None:
    shop.apply()
    with client(service) as sdk:
        sdk.files.delete(service.get(f"/batches/{batch_of(shop)}")["output_file_id"])
    next((state(shop).parent / "answers").glob("*.parquet")).unlink()
    ran = shop.run("state", "repair", "--json", code=1)
    assert codes(ran) == ["answers_gone", "answers_lost"]
    assert ran.json["diagnostics"][0]["fixes"] == ["batchops apply --replace chat"]
    assert shop.plan()["summary"]["rows"]["unchanged"] == ROWS


def test_a_state_that_was_damaged_by_hand_is_repaired_and_pays_nothing(service: Service, shop: Desk) -> None:
    shop.apply()
    write(shop, "DELETE FROM requests WHERE digest IN (SELECT digest FROM rows LIMIT 5)")
    assert "state_inconsistent" in codes(shop.run("doctor", "--json", code=1))
    ran = shop.run("state", "repair")
    assert "Put right: 5 requests." in ran.out
    assert shop.run("state", "repair").out == "The state is sound.\n"
    assert shop.plan("--detailed-exitcode")["summary"]["rows"]["unchanged"] == ROWS


def test_a_moved_job_keeps_its_answers_under_its_new_name(shop: Desk) -> None:
    shop.apply()
    shop.run("state", "mv", "chat", "talk")
    assert codes(shop.run("state", "mv", "chat", "other", "--json", code=64)) == ["unknown_job"]
    shop.write({"jobs/chat.yaml": job("talk", params={"user": shop.root.parent.name})})
    plan = shop.plan("--detailed-exitcode")
    assert [(found["address"], found["rows"]) for found in plan["jobs"]] == [("talk", {"unchanged": ROWS})]
    shop.write({"jobs/more.yaml": job("more")})
    shop.run("apply", "--auto-approve", "--json")
    ran = shop.run("state", "mv", "talk", "more", "--json", code=1)
    assert codes(ran) == ["address_taken"]
    assert ran.json["diagnostics"][0]["fixes"] == ["batchops state rm more"]


def test_a_job_that_is_forgotten_is_asked_for_again_and_paid_no_more(service: Service, shop: Desk) -> None:
    shop.apply()
    assert "1 row forgotten" in shop.run("state", "rm", "chat@3").out
    assert codes(shop.run("state", "rm", "chat@3", "--json", code=1)) == ["unknown_row"]
    assert shop.plan()["summary"]["rows"]["reuse"] == 1
    done = shop.run("state", "rm", "chat", "--json").json
    assert done["rows"] == ROWS - 1
    assert shop.run("state", "list", "--json").json["jobs"] == []
    plan = shop.plan()
    assert plan["summary"]["rows"]["reuse"] == ROWS
    assert plan["summary"]["batches"]["create"] == 0
    shop.apply()
    assert set(executed(service, shop)) == {1}


def test_the_state_is_listed_shown_pulled_pushed_and_compacted(shop: Desk) -> None:
    shop.apply()
    listed = Workshop(shop.root).run("state", "list", "--json").json
    (found,) = listed["jobs"]
    assert (found["address"], found["rows"]["total"], found["rows"]["answered"]) == ("chat", ROWS, ROWS)
    assert found["last_applied"] is not None
    assert shop.run("state", "show", "chat", "--json").json["spec"]["template"] == "Label {{ body }}."
    row = shop.run("state", "show", "chat@3").json
    assert (row["address"], row["state"], [each["outcome"] for each in row["tries"]]) == (
        "chat@3", "answered", ["succeeded"],
    )  # fmt: skip
    pulled = shop.run("state", "pull", "kept/copy.duckdb", "--json").json
    assert (pulled["lineage"], pulled["serial"]) == (listed["state"]["lineage"], listed["state"]["serial"])
    assert codes(shop.run("state", "pull", "kept/copy.duckdb", "--json", code=1)) == ["files_in_the_way"]
    os.mkfifo(shop.root / "pipe")
    assert codes(shop.run("state", "pull", "pipe", "--force", "--json", code=1)) == ["output_unwritable"]
    assert (shop.root / "pipe").is_fifo()
    with (shop.root / "open").open("w") as opened:
        (shop.root / "numbered").symlink_to(f"/proc/self/fd/{opened.fileno()}")
        assert codes(shop.run("state", "pull", "numbered", "--force", "--json", code=1)) == ["output_unwritable"]
    assert (shop.root / "numbered").is_symlink()
    leavings = [state(shop).with_name("batchops.duckdb.0f.new"), state(shop).parent / "answers" / "000009.parquet.new"]
    for file in leavings:
        file.write_text("half made")
    compacted = shop.run("state", "compact", "--json").json
    assert compacted["after_bytes"] <= compacted["before_bytes"]
    assert compacted["leavings"] == len(leavings)
    assert not any(file.exists() for file in leavings)
    assert codes(shop.run("state", "push", "kept/copy.duckdb", "--json", code=1)) == ["older_state"]
    pushed = shop.run("state", "push", "--force", "kept/copy.duckdb", "--json").json
    assert pushed["serial"] == pulled["serial"] + 2
    assert Path(pushed["backup"]).exists()
    assert shop.plan("--detailed-exitcode")["summary"]["rows"]["unchanged"] == ROWS


def test_a_row_has_a_round_beyond_the_256th(shop: Desk) -> None:
    shop.apply()
    write(shop, "UPDATE rows SET round = 255; UPDATE requests SET round = 255; UPDATE attempts SET round = 255")
    shop.run("plan", "--replace", "chat@3", "--out", "plan.json")
    shop.run("apply", "plan.json", "--auto-approve", "--wait")
    assert rows(shop, "SELECT key, round FROM state.rows WHERE round > 255") == [{"key": "3", "round": 256}]
    assert shop.plan("--detailed-exitcode")["summary"]["rows"]["unchanged"] == ROWS
    assert next(row for row in shop.results("chat") if row["key"] == {"id": 3})["status"] == "succeeded"
    assert not find_damage(StateReader(state(shop)))


def test_compaction_leaves_results_costs_and_plans_as_they_were(shop: Desk, service: Service) -> None:
    shop.apply()
    for _ in range(2):
        shop.apply("--replace", "chat@3")
    told = [shop.results("chat"), shop.run("status", "--json").json["jobs"][0]["cost"]]
    done = shop.run("state", "compact", "--keep-attempts", "0s", "--keep-events", "0s", "--json").json
    assert (done["requests"], done["attempts"], done["merged_files"]) == (2, 2, 3)
    assert done["events"] > 0
    footprint = done["footprint"]
    assert (footprint["rows"], footprint["answers"]) == (ROWS, ROWS)
    assert footprint["bytes_per_row"] == round(done["after_bytes"] / ROWS, 1)
    assert [shop.results("chat"), shop.run("status", "--json").json["jobs"][0]["cost"]] == told
    assert not find_damage(StateReader(state(shop)))
    found = shop.run("doctor", "--json").json["state"]
    assert found["bytes"] == state(shop).stat().st_size
    assert {name: found[name] for name in ("rows", "answers", "answer_bytes")} == {
        name: footprint[name] for name in ("rows", "answers", "answer_bytes")
    }
    shop.plan("--detailed-exitcode")
    asked = sum(executed(service, shop))
    shop.apply("--replace", "chat@3")
    assert rows(shop, "SELECT round FROM state.rows WHERE key = '3'") == [{"round": 3}]
    assert sum(executed(service, shop)) == asked + 1
