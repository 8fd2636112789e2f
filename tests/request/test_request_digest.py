"""Digests are recorded in state: these values may never change under version 1."""

from __future__ import annotations

import hashlib
import uuid

import duckdb
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from request_parts import make_job

from batchops.request.digest import DIGEST_VERSION, canonical, digest, digest_sql, hasher, salted, salted_sql
from batchops.request.template import compile_request

CON = duckdb.connect()
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


def test_digest_of_version_1_is_what_it_always_was() -> None:
    body = canonical({"model": "gpt-5-mini", "messages": [{"role": "user", "content": "Grüße\n\u2028\x1b"}]})
    assert DIGEST_VERSION == 1
    assert (
        body
        == b'{"model":"gpt-5-mini","messages":[{"role":"user","content":"Gr\xc3\xbc\xc3\x9fe\\n\xe2\x80\xa8\\u001b"}]}'
    )
    assert digest("/v1/chat/completions", "gpt-5-mini", body) == uuid.UUID("19facc1e-67c5-caad-9dfc-2cd50bb66eed")


def test_render_id_of_version_1_is_what_it_always_was() -> None:
    request = compile_request(make_job("Hi {{ name }}", params={"seed": 1}))
    assert request.render_id == uuid.UUID("1c845957-6e50-9369-b4b1-1fe873d8005f")


def test_digest_is_half_a_sha256_over_framed_text() -> None:
    framed = b"batchops 1\n/v1/embeddings\n1:m\n{}"
    assert digest("/v1/embeddings", "m", b"{}").bytes == hashlib.sha256(framed).digest()[:16]


def test_model_and_body_cannot_be_mistaken_for_one_another() -> None:
    assert digest("u", "m\n{", b"}") != digest("u", "m", b"\n{}")


def test_salt_keeps_requests_apart_by_each_part() -> None:
    one = uuid.UUID(int=1)
    made = {salted(one), salted(one, "a"), salted(one, "a", "b"), salted(one, "ab"), salted(one, "a", ""), one}
    assert len(made) == 6
    assert salted(one, "a", "b") == salted(one, "a", "b")


@given(url=NAMES, model=NAMES, text=NAMES, parts=st.lists(NAMES, max_size=3))
def test_sql_makes_the_same_digests(url: str, model: str, text: str, parts: list[str]) -> None:
    body = orjson.dumps(text)
    marks = [f"${number + 2}" for number in range(len(parts))]
    plain = f"SELECT {digest_sql(url, model, '$1')}"
    made = CON.execute(plain, [body.decode()]).fetchone()
    assert made == (digest(url, model, body),)
    assert uuid.UUID(hasher(url, model)(body)) == made[0]
    salts = CON.execute(f"SELECT {salted_sql('$1::UUID', *marks)}", [str(made[0]), *parts]).fetchone()
    assert salts == (salted(made[0], *parts),)


@pytest.mark.parametrize("value", [{"b": 1, "a": [True, None, 1.5, "é\x7f"]}, "x", 2**63, []])
def test_canonical_form_is_what_orjson_writes(value: object) -> None:
    assert canonical(value) == orjson.dumps(value)
