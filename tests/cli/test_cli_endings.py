"""How commands end: done, refused with a reason, interrupted, or a bug; always in the shape that was asked for."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli_process import batchops, command, environ, make_project

from batchops import __version__
from batchops.cli.main import VERBS

FAULT = """
import sys
import batchops.cli.show as show
from batchops.cli.main import run
def burst(*_args, **_kwargs):
    raise {error}
show._found = burst
sys.argv = ["batchops", "show", "plan.json", *sys.argv[1:]]
raise SystemExit(run())
"""


def faulty(root: Path, error: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`batchops show` with a fault put into it."""
    script = [sys.executable, "-c", FAULT.format(error=error), *words]
    return subprocess.run(script, cwd=root, env=environ(TMPDIR=str(root)), capture_output=True, text=True, check=False)


def test_version_is_one_line() -> None:
    done = batchops(Path.cwd(), "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"batchops {__version__}\n", "")


def test_help_lists_every_verb_with_its_line(tmp_path: Path) -> None:
    done = batchops(tmp_path, "--help")
    assert done.returncode == 0
    text = re.sub(r"\s+", " ", done.stdout)
    assert [verb for verb, line in VERBS.items() if f" {verb} {line}" not in text] == []


def test_no_words_at_all_print_the_help_to_stderr_as_a_usage_error(tmp_path: Path) -> None:
    done = batchops(tmp_path)
    assert (done.returncode, done.stdout) == (64, "")
    assert "Verbs:" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["plna"],
            'Unknown verb. "plna" is not a verb. Did you mean "plan"? `batchops --help` lists them. [unknown_verb]',
        ),
        (
            ["plan", "--ofline"],
            'Unknown option. "--ofline" is not an option of `batchops plan`. Did you mean "--offline"? '
            "`batchops plan --help` lists them. [unknown_option]",
        ),
        (["plan", "--samples", "many"], "Usage error. Invalid value for '--samples': 'many' is not a valid integer"),
        (["-C", "nowhere", "plan"], "Usage error. Invalid value for '-C': Directory 'nowhere' does not exist. [usage]"),
        (["show"], "Usage error. Missing argument 'PLANFILE'. [usage]"),
        (["apply", "--timeout", "2 weeks"], "write a duration such as"),
        (["apply", "--timeout", "2h"], "--timeout is for --wait"),
        (["apply", "--allow-cost-over", "labels"], "'labels' is not ADDR=USD"),
        (["plan", "--allow-cost-over", "labels=ten"], "'labels=ten' is not ADDR=USD"),
        (["plan", "--allow-cost-over", "labels=nan"], "'labels=nan' is not ADDR=USD"),
        (["serve", "--upstream", "nowhere"], "'nowhere' is no address, such as https://api.example.com/v1."),
        (["plan", "--json", "--format", "text"], "--json is json, --format says text"),
    ],
)
def test_a_command_line_that_cannot_be_carried_out_exits_64(tmp_path: Path, words: list[str], message: str) -> None:
    done = batchops(tmp_path, *words)
    output = done.stdout + done.stderr
    assert done.returncode == 64
    assert message in output.replace('\\"', '"')
    assert "Traceback" not in output


@pytest.mark.parametrize(
    "words", [["plna", "--json"], ["--json", "plan", "--nope"], ["plan", "--format", "json", "-x"]]
)
def test_with_json_a_usage_error_is_json_alone(tmp_path: Path, words: list[str]) -> None:
    done = batchops(tmp_path, *words)
    document = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (64, "")
    assert (document["valid"], document["error_count"]) == (False, 1)
    assert document["diagnostics"][0]["severity"] == "error"


def test_without_a_project_the_command_that_makes_one_is_named(tmp_path: Path) -> None:
    done = batchops(tmp_path, "plan")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: No project. Neither ")
    assert done.stderr.endswith("[no_project]\n    batchops init\n")


def test_a_failure_with_json_is_one_document_on_stdout(tmp_path: Path) -> None:
    done = batchops(tmp_path, "plan", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    assert [found["code"] for found in json.loads(done.stdout)["diagnostics"]] == ["no_project"]


def test_the_root_is_found_from_below_and_paths_are_relative_to_it(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p").resolve()
    for start, words in ((root / "data", []), (tmp_path, ["-C", "p/data"]), (tmp_path, ["-C", str(root)])):
        done = batchops(start, *words, "show", "x.json")
        assert done.stderr.startswith(f'error: Plan unreadable. "{root}/x.json" cannot be read'), done.stderr


def test_shared_flags_are_taken_before_and_after_the_verb(tmp_path: Path) -> None:
    make_project(tmp_path / "p")
    before = batchops(tmp_path, "-C", "p", "--json", "show", "x.json")
    after = batchops(tmp_path, "show", "-C", "p", "--json", "x.json")
    assert before.stdout == after.stdout
    assert json.loads(before.stdout)["diagnostics"][0]["code"] == "plan_unreadable"


def test_an_undeclared_environment_is_a_usage_error(tmp_path: Path) -> None:
    done = batchops(make_project(tmp_path / "p"), "plan", "--env", "prod")
    assert done.returncode == 64
    assert "[unknown_environment]" in done.stderr


def test_a_bug_names_the_file_with_its_traceback(tmp_path: Path) -> None:
    done = faulty(tmp_path, "ZeroDivisionError('boom')")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"This is a bug in batchops {__version__}, not in your project." in done.stderr
    assert "Traceback" not in done.stderr
    log = Path(re.search(r"The traceback is in (\S+)", done.stderr)[1])  # type: ignore[index]  # asserted by the next line
    assert "ZeroDivisionError: boom" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0


def test_a_bug_with_json_is_json(tmp_path: Path) -> None:
    done = faulty(tmp_path, "ZeroDivisionError('boom')", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    assert [found["code"] for found in json.loads(done.stdout)["diagnostics"]] == ["bug"]


def test_an_interruption_exits_130_and_says_what_is_safe(tmp_path: Path) -> None:
    done = faulty(tmp_path, "KeyboardInterrupt")
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "Interrupted. Everything submitted is recorded; the same command goes on from here.\n"
    document = json.loads(faulty(tmp_path, "KeyboardInterrupt", "--json").stdout)
    assert [found["code"] for found in document["diagnostics"]] == ["interrupted"]


@pytest.mark.parametrize("words", [["--help"], ["doctor"]])
def test_a_broken_pipe_ends_quietly(tmp_path: Path, words: list[str]) -> None:
    root = make_project(tmp_path / "p")
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command(*words), cwd=root, env=environ(), stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_completion_knows_the_verbs_and_imports_none(tmp_path: Path) -> None:
    more = {"_BATCHOPS_COMPLETE": "bash_complete", "COMP_WORDS": "batchops pl", "COMP_CWORD": "1"}
    assert batchops(tmp_path, **more).stdout == "plain,plan\n"


def test_colour_is_for_terminals_and_never_against_no_color(tmp_path: Path) -> None:
    leader, follower = os.openpty()
    plain = environ()
    coloured = {name: value for name, value in plain.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
    for environment, words, expected in (
        (coloured, [], True),
        (plain, [], False),
        (coloured, ["--no-color"], False),
    ):
        process = subprocess.Popen(
            command("plan", *words), cwd=tmp_path, env=environment, stderr=follower, stdout=subprocess.DEVNULL
        )
        assert process.wait(60) == 1
        assert (b"\x1b[" in os.read(leader, 10_000)) is expected
    os.close(follower)
    os.close(leader)


ENDLESS = """
name: endless
source:
  query: SELECT sum(a.range * b.range) AS id FROM range(10000000) a, range(1000000) b
  key: id
model: gpt-5-mini
template: "{{ id }}"
"""


@pytest.mark.parametrize("words", [["plan"], ["plan", "--json"], ["apply", "--auto-approve"]])
def test_ctrl_c_ends_a_command_that_is_inside_a_long_query(tmp_path: Path, words: list[str]) -> None:
    """DuckDB lets no signal handler run. Apply is asked twice, as a person would."""
    root = make_project(tmp_path / "p", job=ENDLESS)
    with subprocess.Popen(
        command(*words), cwd=root, env=environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not list((root / "state").rglob("*.duckdb*")):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        if words[0] == "apply":
            assert process.stderr is not None
            assert process.stderr.readline().startswith("Stopping after the write in hand")
            process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    if "--json" in words:
        assert [found["code"] for found in json.loads(stdout)["diagnostics"]] == ["interrupted"]
    else:
        assert "Everything submitted is recorded" in stderr


def test_ctrl_c_ends_validate_while_a_query_is_bound(tmp_path: Path) -> None:
    """DuckDB waits for whoever writes to the pipe; Python cannot be taken apart around it."""
    job = ENDLESS.replace(
        "SELECT sum(a.range * b.range) AS id FROM range(10000000) a, range(1000000) b", "FROM 'p.csv'"
    )
    root = make_project(tmp_path / "p", job=job)
    os.mkfifo(root / "p.csv")
    with (
        subprocess.Popen(
            command("validate"), cwd=root, env=environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process,
        (root / "p.csv").open("wb"),  # it opens when DuckDB reads
    ):
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    assert stderr == "Interrupted. Everything submitted is recorded; the same command goes on from here.\n"


def test_deep_query_is_bound_where_threads_have_small_stacks(tmp_path: Path) -> None:
    steps = ["c0 AS (SELECT 1 AS id)", *(f"c{number + 1} AS (FROM c{number})" for number in range(900))]
    job = ENDLESS.replace(
        "SELECT sum(a.range * b.range) AS id FROM range(10000000) a, range(1000000) b",
        f"WITH {', '.join(steps)} SELECT id FROM c900",
    )
    root = make_project(tmp_path / "p", job=job)
    small = ["sh", "-c", 'ulimit -S -s 2048 && exec "$@"', "sh", *command("validate")]
    done = subprocess.run(small, cwd=root, env=environ(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("flags", "before", "told"),
    [
        ([], "", ""),
        (["-W", "error"], "", "taken apart"),
        (["-X", "dev"], "", "taken apart"),
        ([], "threading.Thread(target=threading.main_thread().join).start()", "taken apart"),
    ],
    ids=["as it is", "warnings are errors", "development", "a thread at work"],
)
def test_process_is_taken_apart_only_where_somebody_looks(flags: list[str], before: str, told: str) -> None:
    script = f"""
import atexit, sys, threading
from batchops.__main__ import main
{before}
atexit.register(print, "taken apart")
sys.argv = ["batchops", "schema"]
main()
"""
    done = subprocess.run([sys.executable, *flags, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.removesuffix(f"{told}\n"))["title"]
    assert done.stdout.endswith(f"{told}\n")
