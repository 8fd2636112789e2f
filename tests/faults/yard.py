"""A project under faults: the real CLI as processes that may die, a service with a ledger, and the laws to hold."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
from crew import Command, Crew
from service import Service
from workshop import Ran, Workshop

SETTINGS = 'project = "demo"\n[poll]\ninitial = "20ms"\nmax = "200ms"\n[submit]\nsettle_grace = "200ms"\n'
KILLED = -9
ENDED = {"completed", "failed", "expired", "cancelled"}
RETRY = {"backoff": {"initial": "10ms", "max": "10ms"}}
"""Retries that are due at once."""


def query(count: int, word: str = "review") -> str:
    return f"SELECT i AS id, '{word} ' || i AS body FROM range({count}) t(i)"


def job(name: str = "chat", *, rows: int = 6, **keys: Any) -> str:
    """A spec as JSON, which is YAML."""
    spec = {
        "name": name,
        "source": {"query": query(rows), "key": "id"},
        "model": "gpt-5-mini",
        "template": "Sum up: {{ body }}",
        "retry": RETRY,
        **keys,
    }
    return json.dumps(spec, indent=2)


@dataclass
class Yard(Workshop):
    """A workshop whose commands are started by a crew, and can be told where to die."""

    crew: Crew = field(kw_only=True)
    service: Service = field(kw_only=True)
    _started: list[Command] = field(default_factory=list, init=False)

    def environment(self) -> dict[str, str]:
        return {**super().environment(), **self.service.environ, **self.environ}

    def start(self, *words: str, step: str = "") -> Command:
        """Start a command and let it run."""
        command = self.crew.start(words, cwd=self.root, environ=self.environment(), step=step)
        self._started.append(command)
        return command

    def dismiss(self) -> None:
        """Let no command outlive the test that started it."""
        while self._started:
            self._started.pop().close()

    def run(self, *words: str, code: int | None = 0, timeout: float = 120) -> Ran:
        ended = self.start(*words).wait(timeout)
        return self._checked(Ran(ended.code, ended.out, ended.err), code)

    def _checked(self, ran: Ran, code: int | None) -> Ran:
        assert code is None or ran.code == code, f"exit {ran.code}, not {code}\n{ran.out}\n{ran.err}"
        assert "Traceback" not in ran.err, ran.err
        assert "This is a bug" not in ran.err + ran.out, bug_log(ran.err + ran.out)
        return ran

    def crash(self, step: str, *words: str) -> bool:
        """Run `apply --wait` until it dies at a step; False when it never got there."""
        ended = self.start("apply", "--auto-approve", "--wait", "--json", *words, step=step).wait()
        if ended.code != KILLED:
            self._checked(Ran(ended.code, ended.out, ended.err), None)
        return ended.code == KILLED

    def converge(self, *words: str, tries: int = 3) -> int:
        """Apply until one exits 0; returns how many it took."""
        for number in range(1, tries + 1):
            ran = self.apply(*words, code=None)
            if ran.code == 0:
                return number
        raise AssertionError(f"exit {ran.code} after {tries} applies\n{ran.out}\n{ran.err}")

    def batches(self) -> list[dict[str, Any]]:
        """Every batch the service has for this project, newest first."""
        found: list[dict[str, Any]] = self.service.get("/batches?limit=100")["data"]
        return found

    def wait_ended(self) -> None:
        """Wait until no batch of this project is under way at the service."""
        self.wait_until(lambda: all(batch["status"] in ENDED for batch in self.batches()))

    def wait_until(self, is_true: Callable[[], bool]) -> None:
        """Look every now and then until it is so."""
        deadline = time.monotonic() + 120
        while not is_true():
            assert time.monotonic() < deadline, self.batches()
            time.sleep(0.02)

    def let_due(self) -> None:
        """Let all that waits for its time be due: the time is set back in the state, as no clock of ours can jump."""
        with duckdb.connect(str(self.root / "state" / "batchops.duckdb")) as con:
            con.execute("UPDATE requests SET due_at = now() - INTERVAL 1 SECOND WHERE due_at IS NOT NULL")

    def executed(self) -> Counter[str]:
        """How often each digest was executed, whichever attempt and batch it was in."""
        counted: Counter[str] = Counter()
        for custom_id, count in self.service.executions().items():
            counted[custom_id.partition("-")[0]] += count
        return counted

    def statuses(self, job: str = "chat") -> Counter[str]:
        return Counter(row["status"] for row in self.results(job))

    def hold_laws(self, *, rows: int, job: str = "chat", requests: int | None = None) -> None:
        """Every row executed exactly once and answered, nothing left to do, and the state in order."""
        self.hold_at_most_once()
        assert self.executed() == Counter(dict.fromkeys(self.executed(), 1))
        assert len(self.executed()) == (rows if requests is None else requests)
        assert self.statuses(job) == {"succeeded": rows}
        self.hold_empty_plan()

    def hold_at_most_once(self) -> None:
        """No attempt of any request was ever executed twice."""
        twice = {custom_id: count for custom_id, count in self.service.executions().items() if count > 1}
        assert not twice

    def hold_empty_plan(self) -> None:
        plan = self.plan("--detailed-exitcode")
        assert not [problem for problem in plan["diagnostics"] if problem["severity"] == "error"], plan["diagnostics"]


def codes(ran: Ran) -> list[str]:
    """The codes of the diagnostics among the JSON lines of an apply."""
    return [line["diagnostic"]["code"] for line in ran.lines if line["type"] == "diagnostic"]


def bug_log(text: str) -> str:
    """The log of a bug, whose path is in `text`."""
    for word in text.replace('"', " ").split():
        path = Path(word.rstrip("."))
        if path.name.startswith("batchops-bug-") and path.exists():
            return path.read_text(encoding="utf-8")
    return text
