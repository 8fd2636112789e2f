"""Runs one command and says on stdout, as JSON, what it took: `one_run.py COMMAND…`. For measuring.py.

A process of its own, and a small one: on Linux the peak memory of a process begins at that of the one it was forked
from, however small it is itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time


def main(command: list[str]) -> None:
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    scale = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    found = {
        "code": process.returncode,
        "said": said.decode(errors="replace"),
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss * scale / 1e6,
    }
    json.dump(found, sys.stdout)


main(sys.argv[1:])
