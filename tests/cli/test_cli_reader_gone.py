"""Commands that act while nobody reads any more what they say: they stop, nothing is lost, and they are not done."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from cli_process import SETTINGS, batchops, command, environ, make_project

UNREAD = (
    "Interrupted: nobody reads the output any more. Everything submitted is recorded; the same command goes on from"
    " here.\n"
)
STALLED = SETTINGS.replace('"200ms"', '"1h"').replace('"100ms"', '"1h"')
"""Polled once an hour."""


def rows(root: Path, action: str) -> int:
    document = json.loads(batchops(root, "plan", "--json", "--samples", "0").stdout)
    return int(document["summary"]["rows"][action])


def unread(root: Path, *words: str, is_stderr_too: bool = False) -> tuple[int, str]:
    """Run a command whose reader has gone before it said anything; its exit code, and what it said on stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    stderr = writer if is_stderr_too else subprocess.PIPE
    done = subprocess.run(
        command(*words), cwd=root, env=environ(), stdout=writer, stderr=stderr, text=True, check=False, timeout=120
    )
    os.close(writer)
    return done.returncode, done.stderr or ""


@pytest.mark.parametrize("words", [[], ["--json"], ["--wait", "--json"]], ids=" ".join)
def test_an_apply_whose_reader_has_gone_submits_nothing_and_is_not_done(tmp_path: Path, words: list[str]) -> None:
    root = make_project(tmp_path / "p")
    assert unread(root, "apply", "--auto-approve", *words) == (130, UNREAD)
    assert rows(root, "submit") == 3
    assert batchops(root, "apply", "--auto-approve", "--wait").returncode == 0
    assert rows(root, "unchanged") == 3


def test_an_apply_whose_stderr_had_the_same_reader_ends_alike(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p")
    assert unread(root, "apply", "--auto-approve", is_stderr_too=True) == (130, "")
    assert rows(root, "submit") == 3


@pytest.mark.parametrize(("words", "last"), [(["--json"], '"batch_created"'), ([], "created, 3 rows")], ids=str)
def test_an_apply_stops_waiting_once_its_reader_goes_and_what_it_submitted_is_fetched_later(
    tmp_path: Path, words: list[str], last: str
) -> None:
    root = make_project(tmp_path / "p")
    with subprocess.Popen(
        command("apply", "--auto-approve", "--wait", *words), cwd=root,
        env=environ(BATCHOPS_POLL__INITIAL="1s", BATCHOPS_POLL__MAX="1s"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE if words else subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        while last not in process.stdout.readline():
            assert process.poll() is None
        process.stdout.close()
        said = process.stderr.read() if process.stderr else ""
        assert process.wait(60) == 130
    assert said == (UNREAD if words else "")
    late = batchops(root, "wait", "--timeout", "60s")
    assert late.returncode == 0, late.stderr
    assert rows(root, "unchanged") == 3


def test_a_wait_whose_reader_has_gone_is_not_done(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p", settings=STALLED)
    assert batchops(root, "apply", "--auto-approve").returncode == 0
    assert unread(root, "wait", "--json") == (130, UNREAD)
    assert rows(root, "in_flight") == 3


def test_a_refusal_that_nobody_reads_is_not_done_either(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p", settings=SETTINGS + "[budget]\nmax_cost_usd = 0\n")
    assert unread(root, "apply", "--auto-approve", "--json") == (130, UNREAD)


def test_a_plan_whose_reader_has_gone_ends_quietly(tmp_path: Path) -> None:
    assert unread(make_project(tmp_path / "p"), "plan") == (0, "")
