"""A user's bench: a project folder, the real CLI as a process, and a service to talk to over HTTP."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crew import REPOSITORY, shared_crew


@dataclass(frozen=True)
class Ran:
    """One command as it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """JSON lines of stdout; U+2028 is text in them, not an end of line."""
        return [json.loads(line) for line in self.out.split("\n") if line]


@dataclass
class Workshop:
    """A project in a folder of its own. `environ` is added to every command's environment."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(REPOSITORY), "NO_COLOR": "1", "COLUMNS": "120", **self.environ}

    def run(self, *words: str, code: int | None = 0, timeout: float = 120) -> Ran:
        """Run `batchops WORDS…` here; fails the test when the exit code is not `code` (None: any)."""
        ended = shared_crew().run(words, cwd=self.root, environ=self.environment(), timeout=timeout)
        ran = Ran(ended.code, ended.out, ended.err)
        assert code is None or ran.code == code, f"exit {ran.code}, not {code}\n{ran.out}\n{ran.err}"
        assert "Traceback" not in ran.err, ran.err
        return ran

    def apply(self, *words: str, code: int | None = 0) -> Ran:
        return self.run("apply", "--auto-approve", "--wait", "--json", *words, code=code)

    def plan(self, *words: str, code: int | None = 0) -> dict[str, Any]:
        plan: dict[str, Any] = self.run("plan", "--json", *words, code=code).json
        return plan

    def results(self, job: str, *words: str) -> list[dict[str, Any]]:
        return self.run("results", job, "--format", "jsonl", *words).lines
