"""The command line inside the test's own process: the same code as a process of its own, without its start-up."""

from __future__ import annotations

import contextlib
import io
import os
from dataclasses import dataclass
from unittest import mock

from workshop import Ran, Workshop

from batchops.cli import main


@dataclass
class Desk(Workshop):
    """A workshop whose commands run here."""

    def run(self, *words: str, code: int | None = 0, timeout: float = 120) -> Ran:
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        with (
            mock.patch.dict(os.environ, self.environ | {"NO_COLOR": "1", "COLUMNS": "120"}),
            contextlib.chdir(self.root),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            ended = main.run(words)
        ran = Ran(ended, *(stream.buffer.getvalue().decode() for stream in (out, err)))
        assert code is None or ran.code == code, f"exit {ran.code}, not {code}\n{ran.out}\n{ran.err}"
        return ran
