"""What an edit of a provider, a spec or the project means for answers that are on record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from service import Service, serving
from workshop import Workshop

SIMULATED = 'project = "edits"\nprovider = "local"\n[poll]\ninitial = "20ms"\n'
REAL = 'project = "edits"\n[poll]\ninitial = "20ms"\n[submit]\nsettle_grace = "200ms"\n'


def job(name: str = "a", template: str = "{{ id }}", **keys: object) -> str:
    source = {"query": "SELECT i AS id FROM range(6) t(i)", "key": "id"}
    return json.dumps({"name": name, "source": source, "model": "gpt-5-mini", "template": template} | keys)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path / "served") as found:
        yield found


@pytest.fixture
def shop(service: Service, tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "project", environ=service.environ)


def test_rows_left_out_by_a_limit_do_not_keep_simulated_answers(shop: Workshop, service: Service) -> None:
    shop.write({"batchops.toml": SIMULATED, "jobs/a.yaml": job()})
    shop.apply()
    shop.write({"batchops.toml": REAL})
    shop.apply("--limit", "2")
    plan = shop.plan("--samples", "0")
    assert plan["summary"]["rows"]["resubmit"] == 4
    assert plan["jobs"][0]["reasons"] == {"provider_changed": 4}
    shop.apply()
    assert len(service.executions()) == 6


def test_on_change_keep_does_not_keep_simulated_answers_for_a_real_provider(shop: Workshop) -> None:
    shop.write({"batchops.toml": SIMULATED, "jobs/a.yaml": job(lifecycle={"on_change": "keep"})})
    shop.apply()
    shop.write({"batchops.toml": REAL})
    assert shop.plan("--samples", "0")["jobs"][0]["reasons"] == {"provider_changed": 6}


def test_a_protected_job_that_was_removed_is_protected_when_it_comes_back(shop: Workshop, service: Service) -> None:
    other = {"jobs/b.yaml": job("b", "other {{ id }}")}
    shop.write({"batchops.toml": REAL, "jobs/a.yaml": job(lifecycle={"protect": True}), **other})
    shop.apply()
    (shop.root / "jobs/a.yaml").unlink()
    shop.apply()
    shop.write({"jobs/a.yaml": job(template="Again: {{ id }}")})
    refused = shop.apply(code=5)
    assert '"code": "protected"' in refused.out
    assert len(service.executions()) == 12
    shop.write({"jobs/a.yaml": job()})
    shop.apply()
    assert shop.run("status", "--json").json["jobs"][0]["sync"] == "Synced"
    assert len(service.executions()) == 12


def test_replace_takes_a_key_in_any_spelling_and_refuses_one_that_no_row_has(shop: Workshop) -> None:
    source = {"query": "SELECT 'EU' AS region, i AS id FROM range(3) t(i)", "key": ["region", "id"]}
    shop.write({"batchops.toml": SIMULATED, "jobs/a.yaml": job(source=source)})
    shop.apply()
    assert shop.plan("--replace", 'a@["EU", 1]', "--samples", "0")["summary"]["rows"]["resubmit"] == 1
    refused = shop.run("plan", "--replace", 'a@["EU","9"]', code=1)
    assert 'The query has no row a@["EU","9"].' in refused.err


def test_modified_jobs_are_the_new_and_the_edited_ones(shop: Workshop) -> None:
    def modified() -> list[str]:
        plan = shop.plan("--select", "state:modified", "--samples", "0")
        return [job["address"] for job in plan["jobs"]]

    shop.write({"batchops.toml": SIMULATED, "jobs/a.yaml": job(), "jobs/b.yaml": job("b")})
    assert modified() == ["a", "b"]
    shop.apply()
    assert modified() == []
    shop.write({"jobs/a.yaml": job(description="No byte of a request changes")})
    assert modified() == []
    shop.write({"jobs/a.yaml": job(template="Again: {{ id }}")})
    source = {"query": "SELECT i AS id FROM range(9) t(i)", "key": "id"}
    shop.write({"jobs/b.yaml": job("b", source=source)})
    assert modified() == ["a", "b"]


def test_a_saved_plan_forgets_the_jobs_that_it_said_it_would(shop: Workshop) -> None:
    gone = job(lifecycle={"on_remove": "forget"})
    shop.write({"batchops.toml": SIMULATED, "jobs/a.yaml": gone, "jobs/b.yaml": job("b")})
    shop.apply()
    (shop.root / "jobs/a.yaml").unlink()
    shop.run("plan", "--out", "plan.json")
    shop.write({"jobs/a.yaml": gone})
    shop.run("apply", "plan.json", code=10)
    (shop.root / "jobs/a.yaml").unlink()
    assert shop.run("apply", "plan.json", "--json").lines[-1]["summary"]["rows"]["forget"] == 6
    assert shop.run("plan", "--detailed-exitcode").code == 0


def test_what_an_apply_says_at_its_end_is_what_a_plan_finds_after_it(shop: Workshop) -> None:
    def spec(template: str, first: int, last: int) -> str:
        source = {"query": f"SELECT i AS id FROM range({first}, {last}) t(i)", "key": "id"}
        return job(template=template, source=source, lifecycle={"on_remove": "forget"})

    for template in ("One {{ id }}", "Two {{ id }}"):
        shop.write({"batchops.toml": REAL, "jobs/a.yaml": spec(template, 0, 6)})
        shop.apply()
    shop.write({"jobs/a.yaml": spec("One {{ id }}", 1, 8)})
    said = shop.run("apply", "--auto-approve", "--json").lines[-1]["summary"]["rows"]
    assert {action: count for action, count in said.items() if count} == {
        "submit": 2, "reuse": 5, "forget": 1, "in_flight": 2, "unchanged": 5,
    }  # fmt: skip
    found = shop.plan("--offline", "--samples", "0")["summary"]["rows"]
    assert {action: count for action, count in found.items() if count} == {"in_flight": 2, "unchanged": 5}


THROTTLED = {"on": "POST /v1/batches", "effect": "throttle", "retry_after": 0}


def test_replacing_rows_whose_first_try_was_throttled_submits_them_and_protection_lets_it(
    shop: Workshop, service: Service
) -> None:
    shop.write({"batchops.toml": REAL, "jobs/a.yaml": job(lifecycle={"protect": True})})
    service.faults(THROTTLED)
    shop.run("apply", "--auto-approve", "--json")
    service.faults()
    assert service.ledger()["executed"] == 0
    for words in ((), ("--replace", "a@3"), ("--replace", "a")):
        rows = shop.plan("--samples", "0", *words)["summary"]["rows"]
        assert {action: count for action, count in rows.items() if count} == {"submit": 6}
    shop.run("plan", "--replace", "a", "--out", "plan.json")
    shop.run("apply", "plan.json", "--wait")
    assert set(service.executions().values()) == {1}
    assert len(service.executions()) == 6
    assert '"code": "protected"' in shop.apply("--replace", "a@3", code=5).out


def test_replacing_a_row_twice_while_it_is_throttled_asks_it_once(shop: Workshop, service: Service) -> None:
    shop.write({"batchops.toml": REAL, "jobs/a.yaml": job(lifecycle={"protect": True})})
    shop.apply()
    service.faults(THROTTLED)
    shop.run("apply", "--auto-approve", "--replace", "a@3", "--allow-protected", "a")
    service.faults()
    assert shop.plan("--samples", "0", "--replace", "a@3")["summary"]["rows"]["retry"] == 1
    shop.apply("--replace", "a@3")
    assert len(service.executions()) == 7
    assert set(service.executions().values()) == {1}


@pytest.fixture
def held(shop: Workshop, service: Service) -> Workshop:
    """A protected job whose rows are held: its provider never had room for them. Now it has."""
    shop.write({"batchops.toml": REAL, "jobs/a.yaml": job(lifecycle={"protect": True})})
    service.faults(THROTTLED)
    shop.apply(code=6)
    service.faults()
    assert shop.plan("--samples", "0")["summary"]["rows"]["held"] == 6
    return shop


def test_replacing_a_held_row_asks_it_without_a_retry_before(held: Workshop, service: Service) -> None:
    assert "r  a  1 row  requested  " in held.run("plan", "--samples", "0", "--replace", "a@3").out
    assert held.plan("--replace", "a@3")["diagnostics"] == []
    rows = held.apply("--replace", "a@3", code=6).lines[-1]["summary"]["rows"]
    assert {action: count for action, count in rows.items() if count} == {"retry": 1, "unchanged": 1, "held": 5}
    assert list(service.executions().values()) == [1]


def test_a_saved_plan_asks_the_held_rows_that_it_replaces_and_no_row_twice(held: Workshop, service: Service) -> None:
    held.run("plan", "--replace", "a", "--out", "plan.json")
    for _ in range(2):
        held.run("apply", "plan.json", "--wait")
    assert list(service.executions().values()) == [1] * 6
    assert held.run("plan", "--samples", "0").out == "No changes. 6 rows answered.\n"
    assert '"code": "protected"' in held.apply("--replace", "a@3", code=5).out


def test_replacing_a_row_whose_replacement_was_held_throws_no_answer_away(held: Workshop, service: Service) -> None:
    held.apply("--replace", "a")
    service.faults(THROTTLED)
    held.apply("--replace", "a@3", "--allow-protected", "a", code=6)
    service.faults()
    held.apply("--replace", "a@3")
    assert sorted(service.executions().values()) == [1] * 7


def test_replacing_rows_of_a_held_job_asks_nothing_before_a_retry(held: Workshop, service: Service) -> None:
    held.run("cancel", "a")
    held.apply("--replace", "a", code=6)
    assert not service.executions()
    held.run("retry", "a")
    held.apply()
    assert list(service.executions().values()) == [1] * 6


@pytest.mark.parametrize("words", [(), ("--wait",)], ids=["at_once", "waiting"])
def test_rows_that_another_job_asked_count_where_the_own_batch_was_refused(
    shop: Workshop, service: Service, words: tuple[str, ...]
) -> None:
    shop.write({"batchops.toml": REAL, "jobs/a.yaml": job(), "jobs/b.yaml": job("b")})
    service.faults({"on": "POST /v1/batches", "effect": "error_before", "status": 400, "nth": 1})
    ran = shop.run("apply", "--auto-approve", "--json", *words, code=1)
    said = ran.lines[-1]["summary"]["rows"]
    left = "unchanged" if words else "in_flight"
    assert {action: count for action, count in said.items() if count} == {"submit": 12, left: 12}
    assert len(service.executions()) == 6


def sized(rows: int) -> str:
    return job(source={"query": f"SELECT i AS id FROM range({rows}) t(i)", "key": "id"})


def test_a_saved_plan_takes_rows_off_record_that_had_left_the_source(shop: Workshop) -> None:
    def shown() -> list[int]:
        return [row["key"]["id"] for row in shop.results("a")]

    shop.write({"batchops.toml": SIMULATED, "jobs/a.yaml": sized(6)})
    shop.apply()
    shop.write({"jobs/a.yaml": sized(4)})
    shop.run("plan", "--out", "plan.json")
    shop.write({"jobs/a.yaml": sized(3)})
    shop.run("apply", "plan.json")
    assert shown() == [0, 1, 2, 3], "what left after the review is for the next plan"
    assert len(shop.results("a", "--all")) == 6
    shop.write({"jobs/a.yaml": sized(5)})
    shop.run("plan", "--out", "plan.json")
    shop.write({"jobs/a.yaml": sized(6)})
    shop.run("apply", "plan.json")
    assert shown() == [0, 1, 2, 3, 4, 5], "a row that is back in the source is shown whoever applies"


def test_a_saved_plan_forgets_the_rows_that_it_said_it_would(shop: Workshop) -> None:
    for rows in (6, 4):
        source = {"query": f"SELECT i AS id FROM range({rows}) t(i)", "key": "id"}
        shop.write({"batchops.toml": SIMULATED, "jobs/a.yaml": job(source=source, lifecycle={"on_remove": "forget"})})
        if rows == 6:
            shop.apply()
    shop.run("plan", "--out", "plan.json")
    assert shop.run("apply", "plan.json", "--json").lines[-1]["summary"]["rows"]["forget"] == 2
    assert len(shop.results("a", "--all")) == 4
    assert shop.run("plan", "--detailed-exitcode").code == 0


def test_a_saved_plan_leaves_rows_alone_that_came_back_or_were_beyond_its_limit(shop: Workshop) -> None:
    shop.write({"batchops.toml": SIMULATED, "jobs/a.yaml": sized(6)})
    shop.apply()
    shop.run("plan", "--limit", "2", "--out", "limited.json")
    shop.write({"jobs/a.yaml": sized(4)})
    shop.run("plan", "--out", "plan.json")
    shop.write({"jobs/a.yaml": sized(6)})
    for name in ("limited.json", "plan.json"):
        shop.run("apply", name)
        assert len(shop.results("a")) == 6


def test_rows_that_came_back_are_shown_after_an_apply_with_a_limit(shop: Workshop) -> None:
    for rows in (6, 4):
        shop.write({"batchops.toml": SIMULATED, "jobs/a.yaml": sized(rows)})
        shop.apply()
    shop.write({"jobs/a.yaml": sized(6)})
    shop.apply("--limit", "6")
    assert len(shop.results("a")) == 6
