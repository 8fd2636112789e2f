"""The example with a real model, without its packages: another server of ours answers in the model's place.

What needs the packages is `make example-local-model`, which installs them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

EXAMPLE = Path(__file__).parents[2] / "examples" / "local-model"
PAGE = Path(__file__).parents[2] / "docs" / "server.md"
ROWS = 60


@contextmanager
def model_stand_in(folder: Path) -> Iterator[str]:
    """A real-time endpoint that simulates; its base URL."""
    command = [sys.executable, "-m", "batchops", "serve", "--port", "0", "--data", str(folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield process.stderr.readline().split()[-1]
        finally:
            process.terminate()


def test_script_takes_every_row_through_the_server_to_the_model_and_back(tmp_path: Path) -> None:
    project = shutil.copytree(EXAMPLE, tmp_path / "project", ignore=shutil.ignore_patterns("state", ".venv"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with model_stand_in(tmp_path / "model") as url:
        environ = {**os.environ, "PATH": path, "MODEL_URL": url}
        done = subprocess.run(["bash", "run.sh"], cwd=project, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        with urlopen(url.replace("/v1", "/_batchops/ledger")) as ledger:
            calls = json.load(ledger)["calls"]
    assert calls["POST /v1/chat/completions"] == ROWS
    assert f"Answered: {ROWS} rows." in done.stderr + done.stdout
    assert re.search(rf"^all of them +{ROWS} ", done.stdout, re.MULTILINE)


def test_commands_to_copy_are_those_of_the_script() -> None:
    script, readme = (EXAMPLE / "run.sh").read_text("utf-8"), (EXAMPLE / "README.md").read_text("utf-8")
    for command in ("--no-deps -r requirements.txt", "model_server.py", "--upstream-concurrency 2", "- < marks.sql"):
        assert command in script
        assert command in readme
    variables = {"BATCHOPS_ENV", "BATCH_API", "BATCH_API_KEY", "MODEL_URL"}
    assert [name for name in sorted(variables) if f"{name}=" not in script or f"{name}=" not in readme] == []


def test_page_shows_what_the_example_prints() -> None:
    page = PAGE.read_text("utf-8")
    shown = page[page.index("### A real model") :]
    assert f"Answered: {ROWS} rows." in shown
    for written in ("batchops query - < marks.sql", "in_the_catalogue", "smollm2-135m-instruct"):
        assert written in shown
