"""What one rendering may cost. A template that would fill the machine ends in TemplateTooLarge before it does.

Every step (a turn of a loop, a call, a filter) and every text made is paid from one budget for each row, and whatever
could make much out of little (repetition, padding, powers, replacing) is measured before it is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from itertools import islice
from typing import Any, Final

from batchops.request.values import is_null

MAX_TEXT: Final = 8_000_000
"""Characters that one value or one rendered template may have."""

MAX_WORK: Final = 48_000_000
"""Characters made while rendering one row, all values together; a step counts as STEP of them."""

STEP: Final = 128
MAX_ELEMENTS: Final = 100_000
_ELEMENT: Final = 64
MAX_BITS: Final = 8_192
MAX_SECONDS: Final = 10.0
_PARTS: Final = 64
"""Parts of a text that are paid together: each is in memory already, and making it was paid for itself."""


class TemplateTooLarge(Exception):
    """A rendering went beyond its budget; the text says which part."""


class Budget:
    """The budget of the rendering in progress. `reset` before each row; one rendering at a time."""

    __slots__ = ("_clock", "_deadline", "_ticks", "left")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        self.left = MAX_WORK
        self._ticks = 0
        self._deadline: float | None = None

    def spend(self, characters: int) -> None:
        """Pay for a step that made so many characters."""
        self.left -= characters + STEP
        if self.left < 0:
            raise TemplateTooLarge("it takes too many steps or makes too much text")
        self._ticks += 1
        if self._ticks & 255 == 0:
            self._watch_time()

    def _watch_time(self) -> None:
        # A step is bounded by MAX_TEXT, but a million of the dearest steps would still take minutes.
        now = self._clock()
        if self._deadline is None:
            self._deadline = now + MAX_SECONDS
        elif now > self._deadline:
            raise TemplateTooLarge(f"it takes longer than {MAX_SECONDS:.0f} seconds")

    def made(self, value: Any) -> Any:
        """Pay for a value that was made, all that is in it unfolded; returns it."""
        self.spend(size_of(value))
        return value

    def each(self, values: Iterable[Any]) -> Iterator[Any]:
        """The values, each turn paid."""
        for value in values:
            self.spend(0)
            yield value

    def joined(self, parts: Iterable[str]) -> str:
        """The parts as one text, paid as they come, a few at a time."""
        coming, kept, length = iter(parts), list[str](), 0
        while some := list(islice(coming, _PARTS)):
            size = sum(map(len, some))
            self.spend(size + STEP * (len(some) - 1))
            length += size
            limit(length)
            kept += some
        return "".join(kept)


def limit(characters: float) -> None:
    """Refuse a text of so many characters if that is too many."""
    if characters > MAX_TEXT:
        raise TemplateTooLarge(f"it makes a text of more than {MAX_TEXT:,} characters")


def limit_elements(count: float) -> None:
    """Refuse a list of so many elements if that is too many."""
    if count > MAX_ELEMENTS:
        raise TemplateTooLarge(f"it makes a list of more than {MAX_ELEMENTS:,} elements")


def size_of(value: Any) -> int:
    """Characters in a value, each element counted as often as it would be printed; refuses what is too large."""
    if isinstance(value, str):
        size = len(value)
        limit(size)
        return size
    if is_null(value) or not isinstance(value, (list, tuple, Mapping)):
        return 8
    if isinstance(value, list) and all(type(part) is str for part in value):  # what `split` makes
        size = sum(map(len, value)) + len(value) * _ELEMENT
        limit(size)
        return size
    size = 0
    stack: list[Any] = [value]
    while stack:
        part = stack.pop()
        size += len(part) + _ELEMENT if isinstance(part, str) and not is_null(part) else _ELEMENT
        limit(size)
        if isinstance(part, Mapping):
            stack.extend(part)
            stack.extend(part.values())
        elif isinstance(part, (list, tuple)):
            limit(size + len(part))
            stack.extend(part)
    return size


# --- operators


def check_times(left: Any, right: Any) -> None:
    """`*`: repetition of text and lists, and whole numbers that grow."""
    for repeated, count in ((left, right), (right, left)):
        if isinstance(repeated, (str, list, tuple)) and isinstance(count, int):
            limit(len(repeated) * max(count, 0))
            return
    if isinstance(left, int) and isinstance(right, int):
        _limit_bits(left.bit_length() + right.bit_length())


def check_power(left: Any, right: Any) -> None:
    """`**`: whole numbers and decimals that grow."""
    if isinstance(left, int) and isinstance(right, int):
        _limit_bits(left.bit_length() * max(right, 0))
    elif isinstance(left, Decimal) and isinstance(right, (int, Decimal)):
        _limit_bits(abs(Decimal(right)))


def _limit_bits(bits: float | Decimal) -> None:
    if bits > MAX_BITS:
        raise TemplateTooLarge("it makes a number of thousands of digits")


def check_plus(left: Any, right: Any) -> None:
    """`+` of texts and lists."""
    if isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)):
        limit(len(left) + len(right))
