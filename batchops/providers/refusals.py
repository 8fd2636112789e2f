"""What a reply that is no answer means: HTTP status, error code and headers → the port's exceptions. Pure, no SDK.

A *definite no* (ProviderRefusal) may be acted upon; everything else is Uncertain: it may have been carried out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

from batchops.providers.provider import (
    Denied,
    Missing,
    ProviderError,
    ProviderRefusal,
    QuotaExhausted,
    Throttled,
    Uncertain,
)

QUOTA_CODES: Final = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "credit_balance_exhausted",
        "organization_usage_limit_exceeded",
    }
)
TOKEN_LIMIT_CODES: Final = frozenset({"token_limit_exceeded", "batch_enqueued_token_limit"})
_MOVED: Final = frozenset({301, 307, 308})  # "ask elsewhere": not done. 302 and 303 may follow a deed
_MAX_MESSAGE: Final = 400
BASE_URL_HINT: Final = "Look at base_url: it ends with the version, as in https://api.openai.com/v1."
"""What to do when whoever answers does not seem to be the service."""


def is_quota_code(code: str | None) -> bool:
    """Whether an error code says that money is out, which waiting does not cure."""
    return code is not None and (code in QUOTA_CODES or code.endswith("_spend_limit_exceeded"))


def kind_of(status: int, code: str | None) -> type[ProviderError]:
    """4xx except 408 and 409 is a definite no; 5xx and odd ones may have been carried out."""
    if 400 <= status < 500 and (is_quota_code(code) or status == 402):
        return QuotaExhausted
    if status == 429 or (status == 400 and code in TOKEN_LIMIT_CODES):
        return Throttled
    if status in _MOVED:
        return ProviderRefusal
    if status in {408, 409} or not 400 <= status < 500:
        return Uncertain
    return {401: Denied, 403: Denied, 404: Missing}.get(status, ProviderRefusal)


def refusal(status: int, body: object, headers: Mapping[str, str], *, secret: str, now: float) -> ProviderError:
    """The exception for a reply with an error status. `body` is its JSON; `secret` never gets into the message."""
    code, text = error_in(body)
    if status in _MOVED:
        text = f"the service has moved to {headers.get('location', 'another address')}; write that as base_url"
    elif status in {404, 405} and not text:
        text = f"no error in JSON. {BASE_URL_HINT}"
    return kind_of(status, code)(
        f"HTTP {status}: {_sentence(text, secret)}",
        status=status,
        code=code,
        retry_after_seconds=retry_after_seconds(headers, now),
    )


def _sentence(text: str, secret: str) -> str:
    """On one line, without the secret, not too long, and with a full stop."""
    flat = re.sub(r"\s+", " ", text.replace(secret, "***") if secret else text).strip() or "no error in JSON"
    cut = flat if len(flat) <= _MAX_MESSAGE else f"{flat[:_MAX_MESSAGE]}…"
    return cut if cut[-1] in ".!?…" else f"{cut}."


def error_in(body: object) -> tuple[str | None, str]:
    """The code and the sentence of an error body, `{"error": {…}}` or flat; nothing of an HTML page."""
    if not isinstance(body, Mapping):
        return None, ""
    inner = body.get("error")
    if isinstance(inner, Mapping):
        return error_in(inner)
    code = body.get("code") or body.get("type")
    message: Any = body.get("message") or body.get("detail") or inner
    return str(code) if code else None, message if isinstance(message, str) else ""


def retry_after_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """The wait a reply asks for: `retry-after-ms`, or Retry-After as seconds or a date. `now` is epoch seconds."""
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        else:
            seconds = _seconds(headers.get("retry-after", ""), now)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _seconds(text: str, now: float) -> float:
    try:
        return float(text)
    except ValueError:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
