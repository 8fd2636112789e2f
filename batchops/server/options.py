"""What a server is told when it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MIB = 1024 * 1024
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Limits:
    """Sizes and counts the service enforces (batch guide, files and batches reference, 2026-08)."""

    upload_bytes: int = 512 * 10**6
    batch_bytes: int = 209_715_200
    batch_requests: int = 50_000
    embedding_inputs: int = 50_000
    storage_bytes: int = 2_500_000_000_000
    json_body_bytes: int = 1 * MIB
    uploads_per_minute: int = 1_000
    batches_per_hour: int = 2_000
    """The last two count only when `ServerOptions.rate_limits` says so."""


@dataclass(frozen=True)
class ServerOptions:
    """How a server answers and what it allows. Secrets are values here: the caller has looked up its references."""

    seed: int = 0
    answers: str = "simulated"
    """`simulated`, or `module:function` called as `function(body, url)`."""
    upstream: str | None = None
    """Base URL of a real-time OpenAI-compatible endpoint; it takes the place of `answers`."""
    upstream_key: str | None = field(default=None, repr=False)
    upstream_concurrency: int = 8
    upstream_timeout_seconds: float = 600.0
    upstream_attempts: int = 6
    upstream_patience_seconds: float = 3600.0
    """For how long a line that is answered with 429 is asked again; a 429 is no failed attempt."""
    keys: tuple[str, ...] = field(default=(), repr=False)
    """Bearer keys; each sees its own files and batches. Empty: no key is asked for."""
    faults: str | None = None
    """Path of a fault plan."""
    enqueued_tokens: Mapping[str, int] = field(default_factory=dict)
    """Most prompt tokens in unfinished batches, by model; `*` is for any other model."""
    rate_limits: bool = False
    """Answer 429 to more uploads a minute and batches an hour than the service allows; each key has its own count."""
    models: frozenset[str] = frozenset()
    """The models the Batch API knows; empty: all."""
    webhook_url: str | None = None
    webhook_secret: str | None = field(default=None, repr=False)
    organization: str = "org-batchops"
    limits: Limits = Limits()
    profile: str = "openai"
    """The service to behave like; a name of `modes.MODES`."""
