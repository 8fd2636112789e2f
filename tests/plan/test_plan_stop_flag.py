"""The flag by which an apply is asked to stop."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

from batchops.plan.events import StopFlag


def test_waiting_ends_at_once_when_somebody_asks_to_stop_and_stays_ended() -> None:
    stop = StopFlag()
    assert stop.wait(0) is False
    threading.Timer(0.05, stop.request).start()
    assert stop.wait(60) is True
    assert stop.wait(60) is True
    assert stop.is_requested


def test_every_waiting_thread_is_woken() -> None:
    stop = StopFlag()
    woken: list[bool] = []
    threads = [threading.Thread(target=lambda: woken.append(stop.wait(60))) for _ in range(4)]
    for thread in threads:
        thread.start()
    stop.request()
    stop.request()
    for thread in threads:
        thread.join(30)
    assert woken == [True] * 4


def test_a_signal_handler_may_ask_while_its_own_thread_waits() -> None:
    stop = StopFlag()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.request()

    before = signal.signal(signal.SIGUSR1, ask)
    try:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        assert stop.wait(60) is True
    finally:
        signal.signal(signal.SIGUSR1, before)
