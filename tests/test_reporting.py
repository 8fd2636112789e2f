"""The count of cases of each kind at the end of a test run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

CASES = """\
import pytest
from hypothesis import given, strategies as st

def test_passes(): pass
def test_fails(): assert False
def test_is_skipped(): pytest.skip("because")

@given(st.integers())
def test_holds_for_all(n): assert n == n
"""


def test_every_case_is_counted_once_under_its_kind_from_workers_too(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parent / "conftest.py", tmp_path)
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios" / "test_cli.py").write_text("def test_runs(): pass\n")
    (tmp_path / "test_things.py").write_text(CASES)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "1", "-p", "no:cacheprovider", str(tmp_path)]
    kits = os.pathsep.join(path for path in sys.path if path)  # where conftest.py finds the fixtures of the rooms
    environ = {**os.environ, "PYTHONPATH": kits}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)

    summary = done.stdout.split("cases of each kind")[1]
    counts = [text.split("   (")[0].split(maxsplit=1) for text in summary.splitlines()[1:4]]
    assert [(kind, " ".join(outcomes.split())) for kind, outcomes in counts] == [
        ("property", "1 passed"),
        ("scenario", "1 passed"),
        ("unit", "1 passed, 1 failed, 1 skipped"),
    ]
