"""A plan → the JSON document that `plan --json` and `show --json` print."""

from __future__ import annotations

import json

from batchops.plan.document import plan_document, plan_from_document
from batchops.plan.model import Plan

__all__ = ["plan_document", "plan_from_document", "render_plan_json"]


def render_plan_json(plan: Plan) -> str:
    """The document, on one line."""
    return json.dumps(plan_document(plan), ensure_ascii=False, allow_nan=False, default=str)
