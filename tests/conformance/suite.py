"""The whole suite: every behaviour, in the order of the table."""

from __future__ import annotations

from typing import Any, Final

import behaviours_of_batches
import behaviours_of_endings
import behaviours_of_files
import behaviours_of_results
import behaviours_of_validation
from behaviour import REGISTERED, Behaviour
from subjects import Subject

GROUPS: Final = (
    behaviours_of_files.GROUP,
    behaviours_of_batches.GROUP,
    behaviours_of_validation.GROUP,
    behaviours_of_results.GROUP,
    behaviours_of_endings.GROUP,
)
BEHAVIOURS: Final = sorted(REGISTERED, key=lambda behaviour: GROUPS.index(behaviour.group))


def seen(behaviour: Behaviour, subject: Subject) -> Any:
    """What the behaviour looks like here; whatever the observation changed of the surroundings is put back."""
    try:
        return behaviour.observe(subject)
    finally:
        subject.upstream.release()
        subject.faults()
