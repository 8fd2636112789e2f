"""The canonical body and its digest: everything that can change an answer, and nothing else.

A digest is the first 128 bits of SHA-256 over a framed text. The framing is part of what is recorded in state: a change
here needs a new DIGEST_VERSION, and recorded digests are compared under the version that made them.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from typing import Final

from batchops.request.values import canonical_json, literal

DIGEST_VERSION: Final = 1


def canonical(body: object) -> bytes:
    """The one text of a body; see `values.canonical_json`."""
    return canonical_json(body)


def frame(url: str, model: str) -> str:
    """What stands before the canonical body in the hashed text. The model's length keeps the parts apart."""
    return f"batchops {DIGEST_VERSION}\n{url}\n{len(model.encode())}:{model}\n"


def digest(url: str, model: str, canonical_body: bytes) -> uuid.UUID:
    """The digest of a request: url, model and canonical body."""
    return _first_half(hashlib.sha256(frame(url, model).encode() + canonical_body))


def hasher(url: str, model: str) -> Callable[[bytes], str]:
    """`digest` for many bodies of one url and model, as 32 hexadecimal digits."""
    framed = hashlib.sha256(frame(url, model).encode())

    def hashed(canonical_body: bytes) -> str:
        each = framed.copy()
        each.update(canonical_body)
        return each.hexdigest()[:32]

    return hashed


def digest_sql(url: str, model: str, body: str) -> str:
    """`digest` as an SQL expression over `body`, an expression for the canonical text."""
    return _first_half_sql(f"concat({literal(frame(url, model))}, {body})")


_SALT = f"batchops {DIGEST_VERSION} salt\n"


def salted(digest: uuid.UUID, *parts: str) -> uuid.UUID:
    """Another digest for the same request, kept apart by `parts`: equal only for equal digest and parts."""
    framed = "".join(f"{len(part.encode())}:{part}" for part in parts)
    return _first_half(hashlib.sha256(f"{_SALT}{digest}\n{framed}".encode()))


def salted_sql(digest: str, *parts: str) -> str:
    """`salted` as an SQL expression; `digest` and `parts` are expressions."""
    framed = "".join(f", strlen({part}), ':', {part}" for part in parts)
    return _first_half_sql(f"concat({literal(_SALT)}, {digest}, chr(10){framed})")


def _first_half(hashed: hashlib._Hash) -> uuid.UUID:
    return uuid.UUID(bytes=hashed.digest()[:16])


def _first_half_sql(text: str) -> str:
    return f"CAST(substr(sha256({text}), 1, 32) AS UUID)"
