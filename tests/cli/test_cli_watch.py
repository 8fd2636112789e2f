"""`watch`: plans again what a change touches, survives broken specs, applies when told to, ends on Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cli_process import JOB, batchops, command, environ, make_project


class Watched:
    """A running `batchops watch` and everything it has said."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._said = ""
        self._seen = 0
        self._more = threading.Condition()
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers = [threading.Thread(target=self._read, args=(pipe,)) for pipe in (process.stdout, process.stderr)]
        for reader in self._readers:
            reader.start()

    def _read(self, pipe: IO[str]) -> None:
        for line in pipe:
            with self._more:
                self._said += line
                self._more.notify_all()

    def hears(self, text: str) -> str:
        """Wait until `text` is said after what was heard before; returns everything in between."""
        with self._more:
            found = self._more.wait_for(lambda: text in self._said[self._seen :], timeout=60)
            assert found, f"never said {text!r}:\n{self._said[self._seen :]}"
            end = self._said.index(text, self._seen) + len(text)
            between, self._seen = self._said[self._seen : end], end
            return between

    def ends(self) -> int:
        code = self.process.wait(60)
        for reader in self._readers:
            reader.join()
        return code

    @property
    def rest(self) -> str:
        """What was said since."""
        return self._said[self._seen :]


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
        watch.hears("Plan: 4 to submit.")
        watch.hears("Watching. Ctrl-C ends it.")

        with (root / "data/other.csv").open("a") as data:
            data.write("2,b\n")
        said = watch.hears("Plan: 2 to submit.")
        assert "changed: data/other.csv" in said
        assert "labels" not in said

        save(root / "jobs/labels.yaml", "name: labels\nmodle: x\n")
        watch.hears('jobs/labels.yaml:2:1: error: Unknown key. "modle"')
        save(root / "jobs/labels.yaml", JOB.replace("Label:", "Mood of"))
        said = watch.hears("Plan: 3 to submit.")
        assert "Mood of Fine" in said
        assert "moods" not in said

        (root / "notes.txt").write_text("not read by any job")
        (root / "jobs/labels.yaml").unlink()
        said = watch.hears("Plan: 2 to submit.")
        assert "notes.txt" not in said.split("changed:")[0]

        watch.process.send_signal(signal.SIGINT)
        assert watch.ends() == 0
        assert watch.rest.endswith("Stopped watching.\n")
    assert not (root / "state/batchops.duckdb").exists()


def test_new_settings_are_taken_up_and_wrong_ones_are_survived(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p")
    settings = (root / "batchops.toml").read_text()
    with watching(root) as watch:
        watch.hears("Watching.")
        save(root / "batchops.toml", settings + "[poll]\n")
        watch.hears("[invalid_toml]")
        save(root / "batchops.toml", settings + "[budget]\nmax_cost_usd = 7\n")
        watch.hears("(limit $7.00)")
        watch.process.send_signal(signal.SIGTERM)
        assert watch.ends() == 0


def test_with_apply_every_change_converges(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p")
    with watching(root, "--apply") as watch:
        watch.hears("fetched, 3 rows (3 succeeded)")
        with (root / "data/reviews.csv").open("a") as data:
            data.write("4,New\n")
        watch.hears("created, 1 row, simulated answers")
        watch.hears("fetched, 1 row (1 succeeded)")
        watch.process.send_signal(signal.SIGINT)
        assert watch.ends() == 0
    assert batchops(root, "plan").stdout == "No changes. 4 rows answered.\n"
