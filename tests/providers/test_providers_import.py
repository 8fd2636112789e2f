"""What judging, prices and the port cost to import."""

from __future__ import annotations

import subprocess
import sys

LIGHT = "batchops.providers.provider, batchops.engine.judge, batchops.engine.retry, batchops.plan.prices"


def test_sdk_is_loaded_by_its_adapter_alone() -> None:
    code = f"import {LIGHT}, sys; print(sorted({{'openai', 'httpx2', 'duckdb'}} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
