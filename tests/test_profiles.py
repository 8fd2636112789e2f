"""What is known of each service, and how a provider gets the profile of its own."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from batchops.profiles import CHAT, EMBEDDINGS, PROFILES, guess, profile_of
from batchops.settings import ProviderSettings
from batchops.settings.model import ProfileName


def chosen(environ: dict[str, str] | None = None, **settings: Any) -> str:
    return profile_of(ProviderSettings(**{"kind": "openai", **settings}), environ or {}).name


def test_every_profile_can_be_named_in_the_settings_and_no_other() -> None:
    assert set(get_args(ProfileName)) == set(PROFILES)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://my-resource.openai.azure.com/openai/v1/", "azure"),
        ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "dashscope"),
        ("https://api.tokenfactory.eu-west1.nebius.com/v1", "nebius"),
        ("https://api.moonshot.cn/v1", "moonshot"),
        ("https://api.doubleword.ai/v1", "doubleword"),
        ("https://api.parasail.io/v1", "parasail"),
        ("https://api.groq.com.example/v1", "openai"),
        ("http://127.0.0.1:8321/v1", "openai"),
        ("http://[", "openai"),
    ],
)
def test_the_host_of_a_base_url_tells_the_service(url: str, name: str) -> None:
    assert guess(url) == name


def test_what_is_written_stands_before_what_is_guessed_and_variables_are_looked_up() -> None:
    groq = "https://api.groq.com/openai/v1"
    assert chosen(base_url=groq, profile="litellm") == "litellm"
    assert chosen({"OPENAI_BASE_URL": groq}) == "groq"
    assert chosen({"GATEWAY": groq, "OPENAI_BASE_URL": "http://127.0.0.1/v1"}, base_url="env:GATEWAY") == "groq"
    assert chosen({}, base_url="env:GATEWAY") == "openai"
    assert chosen({"OPENAI_BASE_URL": groq}, kind="azure") == "azure"
    assert chosen({"OPENAI_BASE_URL": groq}, kind="local") == "openai"


def test_settings_stand_before_the_limits_of_a_profile() -> None:
    found = profile_of(ProviderSettings(kind="openai", profile="nebius", max_bytes="1MB"), {})
    assert (found.max_requests, found.max_bytes) == (5_000_000, 1_000_000)


@pytest.mark.parametrize(
    ("name", "offered", "refused"),
    [
        ("openai", ["24h"], ["1h", "48h", "1d", "soon"]),
        ("groq", ["24h", "36h", "1d", "7d", "168h"], ["23h", "8d"]),
        ("dashscope", ["24h", "14d", "336h"], ["337h"]),
        ("moonshot", ["12h", "1d", "7d"], ["11h", "8d"]),
        ("doubleword", ["1h", "24h"], ["2h"]),
    ],
)
def test_windows_are_offered_as_the_service_documents_them(name: str, offered: list[str], refused: list[str]) -> None:
    profile = PROFILES[name]
    assert [window for window in [*offered, *refused] if profile.offers_window(window)] == offered


def test_only_the_classic_surface_of_azure_has_paths_of_its_own_and_they_lead_back() -> None:
    classic = profile_of(ProviderSettings(kind="azure", base_url="https://r.openai.azure.com"), {})
    newer = profile_of(ProviderSettings(kind="azure", base_url="https://r.openai.azure.com/openai/v1"), {})
    assert [classic.path(endpoint, "d") for endpoint in (CHAT, EMBEDDINGS)] == ["/chat/completions", "/embeddings"]
    assert [classic.endpoint(path) for path in ("/chat/completions", "/v1/responses")] == [CHAT, "/v1/responses"]
    assert newer.path(CHAT, "d") == CHAT


def test_the_free_model_of_dashscope_has_a_path_of_its_own() -> None:
    profile = PROFILES["dashscope"]
    assert profile.path(CHAT, "batch-test-model") == "/v1/chat/ds-test"
    assert profile.path(CHAT, "qwen-plus") == CHAT
    assert profile.endpoint("/v1/chat/ds-test") == CHAT
