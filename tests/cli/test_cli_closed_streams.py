"""Commands begun with closed streams: they do what they do, and nothing that is printed gets into a file of theirs."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest
from cli_process import batchops, command, environ, make_project


def ended(root: Path, closed: str, *words: str) -> int:
    """The exit code of a command, begun by a shell that closed these streams."""
    line = f"{shlex.join(command(*words))} {closed}"
    return subprocess.run(["sh", "-c", line], cwd=root, env=environ(), capture_output=True, check=False).returncode


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_command_whose_streams_were_closed_does_its_work_and_leaves_a_sound_state(
    tmp_path: Path, closed: str
) -> None:
    root = make_project(tmp_path / "p")
    assert ended(root, closed, "apply", "--auto-approve", "--wait") == 0
    assert ended(root, closed, "--help") == 0
    assert ended(root, closed, "results", "labels") == 0
    assert ended(root, closed, "validate", "--no-such-option") == 64
    found = json.loads(batchops(root, "plan", "--json").stdout)
    assert found["summary"]["rows"]["unchanged"] == 3
    assert batchops(root, "doctor").returncode == 0


def test_a_text_that_cannot_be_printed_is_no_trouble_where_nobody_reads_it(tmp_path: Path) -> None:
    assert ended(tmp_path, ">&- 2>&-", "n\udcffo") == 64
