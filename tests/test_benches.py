"""The benches as whoever runs one by hand meets them: what they are for, and which sizes they take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHES = Path(__file__).parent / "bench"
SCRIPTS = sorted(path.stem for path in BENCHES.glob("*.py") if '__name__ == "__main__"' in path.read_text("utf-8"))
SIZES = {"planning": "[ROWS ...]", "scaling": "[ROWS]", "fetching": "--embeddings [ROWS ...]", "server": "[LINES]"}


def _ran(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHES / f"{script}.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_bench_says_what_it_is_for_and_refuses_what_it_does_not_know(script: str) -> None:
    helped = _ran(script, "--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    assert f"usage: {script}.py [-h]" in helped.stdout
    assert SIZES.get(script, "") in helped.stdout
    first = (BENCHES / f"{script}.py").read_text("utf-8").split()[0].lstrip('"')
    assert f"\n{first} " in helped.stdout
    refused = _ran(script, "ten", "-1")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("usage: ")
    assert "Traceback" not in refused.stderr


def test_no_bench_is_left_out() -> None:
    assert {"planning", "sending", "fetching", "keeping", "server", "reliability", "startup"} <= set(SCRIPTS)


LARGE = """
import sys
from pathlib import Path
from measuring import measure
held = b"x" * 200_000_000
few, many = (measure([sys.executable, "-c", f"b'x' * {size}"], Path()) for size in (1, 100_000_000))
assert few.peak_mb < 50, few
assert 100 < many.peak_mb < 150, many
"""


def test_a_command_is_measured_alone_however_much_memory_its_bench_has() -> None:
    command = [sys.executable, "-c", LARGE]
    ended = subprocess.run(command, cwd=BENCHES, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_what_failed_is_told_with_what_it_said() -> None:
    failing = (
        "import sys, measuring, pathlib; measuring.measure([sys.executable, '-c', 'exit(\"no\")'], pathlib.Path())"
    )
    command = [sys.executable, "-c", failing]
    ended = subprocess.run(command, cwd=BENCHES, capture_output=True, text=True, check=False, timeout=60)
    assert ended.stderr.endswith("exited 1: no\n\n")


def test_every_line_is_held_against_the_floor_and_the_script() -> None:
    telling = """
from measuring import HEADING, Against, Measured
print(HEADING)
Against(Measured(2, 3, 100), Measured(8, 8, 900), 1_000_000).tell("ours", Measured(4, 6, 300))
Against(Measured(2, 3, 100)).tell("no rows", Measured(1, 1.5, 50))
"""
    ended = subprocess.run([sys.executable, "-c", telling], cwd=BENCHES, capture_output=True, text=True, check=True)
    heading, ours, no_rows = ended.stdout.splitlines()
    columns = (" ".join(line.split()) for line in (heading, ours, no_rows))
    assert list(columns) == [
        "rows/s seconds × floor × script work × floor peak",
        "ours 250,000 4.00 s 2.00 × 0.50 × 6.00 s 2.00 × 300 MB",
        "no rows - 1.00 s 0.50 × - 1.50 s 0.50 × 50 MB",
    ]
    assert len(heading) == len(ours) == len(no_rows)


def test_the_whole_path_is_measured_beside_the_script() -> None:
    ended = _ran("whole", "300")
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = [line for line in ended.stdout.splitlines() if ": whole" in line]
    assert [line.partition(",")[0] for line in lines] == ["a script", "batchops"]
    assert all(line.endswith(" MB") and line.count("×") == 1 for line in lines)
