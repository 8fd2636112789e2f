"""docs/conformance.md is what `make conformance` would write, but for its date."""

from __future__ import annotations

import re

from conformance_page import PAGE, render
from ogx_differences import VERSION, says_of_ogx
from suite import BEHAVIOURS

from batchops import __version__


def test_the_page_has_exactly_the_behaviours_and_what_is_known_of_them() -> None:
    page = PAGE.read_text(encoding="utf-8")
    [(date, batchops, ogx, sdk)] = re.findall(r"on (\S+): batchops (\S+), OGX (\S+), the OpenAI SDK (\S+)\.\n", page)
    seen = {
        "batchops": {behaviour.name: "yes" for behaviour in BEHAVIOURS},
        "ogx": {behaviour.name: says_of_ogx(behaviour) for behaviour in BEHAVIOURS},
    }
    versions = {"batchops": batchops, "OGX": ogx, "the OpenAI SDK": sdk}
    assert page == render(seen, date=date, versions=versions), "run `make conformance`"
    assert (batchops, ogx) == (__version__, VERSION), "run `make conformance`"
