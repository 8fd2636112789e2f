"""Settings: which source wins, where each value came from, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from batchops.diagnostics import BatchopsError, Diagnostic, ExitCode, UsageProblem
from batchops.settings import ProviderSettings, Settings, find_root, load_settings
from batchops.settings.model import dotted, leaves, names_at


def project(root: Path, toml: str = "", **files: str) -> Path:
    root.mkdir(exist_ok=True)
    (root / "batchops.toml").write_text(toml)
    for name, text in files.items():
        (root / name).write_text(text)
    return root


def problems(root: Path, env: str | None = None, **environ: str) -> list[Diagnostic]:
    with pytest.raises(BatchopsError) as caught:
        load_settings(root, environ=environ, env=env)
    return list(caught.value.diagnostics)


def place(found: Diagnostic) -> tuple[str, int, int] | None:
    if found.location is None:
        return None
    return found.location.filename, found.location.start.line, found.location.start.column


def test_a_project_without_settings_uses_openai_and_the_name_of_its_folder(tmp_path: Path) -> None:
    root = tmp_path / "reviews"
    (root / "jobs").mkdir(parents=True)
    loaded = load_settings(root, environ={})
    assert loaded.settings.project == "reviews"
    assert loaded.settings.provider == "openai"
    assert loaded.settings.providers["openai"].kind == "openai"
    assert loaded.settings.providers["local"].kind == "local"
    assert set(loaded.origins.values()) == {"default"}
    assert loaded.environment == "default"


def test_flags_beat_variables_beat_dotenv_beat_the_file_beat_defaults(tmp_path: Path) -> None:
    root = project(tmp_path, "[poll]\ninitial = '4s'\n")
    assert load_settings(root, environ={}).settings.poll.initial == timedelta(seconds=4)
    (root / ".env").write_text("BATCHOPS_POLL__INITIAL=3s\n")
    assert load_settings(root, environ={}).settings.poll.initial == timedelta(seconds=3)
    environ = {"BATCHOPS_POLL__INITIAL": "2s"}
    assert load_settings(root, environ=environ).settings.poll.initial == timedelta(seconds=2)
    flagged = load_settings(root, environ=environ, flags={"poll.initial": "1s"})
    assert flagged.settings.poll.initial == timedelta(seconds=1)


def test_every_setting_says_where_it_came_from(tmp_path: Path) -> None:
    toml = 'project = "p"\n[poll]\ninitial = "4s"\n[providers.openai.models."gpt-4.1"]\nmax_enqueued_tokens = "2M"\n'
    root = project(tmp_path, toml)
    (root / ".env").write_text("BATCHOPS_SUBMIT__PARALLEL_UPLOADS=2\n")
    loaded = load_settings(root, environ={"BATCHOPS_POLL__MAX": "9s"}, flags={"budget.max_cost_usd": 5})
    origins = {key: origin for key, origin in loaded.origins.items() if origin != "default"}
    assert origins == {
        "project": "batchops.toml:1",
        "poll.initial": "batchops.toml:3",
        'providers.openai.models."gpt-4.1".max_enqueued_tokens': "batchops.toml:5",
        "submit.parallel_uploads": ".env",
        "poll.max": "BATCHOPS_POLL__MAX",
        "budget.max_cost_usd": "--max-cost-usd",
    }
    assert set(loaded.origins) == {dotted(path) for path, _ in leaves(loaded.settings)}


def test_pyproject_holds_the_same_keys_under_tool_batchops(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[[tool.other]]\nname = "x"\n[tool.batchops]\nproject = "p"\n[tool.batchops.poll]\nmax = "5s"\n'
    )
    loaded = load_settings(tmp_path, environ={})
    assert loaded.settings.project == "p"
    assert loaded.settings.poll.max == timedelta(seconds=5)
    assert loaded.origins["project"] == "pyproject.toml:4"
    assert loaded.origins["poll.max"] == "pyproject.toml:6"


def test_settings_in_two_files_are_refused(tmp_path: Path) -> None:
    root = project(tmp_path, 'project = "a"\n', **{"pyproject.toml": '[tool.batchops]\nproject = "b"\n'})
    assert [found.code for found in problems(root)] == ["two_settings_files"]


def test_dotenv_feeds_credentials_and_the_process_environment_wins(tmp_path: Path) -> None:
    root = project(tmp_path, **{".env": "OPENAI_API_KEY=from-file\nOTHER='a$b ${HOME}'\n"})
    assert load_settings(root, environ={}).environ["OPENAI_API_KEY"] == "from-file"
    assert load_settings(root, environ={"OPENAI_API_KEY": "mine"}).environ["OPENAI_API_KEY"] == "mine"
    assert load_settings(root, environ={}).environ["OTHER"] == "a$b ${HOME}"


def test_a_whole_table_may_be_given_as_json_in_a_variable(tmp_path: Path) -> None:
    loaded = load_settings(project(tmp_path), environ={"BATCHOPS_POLL": '{"initial": "2s", "max": "3s"}'})
    assert loaded.settings.poll.max == timedelta(seconds=3)
    assert loaded.origins["poll.max"] == "BATCHOPS_POLL"
    [found] = problems(tmp_path, BATCHOPS_POLL="2s")
    assert found.code == "invalid_setting"
    assert "BATCHOPS_POLL" in found.detail


def test_every_mistake_of_a_file_is_reported_at_its_place(tmp_path: Path) -> None:
    toml = (
        'projct = "x"\n'
        "[poll]\n"
        'inital = "1s"\n'
        'max = "1 sec"\n'
        "[providers.mine]\n"
        'base_url = "http://127.0.0.1:1"\n'
        "submit = { parallel_uploads = 0 }\n"
        '[providers."Bad Name"]\n'
        'kind = "opnai"\n'
    )
    found = problems(project(tmp_path, toml))
    assert [(diagnostic.code, place(diagnostic)) for diagnostic in found] == [
        ("unknown_setting", ("batchops.toml", 1, 1)),
        ("unknown_setting", ("batchops.toml", 3, 1)),
        ("invalid_setting", ("batchops.toml", 4, 7)),
        ("invalid_setting", ("batchops.toml", 5, 12)),
        ("unknown_setting", ("batchops.toml", 7, 1)),
        ("invalid_setting", ("batchops.toml", 8, 12)),
        ("invalid_setting", ("batchops.toml", 9, 8)),
    ]
    assert found[0].detail == '"projct" is not a key of the settings. Did you mean "project"?'
    assert found[1].detail == '"inital" is not a key of [poll]. Did you mean "initial"?'
    assert found[1].snippet == 'inital = "1s"'
    assert found[3].detail == '"providers.mine.kind" is missing. Kinds are openai, azure and local.'


def test_a_mistake_in_a_variable_names_the_variable(tmp_path: Path) -> None:
    [found] = problems(project(tmp_path, '[poll]\ninitial = "1s"\n'), BATCHOPS_POLL__INITIAL="1x")
    assert found.code == "invalid_setting"
    assert found.location is None
    assert found.detail.endswith("It comes from BATCHOPS_POLL__INITIAL.")


def test_polling_that_starts_slower_than_it_may_become_is_refused_where_it_is_set(tmp_path: Path) -> None:
    [found] = problems(project(tmp_path / "file", '[poll]\ninitial = "5m"\n'))
    assert (found.code, place(found)) == ("invalid_setting", ("batchops.toml", 2, 11))
    assert found.detail == '"poll.initial" is longer than poll.max, which polling backs off to: raise that too.'
    [found] = problems(project(tmp_path / "variable"), BATCHOPS_POLL__INITIAL="61s")
    assert found.detail.endswith("raise that too. It comes from BATCHOPS_POLL__INITIAL.")
    both = project(tmp_path / "both", '[poll]\ninitial = "5m"\nmax = "5m"\n')
    assert load_settings(both, environ={}).settings.poll.initial == timedelta(minutes=5)
    quick = load_settings(project(tmp_path / "quick", '[poll]\nmax = "100ms"\n'), environ={}).settings.poll
    assert quick.max == timedelta(milliseconds=100), "a ceiling below the default start is no slip"


def test_an_unknown_variable_is_a_warning_that_names_its_neighbour(tmp_path: Path) -> None:
    environ = {"BATCHOPS_POLL__INITAL": "1s", "BATCHOPS_PROVDER": "local", "BATCHOPS_STATE__URL": ""}
    loaded = load_settings(project(tmp_path), environ=environ)
    assert [(found.code, found.detail) for found in loaded.warnings] == [
        ("unknown_variable", "No setting is called BATCHOPS_POLL__INITAL, so it changes nothing. "
                             'Did you mean "BATCHOPS_POLL__INITIAL"?'),
        ("unknown_variable", "No setting is called BATCHOPS_PROVDER, so it changes nothing. "
                             'Did you mean "BATCHOPS_PROVIDER"?'),
    ]  # fmt: skip
    assert loaded.settings.state.url == "state/batchops.duckdb"


def test_a_line_of_dotenv_that_sets_nothing_is_a_warning_that_does_not_quote_it(tmp_path: Path) -> None:
    root = project(tmp_path)
    (root / ".env").write_text(f"BATCHOPS_PROJECT=x\nOPENAI_API_KEY: {SECRET}\n# a remark\n\nalone\n")
    loaded = load_settings(root, environ={})
    assert [(found.code, found.location, found.detail) for found in loaded.warnings] == [
        ("dotenv_syntax", None, "Line 2 of .env sets nothing. Write NAME=value, or # before a remark."),
    ]
    assert loaded.settings.project == "x"


def test_dotenv_that_is_not_utf8_is_an_error_and_no_bug(tmp_path: Path) -> None:
    root = project(tmp_path)
    (root / ".env").write_bytes(b"A=1\n\xff\xfe")
    [found] = problems(root)
    assert (found.code, found.detail) == ("file_encoding", '".env": byte 5 does not fit. Save the file as UTF-8.')
    (root / ".env").write_bytes(b"\xef\xbb\xbfBATCHOPS_PROJECT=x\n")
    assert load_settings(root, environ={}).settings.project == "x"


@pytest.mark.parametrize("url", ["example.com/v1", "ftp://example.com", "http://", "https://[", "env:not a name"])
def test_a_base_url_that_leads_nowhere_is_an_invalid_setting_at_its_place(tmp_path: Path, url: str) -> None:
    [found] = problems(project(tmp_path, f'[providers.x]\nkind = "openai"\nbase_url = "{url}"\n'))
    assert (found.code, found.location and found.location.start.line) == ("invalid_setting", 3)


SECRET = "sk-canary-7d1f"


@pytest.mark.parametrize(
    "toml",
    [
        f'[providers.openai]\napi_key = "{SECRET}"\n',
        f'providers = {{ openai = {{ api_key = "{SECRET}", kind = "opnai" }} }}\n',
        f'[providers.openai]\napikey = "{SECRET}"\n',
        f'[providers.openai]\napi_key = "{SECRET}\n',
        f'[providers.openai]\nbase_url = "https://user:{SECRET}@example.org/v1"\n',
        f'[providers.openai]\napi_key = ["{SECRET}"]\n',
        f'[state]\nurl = "postgres://user:{SECRET}@example.org/state"\n',
        f'[providers.openai.models]\n"{SECRET}" = 1\n',
    ],
)
def test_a_literal_secret_is_refused_and_never_echoed(tmp_path: Path, toml: str) -> None:
    found = problems(project(tmp_path, toml))
    assert found
    assert SECRET not in repr(found) or toml.startswith("[providers.openai.models]")
    assert SECRET not in "".join(diagnostic.snippet or "" for diagnostic in found)


def test_a_literal_secret_in_a_variable_is_refused_too(tmp_path: Path) -> None:
    [found] = problems(project(tmp_path), BATCHOPS_PROVIDERS__OPENAI__API_KEY=SECRET)
    assert found.code == "literal_secret"
    assert SECRET not in repr(found)


def test_settings_never_show_a_secret_or_the_environment_in_their_repr(tmp_path: Path) -> None:
    root = project(tmp_path, '[providers.openai]\napi_key = "env:MY_KEY"\n')
    loaded = load_settings(root, environ={"MY_KEY": SECRET})
    assert SECRET not in repr(loaded)
    assert loaded.settings.providers["openai"].api_key == "env:MY_KEY"


def test_an_environment_overrides_the_provider_and_limits_rows(tmp_path: Path) -> None:
    root = project(tmp_path, '[environments.dev]\nprovider = "local"\nlimit = 100\n')
    loaded = load_settings(root, environ={}, env="dev")
    assert (loaded.settings.provider, loaded.limit, loaded.environment) == ("local", 100, "dev")
    assert loaded.origins["provider"] == "batchops.toml:2"
    assert load_settings(root, environ={}).settings.provider == "openai"
    assert load_settings(root, environ={}).limit is None
    assert load_settings(root, environ={"BATCHOPS_ENV": "dev"}).environment == "dev"


def test_a_variable_beats_the_provider_of_an_environment(tmp_path: Path) -> None:
    root = project(tmp_path, '[environments.dev]\nprovider = "local"\n')
    loaded = load_settings(root, environ={"BATCHOPS_PROVIDER": "openai"}, env="dev")
    assert loaded.settings.provider == "openai"
    assert loaded.origins["provider"] == "BATCHOPS_PROVIDER"


def test_an_environment_that_is_not_declared_is_a_usage_error(tmp_path: Path) -> None:
    root = project(tmp_path, "[environments.dev]\nlimit = 1\n")
    with pytest.raises(UsageProblem) as caught:
        load_settings(root, environ={}, env="devv")
    assert caught.value.exit_code == ExitCode.USAGE
    assert caught.value.diagnostics[0].code == "unknown_environment"
    assert 'Did you mean "dev"?' in caught.value.diagnostics[0].detail


def test_a_provider_that_nobody_declared_is_refused_where_it_is_named(tmp_path: Path) -> None:
    root = project(tmp_path, 'provider = "lcal"\n[environments.dev]\nprovider = "opnai"\n')
    assert [(found.code, place(found)) for found in problems(root)] == [
        ("unknown_provider", ("batchops.toml", 1, 12)),
        ("unknown_provider", ("batchops.toml", 3, 12)),
    ]


@pytest.mark.parametrize("wanted", [">=0.3", ">=0.3,<2", "~=0.3"])
def test_a_version_that_fits_is_accepted(tmp_path: Path, wanted: str) -> None:
    assert load_settings(project(tmp_path, f'required_version = "{wanted}"\n'), environ={})


def test_another_version_is_refused_before_its_keys_are_read(tmp_path: Path) -> None:
    [found] = problems(project(tmp_path, 'required_version = ">=9"\nbrand_new = true\n'))
    assert (found.code, place(found)) == ("version_mismatch", ("batchops.toml", 1, 20))
    [found] = problems(project(tmp_path, 'required_version = "new"\n'))
    assert (found.code, place(found)) == ("invalid_setting", ("batchops.toml", 1, 20))


@pytest.mark.parametrize(
    ("toml", "where"),
    [
        ("a = \n", ("batchops.toml", 1, 5)),
        ("[poll]\n[poll]\n", ("batchops.toml", 2, 6)),
        ("a = [1,", ("batchops.toml", 1, 8)),
    ],
)
def test_broken_toml_is_reported_at_its_place(tmp_path: Path, toml: str, where: tuple[str, int, int]) -> None:
    [found] = problems(project(tmp_path, toml))
    assert (found.code, place(found)) == ("invalid_toml", where)


def test_the_root_is_the_nearest_folder_upwards_with_a_project(tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "outer/a/inner"
    (inner / "x/y").mkdir(parents=True)
    (outer / "jobs").mkdir()
    (outer / "a/pyproject.toml").write_text("[tool.ruff]\n")
    assert find_root(inner / "x/y") == outer.resolve()
    (outer / "a/pyproject.toml").write_text("[tool.batchops]\n")
    assert find_root(inner / "x/y") == (outer / "a").resolve()
    (inner / "batchops.toml").write_text("")
    assert find_root(inner / "x/y") == inner.resolve()


def test_no_project_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BatchopsError) as caught:
        find_root(tmp_path)
    [found] = caught.value.diagnostics
    assert (found.code, found.fixes) == ("no_project", ("batchops init",))


def test_names_at_knows_every_table_of_the_model() -> None:
    assert names_at(("poll",)) == frozenset({"initial", "max"})
    assert names_at(("providers",)) is None
    assert names_at(("providers", "x", "models", "y", "price")) == frozenset({"input", "output", "cached"})
    assert names_at(("poll", "max")) == frozenset()


def test_loading_settings_imports_neither_openai_nor_duckdb_nor_more_than_it_needs(tmp_path: Path) -> None:
    project(tmp_path, '[poll]\ninitial = "1s"\n')
    script = (
        "import sys; from pathlib import Path; from batchops.settings import load_settings;"
        f"load_settings(Path({str(tmp_path)!r}), environ={{}});"
        "print({'openai', 'duckdb', 'ruamel', 'rich', 'pydantic_settings', 'packaging'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout == "set()\n"


def test_the_example_of_the_documentation_is_accepted_and_states_the_defaults(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/settings.md").read_text()
    loaded = load_settings(project(tmp_path, page.split("```toml\n")[1].split("```")[0]), environ={})
    defaults = Settings()
    for section in ("state", "poll", "submit"):
        assert getattr(loaded.settings, section) == getattr(defaults, section)
    openai = loaded.settings.providers["openai"]
    assert openai.timeout == ProviderSettings(kind="openai").timeout
    assert openai.models["gpt-5-mini"].max_enqueued_tokens == 2_000_000
    assert set(dict.fromkeys(loaded.origins.values())) == {"default"} | {
        origin for origin in loaded.origins.values() if origin.startswith("batchops.toml:")
    }
