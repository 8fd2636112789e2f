"""Who answers the lines of a batch, and how many at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any, Protocol, TypeVar

from batchops.server.clock import Clock
from batchops.server.lines import Reply
from batchops.server.options import ServerOptions
from batchops.server.wire import error_object

L = TypeVar("L")
R = TypeVar("R")
Stop = Callable[[], bool]
"""Whether nobody wants the answer any more."""


def never() -> bool:
    return False


class Abandoned(Exception):
    """There will be no answer: the server is being closed, or the batch is to end before its lines do."""


class Answerer(Protocol):
    """Answers one request. Thread-safe."""

    @property
    def concurrency(self) -> int:
        """How many requests of a batch may be under way at once."""

    @property
    def is_costly(self) -> bool:
        """Each answer is recorded the moment it is there, so that a kill never asks for it again."""

    def answer(self, url: str, body: dict[str, Any], *, stop: Stop = never) -> Reply:
        """The HTTP answer. What goes wrong on the way is an answer too, but no try begins after `stop`.

        Raises Abandoned.
        """

    def close(self) -> None:
        """Let go of connections; a request under way may fail."""


def server_error(message: str, *, status: int = 500, code: str = "server_error") -> Reply:
    return Reply(status, error_object(message, kind="server_error", code=code))


def make_answerer(options: ServerOptions, clock: Clock) -> Answerer:
    """The answerer the options ask for; its module is loaded only then."""
    if options.upstream is not None:
        from batchops.server.upstream import Upstream  # noqa: PLC0415

        return Upstream(
            options.upstream,
            key=options.upstream_key,
            concurrency=options.upstream_concurrency,
            timeout_seconds=options.upstream_timeout_seconds,
            attempts=options.upstream_attempts,
            patience_seconds=options.upstream_patience_seconds,
        )
    if options.answers != "simulated":
        from batchops.server.function import load_function  # noqa: PLC0415

        return load_function(options.answers, clock)
    from batchops.server.answers import Simulated  # noqa: PLC0415

    return Simulated(seed=options.seed, clock=clock)


def answer_many(lines: Iterable[L], answer: Callable[[L], R], *, concurrency: int, stop: Stop) -> Iterator[tuple[L, R]]:
    """Answer lines, at most `concurrency` at a time, yielding each as it is there. After `stop` no new one begins."""
    if concurrency <= 1:
        for line in lines:
            if stop():
                return
            yield line, answer(line)
        return
    with ThreadPoolExecutor(concurrency, thread_name_prefix="batchops-line") as pool:
        yield from _windowed(iter(lines), answer, pool, concurrency, stop)


def _windowed(
    lines: Iterator[L],
    answer: Callable[[L], R],
    pool: ThreadPoolExecutor,
    concurrency: int,
    stop: Stop,
) -> Iterator[tuple[L, R]]:
    under_way: dict[Future[R], L] = {}
    while True:
        room = 0 if stop() else concurrency - len(under_way)
        under_way.update((pool.submit(answer, line), line) for line in islice(lines, room))
        if not under_way:
            return
        done, _ = wait(under_way, return_when=FIRST_COMPLETED)
        for future in done:
            yield under_way.pop(future), future.result()
