"""Where the key and the address come from, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchops.diagnostics import BatchopsError
from batchops.providers.credentials import OPENAI_URL, Credentials, credentials
from batchops.providers.provider import ProviderContext
from batchops.settings import ProviderSettings


def given(environ: dict[str, str], **settings: Any) -> Credentials:
    made = ProviderSettings(kind="openai", **settings)
    return credentials(ProviderContext("gateway", made, Path(), environ))


def test_settings_stand_before_the_variables_of_the_sdk() -> None:
    environ = {
        "OPENAI_API_KEY": "no",
        "OPENAI_BASE_URL": "http://no",
        "OPENAI_ORG_ID": "no",
        "K": "key",
        "U": "http://u",
    }
    found = given(environ, api_key="env:K", base_url="env:U", organization="org", project="p")
    assert found == Credentials("http://u", "key", "org", "p")


def test_variables_of_the_sdk_serve_without_settings() -> None:
    environ = {
        "OPENAI_API_KEY": " key\n",
        "OPENAI_BASE_URL": "http://u",
        "OPENAI_ORG_ID": "o",
        "OPENAI_PROJECT_ID": "p",
    }
    assert given(environ) == Credentials("http://u", "key", "o", "p")


def test_empty_variables_count_as_unset() -> None:
    assert given({"OPENAI_API_KEY": "key", "OPENAI_BASE_URL": "", "OPENAI_ORG_ID": ""}) == Credentials(
        OPENAI_URL, "key"
    )


@pytest.mark.parametrize(
    ("code", "environ", "settings", "names"),
    [
        ("missing_credentials", {}, {}, "OPENAI_API_KEY"),
        ("missing_credentials", {"OPENAI_API_KEY": " "}, {}, "OPENAI_API_KEY"),
        ("missing_credentials", {}, {"base_url": "http://127.0.0.1:1/v1"}, "any text will do"),
        ("missing_credentials", {"OPENAI_API_KEY": "k"}, {"api_key": "env:OTHER"}, "OTHER"),
        ("invalid_credentials", {"OPENAI_API_KEY": "sk-canary ü"}, {}, "OPENAI_API_KEY"),
        ("invalid_credentials", {"OPENAI_API_KEY": "sk-canary\nx"}, {}, "OPENAI_API_KEY"),
        (
            "invalid_base_url",
            {"OPENAI_API_KEY": "k", "U": "api.example.com/v1"},
            {"base_url": "env:U"},
            "api.example.com",
        ),
        ("invalid_base_url", {"OPENAI_API_KEY": "k", "U": "ftp://x"}, {"base_url": "env:U"}, "ftp"),
        ("invalid_base_url", {"OPENAI_API_KEY": "k", "U": "http://x:99999"}, {"base_url": "env:U"}, "99999"),
        ("unset_variable", {"OPENAI_API_KEY": "k"}, {"base_url": "env:GATEWAY"}, "GATEWAY"),
    ],
)
def test_unusable_credentials_are_refused_without_showing_them(
    code: str, environ: dict[str, str], settings: dict[str, str], names: str
) -> None:
    with pytest.raises(BatchopsError) as caught:
        given(environ, **settings)
    (found,) = caught.value.diagnostics
    assert found.code == code
    assert names in found.detail
    assert "sk-canary" not in str(found)


def test_key_is_not_in_the_text_of_credentials() -> None:
    assert "sk-canary" not in repr(Credentials("http://u", "sk-canary"))


@pytest.mark.parametrize(
    ("url", "expected"),
    [("http://127.0.0.1:8/v1", True), ("http://[::1]/v1", True), ("http://localhost/v1", True), (OPENAI_URL, False)],
)
def test_service_on_this_machine_is_known_by_its_address(url: str, expected: bool) -> None:
    assert Credentials(url, "k").is_loopback is expected


def test_azure_is_found_by_its_own_variables_and_has_no_address_of_its_own() -> None:
    environ = {
        "AZURE_OPENAI_ENDPOINT": "https://r.openai.azure.com",
        "AZURE_OPENAI_API_KEY": "az",
        "OPENAI_API_KEY": "no",
    }
    found = credentials(ProviderContext("azure", ProviderSettings(kind="azure"), Path(), environ))
    assert (found.base_url, found.api_key) == ("https://r.openai.azure.com", "az")
    with pytest.raises(BatchopsError, match="Unusable base URL"):
        credentials(ProviderContext("azure", ProviderSettings(kind="azure"), Path(), {"AZURE_OPENAI_API_KEY": "az"}))
