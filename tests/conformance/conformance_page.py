"""docs/conformance.md: the table of what the suite saw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Final

from behaviour import Behaviour
from ogx_differences import DIFFERENCES
from suite import BEHAVIOURS

PAGE: Final = Path(__file__).parents[2] / "docs" / "conformance.md"
Seen = Mapping[str, Mapping[str, str]]
"""By server (`batchops`, `ogx`) and name of a behaviour: `yes`, or what differs."""

HEAD = """\
# Conformance

The same suite is run over `batchops serve` and over OGX (`ogx` on PyPI), a server that others wrote: through the OpenAI
SDK over HTTP, and past it where it hides something. Both forward to one real-time endpoint, which answers, refuses or
holds requests as the suite wants and counts what it was asked. Each behaviour is compared as a whole value with what
the service does; where OGX differs, with what it is known to do instead, so that a change there fails the run. Over OGX
a project of batchops is planned, applied and read back too, with chat completions and embeddings.

The column *OpenAI* is what its OpenAPI text, its guide and recorded replies say (2026-11); no key was at hand. What is
marked * no source shows: there the likeliest stands, in words like those that are known.

Webhooks are not in the table: OGX 1.5.0 has none that could be compared. Those of `batchops serve` are held to the
OpenAI SDK, which checks their signature and reads them (`client.webhooks.unwrap`).
"""


def render(seen: Seen, *, date: str, versions: Mapping[str, str]) -> str:
    """The page. Every behaviour must have been seen over both servers: KeyError."""
    listed = ", ".join(f"{name} {number}" for name, number in versions.items())
    tables = [
        f"## {group}\n\n| | OpenAI | batchops | OGX |\n|---|---|---|---|\n{_rows(members, seen)}"
        for group, members in groupby(BEHAVIOURS, key=lambda behaviour: behaviour.group)
    ]
    alike = sum(says == "yes" for says in seen["ogx"].values())
    count = (
        f"{len(BEHAVIOURS)} behaviours; OGX shows {alike} of them as OpenAI does, and differs in {len(DIFFERENCES)}."
    )
    return "\n".join([HEAD, f"Written by `make conformance` on {date}: {listed}.\n\n{count}\n", *tables])


def _rows(members: Iterable[Behaviour], seen: Seen) -> str:
    return "".join(
        f"| {one.title} | {one.says} | {seen['batchops'][one.name]} | {seen['ogx'][one.name]} |\n" for one in members
    )
