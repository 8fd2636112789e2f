"""Names of what a process has open, such as /dev/stdout and /dev/fd/3: no place to put a file at.

They lead to a file that somebody else named, where it was sent there, and a file in its place would be another one.
"""

from __future__ import annotations

import os
import re
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
