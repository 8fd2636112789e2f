"""`status` and `validate` on a part of a project, and `status --refresh`, which asks and writes nothing."""

from __future__ import annotations

import pytest
from yard import Yard, job

pytest_plugins = ("yard_fixtures",)


@pytest.fixture
def shop(yard: Yard) -> Yard:
    yard.write(
        {"jobs/a.yaml": job("a", rows=3, tags=["weekly"]), "jobs/b.yaml": job("b", rows=3, template="B {{ body }}")}
    )
    return yard


def progress(shop: Yard, *words: str) -> list[tuple[str, int]]:
    """Status and counts of the batches in flight."""
    found = shop.run("status", "--json", *words).json["jobs"]
    return [(batch["status"], batch["completed"]) for job in found for batch in job["batches"]]


def test_refresh_shows_what_the_provider_says_now_and_writes_nothing(shop: Yard) -> None:
    shop.run("apply", "--auto-approve")
    shop.wait_ended()
    before = shop.run("status", "--json").json["state"]
    assert progress(shop) == [("validating", 0)] * 2
    assert progress(shop, "--refresh") == [("completed", 3)] * 2
    assert progress(shop) == [("validating", 0)] * 2
    assert shop.run("status", "--json").json["state"] == before
    assert "In flight, asked just now:\n" in shop.run("status", "--refresh").out


def test_refresh_says_when_the_provider_cannot_be_asked_and_shows_what_it_said_last(shop: Yard) -> None:
    shop.run("apply", "--auto-approve", "--select", "a")
    shop.environ["OPENAI_BASE_URL"] = "http://127.0.0.1:9/v1"  # nobody is there
    ran = shop.run("status", "--refresh", "--select", "a")
    assert "[provider_unreachable]" in ran.err
    assert "validating" in ran.out
    found = shop.run("status", "--refresh", "--select", "a", "--json").json
    assert {problem["code"] for problem in found["diagnostics"]} == {"provider_unreachable"}


def test_provider_that_cannot_be_asked_is_told_once_however_many_batches_it_has_and_however_often_they_are_polled(
    shop: Yard,
) -> None:
    def told(words: str, code: int = 0) -> list[tuple[str, str | None, str]]:
        ran = shop.run(*words.split(), "--json", code=code)
        events = [line["diagnostic"] for line in ran.lines if line.get("type") == "diagnostic"]
        found = events or ran.json["diagnostics"]
        return [(one["code"], one["address"], one["detail"].partition(":")[0]) for one in found]

    shop.run("apply", "--auto-approve")
    shop.environ["OPENAI_BASE_URL"] = "http://127.0.0.1:9/v1"  # nobody is there
    once = [("provider_unreachable", None, "openai about 2 batches")]
    assert told("plan") == once
    assert told("status --refresh") == once
    assert told("wait --timeout 3s", code=9) == once


def test_status_shows_the_jobs_that_are_selected(shop: Yard) -> None:
    def addresses(*words: str) -> list[str]:
        return [found["address"] for found in shop.run("status", "--json", *words).json["jobs"]]

    assert addresses() == ["a", "b"]
    assert addresses("--select", "tag:weekly") == ["a"]
    assert addresses("--exclude", "a") == ["b"]
    shop.apply("--select", "a")
    assert addresses("--select", "state:modified") == ["b"]
    assert "[unknown_job]" in shop.run("status", "--select", "nobody", code=64).err
    assert "[nothing_selected]" in shop.run("status", "--select", "tag:yearly", code=64).err
    assert shop.run("status", "--exclude", "*").out == "No job is selected.\n"
    shop.write({"jobs/a.yaml": "name: [\n"})
    assert addresses("--select", "b") == ["b"]
    assert "[yaml_syntax]" in shop.run("status", "--select", "a", code=1).err


def test_status_says_that_jobs_are_disabled_where_it_has_no_other(shop: Yard) -> None:
    shop.write({f"jobs/{name}.yaml": job(name, rows=3, enabled=False) for name in ("a", "b")})
    assert shop.run("status").out == (
        "No jobs: all 2 that are declared under jobs/ are disabled, and none was applied.\n"
    )
    assert (
        shop.run("status", "--select", "a").out == "No jobs: the only one selected is disabled, and was not applied.\n"
    )
    (shop.root / "jobs/b.yaml").unlink()
    assert shop.run("status").out == ("No jobs: the only one declared under jobs/ is disabled, and was not applied.\n")
    shop.write({"jobs/b.yaml": job("b", rows=3)})
    assert "disabled" not in shop.run("status").out


def test_validate_binds_only_what_is_selected_and_reads_everything(shop: Yard) -> None:
    shop.write({"jobs/b.yaml": job("b", rows=3, template="{{ nothing }}")})
    assert "[unknown_column]" in shop.run("validate", code=1).err
    assert shop.run("validate", "--select", "a").out == "Success! 1 job in 1 file is valid.\n"
    assert "[nothing_selected]" in shop.run("validate", "--select", "tag:yearly", code=64).err
    shop.write({"jobs/b.yaml": "name: [\n"})
    for chosen in ("a", "b", "tag:yearly"):
        ran = shop.run("validate", "--select", chosen, code=1)
        assert ("[yaml_syntax]" in ran.err, "[unknown_job]" in ran.err) == (True, False)
