"""`watch`: plans again what a change touches, survives broken specs, applies when told to, ends on Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from cli_process import JOB, batchops, command, environ, make_project


class Watched:
    """A running `batchops watch` and everything it has said, on stdout (plans) and on stderr (all else)."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._said = {"out": "", "err": ""}
        self._more = threading.Condition()
        pipes = {"out": process.stdout, "err": process.stderr}
        self._readers = [threading.Thread(target=self._read, args=(name, pipe)) for name, pipe in pipes.items() if pipe]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str, pipe: IO[str]) -> None:
        for line in pipe:
            with self._more:
                self._said[name] += line
                self._more.notify_all()

    def plans(self, text: str) -> str:
        """Wait until stdout has `text`; returns everything on it up to there, and forgets it."""
        return self._hears("out", text)

    def tells(self, text: str) -> str:
        """Wait until stderr has `text`; returns everything on it up to there, and forgets it."""
        return self._hears("err", text)

    def _hears(self, name: str, text: str) -> str:
        with self._more:
            found = self._more.wait_for(lambda: text in self._said[name], timeout=60)
            assert found, f"never said {text!r}:\n{self._said}"
            end = self._said[name].index(text) + len(text)
            before, self._said[name] = self._said[name][:end], self._said[name][end:]
            return before

    def ends(self) -> int:
        """Wait for the end of the process; returns its exit code."""
        code = self.process.wait(60)
        for reader in self._readers:
            reader.join()
        return code


@contextmanager
def watching(root: Path, *words: str) -> Iterator[Watched]:
    with subprocess.Popen(
        command("watch", *words), cwd=root, env=environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        watched = Watched(process)
        try:
            yield watched
        finally:
            if process.poll() is None:
                process.kill()
            watched.ends()


def save(path: Path, text: str) -> None:
    """Save as careful editors do: a new file, then a rename over the old one."""
    fresh = path.with_name(f".{path.name}.swp")
    fresh.write_text(text)
    fresh.rename(path)


def test_a_change_plans_again_the_jobs_that_it_touches_and_a_broken_spec_is_survived(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p")
    other = JOB.replace("labels", "moods").replace("reviews.csv", "other.csv")
    (root / "jobs/moods.yaml").write_text(other)
    (root / "data/other.csv").write_text("id,title\n1,a\n")
    with watching(root) as watch:
        watch.plans("Plan: 4 to submit.")
        watch.tells("Watching. Ctrl-C ends it.\n")

        with (root / "data/other.csv").open("a") as data:
            data.write("2,b\n")
        assert "labels" not in watch.plans("Plan: 2 to submit.")
        watch.tells("changed: data/other.csv\n")

        save(root / "jobs/labels.yaml", "name: labels\nmodle: x\n")
        watch.tells('jobs/labels.yaml:2:1: error: Unknown key. "modle"')
        save(root / "jobs/labels.yaml", JOB.replace("Label:", "Mood of"))
        plan = watch.plans("Plan: 3 to submit.")
        assert "Mood of Fine" in plan
        assert "moods" not in plan

        watch.tells("changed: jobs/labels.yaml\n")
        (root / "jobs/labels.yaml").unlink()
        assert "moods" in watch.plans("Plan: 2 to submit.")
        watch.tells("changed: jobs/labels.yaml\n")

        watch.process.send_signal(signal.SIGINT)
        assert watch.ends() == 0
        watch.tells("Stopped watching.\n")
    assert not (root / "state/batchops.duckdb").exists()


def test_new_settings_are_taken_up_and_wrong_ones_are_survived(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p")
    settings = (root / "batchops.toml").read_text()
    with watching(root) as watch:
        watch.tells("Watching.")
        save(root / "batchops.toml", settings + "[poll]\n")
        watch.tells("[invalid_toml]")
        save(root / "batchops.toml", settings + "[budget]\nmax_cost_usd = 7\n")
        watch.plans("(limit $7.00)")
        watch.process.send_signal(signal.SIGTERM)
        assert watch.ends() == 0


def test_with_apply_every_change_converges(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p")
    with watching(root, "--apply") as watch:
        watch.tells("fetched, 3 rows (3 succeeded)")
        with (root / "data/reviews.csv").open("a") as data:
            data.write("4,New\n")
        watch.tells("created, 1 row, simulated answers")
        watch.tells("fetched, 1 row (1 succeeded)")
        watch.process.send_signal(signal.SIGINT)
        assert watch.ends() == 0
    assert batchops(root, "plan").stdout == "No changes. 4 rows answered.\n"


@pytest.mark.parametrize(
    "words", [("--select", "nope"), ("--select", "tag:nope"), ("--exclude", "nope"), ("--select", "x:y")]
)
def test_a_selector_that_means_nothing_ends_it_before_it_begins(tmp_path: Path, words: tuple[str, str]) -> None:
    root = make_project(tmp_path / "p")
    done = batchops(root, "watch", *words)
    assert done.returncode == 64
    assert "Watching" not in done.stderr
    assert done.stdout == ""


def test_a_selected_job_may_go_and_come_back(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p")
    with watching(root, "--select", "labels") as watch:
        watch.plans("Plan: 3 to submit.")
        watch.tells("Watching.")
        (root / "jobs/labels.yaml").unlink()
        watch.tells("[unknown_job]")
        save(root / "jobs/labels.yaml", JOB)
        watch.plans("Plan: 3 to submit.")
        watch.process.send_signal(signal.SIGINT)
        assert watch.ends() == 0


def test_a_broken_spec_is_waited_out_from_the_start(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p")
    save(root / "jobs/labels.yaml", "name: labels\nmodle: x\n")
    with watching(root, "--select", "labels") as watch:
        watch.tells("[unknown_key]")
        watch.tells("Watching.")
        save(root / "jobs/labels.yaml", JOB)
        watch.plans("Plan: 3 to submit.")
        watch.process.send_signal(signal.SIGINT)
        assert watch.ends() == 0
