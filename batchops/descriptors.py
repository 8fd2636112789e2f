"""What a process was begun with: its standard streams, and names of what it has open, such as /dev/stdout.

Such names are no place to put a file at. They lead to a file that somebody else named, where the stream was sent to
one, and a file in its place would be another one.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Final

_FOLDERS: Final = re.compile(r"/dev/fd|/proc/\d+(/task/\d+)?/fd")
_MOST_LINKS: Final = 40


def is_descriptor(path: Path) -> bool:
    """Whether `path` is such a name or a link to one, whatever is open there."""
    for _ in range(_MOST_LINKS):
        if _FOLDERS.fullmatch(os.path.realpath(path.parent)):
            return True
        if not path.is_symlink():
            return False
        path = path.parent / path.readlink()
    return False


def open_standard_streams() -> None:
    """Let the streams that were closed before this process began (`>&-`) lead nowhere.

    Otherwise the next file that is opened, such as the state, would have the number of a stream, and whatever a library
    prints would go into it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in the order of their numbers
        if getattr(sys, name) is None:
            lowest = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(lowest, True)  # for the same reason, in a process of ours
            setattr(sys, name, os.fdopen(lowest, mode, encoding="utf-8", errors="backslashreplace"))  # refuses no text
