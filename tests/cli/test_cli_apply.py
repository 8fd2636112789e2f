"""plan, apply, wait and show as processes: what they print where, whom they ask, how they are stopped."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cli_process import SETTINGS, batchops, command, environ, make_project

SLOW = SETTINGS.replace('"100ms"', '"1h"').replace('"200ms"', '"1h"')
"""Polled once an hour: after submitting, `--wait` does nothing but wait."""


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@contextmanager
def asked(root: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`batchops apply` at a terminal, once it has asked; the terminal takes the answer and shows all but stdout."""
    leader, follower = pty.openpty()
    with subprocess.Popen(
        command("apply", *words), cwd=root, env=environ(TERM="xterm"),
        stdin=follower, stdout=subprocess.PIPE, stderr=follower, text=True,
    ) as process:  # fmt: skip
        os.close(follower)
        said = b""
        while b"Only `yes` applies it: " not in said:
            said += os.read(leader, 1000)
        assert b"Plan: 3 to submit." in said
        try:
            yield process, leader
        finally:
            process.wait(60)
            os.close(leader)


def shown(terminal: int) -> str:
    """What else stands on the terminal when its process has ended."""
    text = b""
    while True:
        try:
            text += os.read(terminal, 1000)
        except OSError:  # nobody writes to it any more
            return text.decode()


def test_without_a_terminal_apply_is_refused_before_any_work(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p", job="this is not even a job")
    done = batchops(root, "apply")
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr == (
        "error: No terminal. There is no terminal to ask whether to apply. To apply without being asked:"
        " [no_terminal]\n    batchops apply --auto-approve\n"
    )
    assert not (root / "state").exists()


def test_only_yes_applies(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p")
    with asked(root) as (process, terminal):
        os.write(terminal, b"y\n")
        assert process.wait(60) == 1
        assert "[not_approved]" in shown(terminal)
        assert process.stdout is not None
        assert process.stdout.read() == ""
    with asked(root) as (process, terminal):
        os.write(terminal, b"yes\n")
        assert process.wait(60) == 0
        assert "created, 3 rows, simulated answers" in shown(terminal)
        assert process.stdout is not None
        assert process.stdout.read().startswith("Done: 3 submitted; 1 batch created.\n")


def test_ctrl_c_at_the_question_applies_nothing(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p")
    with asked(root) as (process, terminal):
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert "Interrupted." in shown(terminal)
        assert process.stdout is not None
        assert process.stdout.read() == ""


def test_bars_move_on_a_terminal_and_leave_it_as_it_was(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p")
    leader, follower = pty.openpty()
    with subprocess.Popen(
        command("apply", "--auto-approve", "--wait"), cwd=root, env=environ(TERM="xterm"),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=follower,
    ) as process:  # fmt: skip
        os.close(follower)
        text = shown(leader)
        assert process.wait(60) == 0
    os.close(leader)
    assert "3/3" in text
    assert "fetched, 3 rows (3 succeeded)" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[subprocess.CompletedProcess[str]]]:
    """A project that was planned, planned into a file, applied with JSON, and planned again."""
    root = make_project(tmp_path_factory.mktemp("apply") / "p")
    runs = [
        batchops(root, "plan", "--out", "plans/first.json", "--detailed-exitcode"),
        batchops(root, "apply", "--auto-approve", "--wait", "--timeout", "60s", "--json"),
        batchops(root, "plan", "--detailed-exitcode"),
    ]
    return root, runs


def test_changes_exit_2_when_asked_and_a_finished_apply_leaves_none(
    applied: tuple[Path, list[subprocess.CompletedProcess[str]]],
) -> None:
    _, (first, _, last) = applied
    assert first.returncode == 2
    assert "\nPlan: 3 to submit. Estimated $" in first.stdout
    assert "Simulated answers: labels." in first.stdout
    assert (last.returncode, last.stdout) == (0, "No changes. 3 rows answered.\n")


def test_apply_with_json_prints_one_event_a_line_and_ends_with_the_summary(
    applied: tuple[Path, list[subprocess.CompletedProcess[str]]],
) -> None:
    _, (_, run, _) = applied
    assert run.returncode == 0, run.stderr
    events = lines(run.stdout)
    types = [event["type"] for event in events]
    assert types[0] == "version"
    assert types[-1] == "apply_complete"
    assert [kind for kind in types if kind not in {"batch_progress"}] == [
        "version", "apply_start", "batch_created", "batch_fetched", "apply_complete",
    ]  # fmt: skip
    assert events[-1]["exit_code"] == 0
    assert events[-1]["summary"]["rows"]["submit"] == 3
    assert events[-1]["summary"].keys() == {"rows", "batches"}
    assert all(event["at"].endswith("Z") for event in events)
    created = next(event for event in events if event["type"] == "batch_created")
    assert (created["address"], created["rows"], created["simulated"]) == ("labels", 3, True)


def test_a_saved_plan_is_shown_as_it_was_printed(
    applied: tuple[Path, list[subprocess.CompletedProcess[str]]],
) -> None:
    root, (first, _, _) = applied
    assert batchops(root, "show", "plans/first.json").stdout == first.stdout
    document = json.loads(batchops(root, "show", "plans/first.json", "--json").stdout)
    assert document["summary"]["rows"]["submit"] == 3
    assert batchops(root, "show", "plans/first.json", "--format", "markdown").stdout.startswith(
        "### Plan: 3 to submit."
    )


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link", "/proc/self/fd/{number}"])
def test_a_plan_is_not_saved_in_the_place_of_an_open_file(tmp_path: Path, name: str) -> None:
    root = make_project(tmp_path / "p")
    (root / "link").symlink_to("/proc/self/fd/1")
    log = tmp_path / "log"
    with log.open("w") as opened:
        number = opened.fileno()
        done = subprocess.run(
            command("plan", "--out", name.format(number=number)), cwd=root, env=environ(), pass_fds=(number,),
            stdout=opened, stderr=subprocess.PIPE, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert os.path.samestat(os.fstat(number), log.stat())
    assert (done.returncode, log.read_text()) == (64, "")
    assert done.stderr.startswith("error: Plan not saved. ")
    assert done.stderr.endswith("Name it: [plan_unwritable]\n    batchops plan --out plan.json\n")
    assert (root / "link").is_symlink()
    assert [path.name for path in tmp_path.iterdir() if path != root] == ["log"]


def test_choosing_beside_a_saved_plan_is_a_usage_error(
    applied: tuple[Path, list[subprocess.CompletedProcess[str]]],
) -> None:
    root, _ = applied
    done = batchops(root, "apply", "plans/first.json", "--limit", "1")
    assert done.returncode == 64
    assert "A saved plan is applied as it was reviewed" in done.stderr


def test_over_budget_is_refused_by_plan_and_apply_with_exit_5(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p", settings=SETTINGS + "[budget]\nmax_cost_usd = 0\n")
    plan = batchops(root, "plan", "--detailed-exitcode")
    assert plan.returncode == 5
    assert "[over_budget]" in plan.stdout
    apply = batchops(root, "apply", "--auto-approve", "--json")
    assert (apply.returncode, apply.stderr) == (5, "")
    events = lines(apply.stdout)
    assert [event["type"] for event in events] == ["version", "diagnostic", "apply_complete"]
    assert events[1]["diagnostic"]["code"] == "over_budget"
    assert events[2]["exit_code"] == 5


def test_a_broken_spec_with_json_ends_the_lines_like_any_failure(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p", job="name: labels\n")
    done = batchops(root, "apply", "--auto-approve", "--json")
    events = lines(done.stdout)
    assert (done.returncode, done.stderr) == (1, "")
    assert events[-1] == {**events[-1], "type": "apply_complete", "exit_code": 1}
    assert {event["type"] for event in events[:-1]} == {"version", "diagnostic"}


@pytest.mark.parametrize("words", [["--allow-cost-over", "lables=1"], ["--allow-protected", "lables"]])
def test_a_leave_for_a_job_that_is_not_there_is_a_slip(tmp_path: Path, words: list[str]) -> None:
    root = make_project(tmp_path / "p")
    for verb in (["plan"], ["apply", "--auto-approve"]):
        done = batchops(root, *verb, *words)
        assert done.returncode == 64
        assert 'There is no job "lables" here. Did you mean "labels"? [unknown_job]' in done.stderr
    assert batchops(root, "plan", *(word.replace("lables", "labels") for word in words)).returncode == 0


def test_a_variable_that_sets_nothing_is_told_where_it_matters(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p")
    wrong = {"BATCHOPS_BUDGT__MAX_COST_USD": "0"}
    assert "[unknown_variable]" in batchops(root, "plan", **wrong).stdout
    found = json.loads(batchops(root, "plan", "--json", **wrong).stdout)["diagnostics"]
    assert [problem["code"] for problem in found] == ["unknown_variable"]
    assert "[unknown_variable]" in batchops(root, "apply", "--auto-approve", **wrong).stdout


def test_limit_comes_from_the_environment_unless_the_flag_says_otherwise(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p", settings=SETTINGS + "[environments.dev]\nlimit = 2\n")

    def rows(*words: str) -> int:
        document = json.loads(batchops(root, "plan", "--json", "--samples", "0", *words).stdout)
        return int(document["summary"]["rows"]["submit"])

    assert (rows("--env", "dev"), rows("--env", "dev", "--limit", "1")) == (2, 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_says_what_goes_on_and_everything_is_fetched_later(
    tmp_path: Path, number: signal.Signals
) -> None:
    root = make_project(tmp_path / "p", settings=SLOW)
    with subprocess.Popen(
        command("apply", "--auto-approve", "--wait"), cwd=root, env=environ(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert "created, 3 rows, simulated answers" in process.stderr.readline()
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.startswith("Stopping after the write in hand; nothing new is submitted.")
    assert "batchops wait" in stderr
    assert "In flight: 1 batch." in stdout
    if number == signal.SIGTERM:
        return  # what follows does not depend on the signal
    late = batchops(root, "wait", "--timeout", "60s", BATCHOPS_POLL__INITIAL="100ms", BATCHOPS_POLL__MAX="100ms")
    assert late.returncode == 0, late.stderr
    assert late.stdout.startswith("Done: 1 batch fetched.")


def test_a_timeout_that_runs_out_exits_9_and_names_what_is_in_flight(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p", settings=SLOW)
    done = batchops(root, "apply", "--auto-approve", "--wait", "--timeout", "1ms")
    assert done.returncode == 9
    assert "In flight: 1 batch. To wait for them: batchops apply --wait" in done.stdout


def test_waiting_for_nothing_is_done_at_once(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p")
    done = batchops(root, "wait")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Nothing to do.\n", "")
