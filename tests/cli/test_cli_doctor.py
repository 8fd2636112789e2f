"""`doctor`: everything that could explain a surprise, and no secret."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import duckdb
import pytest
from cli_process import SETTINGS, batchops, make_project

from batchops import __version__
from batchops.store.integrity import INVARIANTS, find_damage
from batchops.store.store import StateReader

SECRET = "sk-canary-5b1e"


def document(root: Path, **more: str) -> dict[str, object]:
    done = batchops(root, "doctor", "--json", **more)
    assert done.stderr == ""
    found: dict[str, object] = json.loads(done.stdout)
    return found | {"exit_code": done.returncode}


def test_every_setting_is_shown_with_its_value_and_origin(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p")
    (root / ".env").write_text("BATCHOPS_SUBMIT__PARALLEL_UPLOADS=2\n")
    text = batchops(root, "doctor", BATCHOPS_POLL__MAX="9s").stdout
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.startswith("  ")}
    assert lines["batchops"] == [__version__]
    assert lines["provider"] == ["local", "batchops.toml:2"]
    assert lines["poll.initial"] == ["100ms", "batchops.toml:4"]
    assert lines["poll.max"] == ["9s", "BATCHOPS_POLL__MAX"]
    assert lines["submit.parallel_uploads"] == ["2", ".env"]
    assert lines["budget.max_cost_usd"] == ["-", "default"]


def test_secrets_are_set_or_not_set_and_never_shown(tmp_path: Path) -> None:
    settings = SETTINGS + '[providers.mine]\nkind = "openai"\napi_key = "env:MY_KEY"\n'
    root = make_project(tmp_path / "p", settings=settings)
    (root / ".env").write_text(f"MY_KEY={SECRET}\n")
    done = batchops(root, "doctor", "-vv", OPENAI_API_KEY=SECRET)
    assert done.returncode == 0
    assert SECRET not in done.stdout + done.stderr
    found = document(root, OPENAI_API_KEY=SECRET)
    assert SECRET not in json.dumps(found)
    credentials = found["credentials"]
    assert {"provider": "mine", "variable": "MY_KEY", "set": True} in credentials  # type: ignore[operator]  # a list
    assert {"provider": "openai", "variable": "OPENAI_API_KEY", "set": True} in credentials  # type: ignore[operator]
    assert {"provider": "openai", "variable": "OPENAI_BASE_URL", "set": False} in credentials  # type: ignore[operator]


def test_an_unknown_variable_is_a_warning_and_no_failure(tmp_path: Path) -> None:
    done = batchops(make_project(tmp_path / "p"), "doctor", BATCHOPS_PROVDER="local")
    assert done.returncode == 0
    assert "warning: Unknown variable. No setting is called BATCHOPS_PROVDER, so it changes nothing." in done.stderr


def test_outside_of_a_project_the_versions_are_still_told(tmp_path: Path) -> None:
    found = document(tmp_path)
    assert (found["valid"], found["exit_code"]) == (False, 1)
    assert found["versions"]["batchops"] == __version__  # type: ignore[index]  # a mapping


def test_settings_that_are_wrong_are_reported_beside_the_versions(tmp_path: Path) -> None:
    done = batchops(make_project(tmp_path / "p", settings='projct = "x"\n'), "doctor")
    assert done.returncode == 1
    assert done.stdout.startswith("Versions\n")
    assert done.stderr.startswith("batchops.toml:1:1: error: Unknown setting.")


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose three rows are answered."""
    root = make_project(tmp_path_factory.mktemp("doctor") / "p")
    done = batchops(root, "apply", "--auto-approve", "--wait", "--timeout", "60s")
    assert done.returncode == 0, done.stderr
    return root


def test_a_sound_state_is_called_sound(applied: Path) -> None:
    found = document(applied)
    assert found["exit_code"] == 0
    state = found["state"]
    assert isinstance(state, dict)
    assert (state["exists"], state["sound"], state["leased_by"]) == (True, True, None)
    assert state["serial"] > 0


def damaged(applied: Path, tmp_path: Path, *statements: str) -> Path:
    root = tmp_path / "p"
    shutil.copytree(applied, root)
    with duckdb.connect(str(root / "state/batchops.duckdb")) as con:
        for statement in statements:
            con.execute(statement)
    return root


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("INSERT INTO requests SELECT * FROM requests LIMIT 1", "a request is in the ledger once by digest and round"),
        ("DELETE FROM requests", "every row stands on a request of the ledger"),
        ("INSERT INTO rows SELECT * FROM rows LIMIT 1", "a row of a job is recorded once"),
        ("INSERT INTO outcomes SELECT * FROM outcomes", "a line of a submission is judged once"),
        ("DELETE FROM outcomes", "every answered request has its outcome"),
        ("DELETE FROM answer_files", "the answer file of every outcome is known"),
        ("UPDATE requests SET state = 1", "a request in flight belongs to an open submission"),
        ("DELETE FROM attempts", "what is judged was sent"),
    ],
)
def test_state_inconsistent_names_the_invariant_that_is_broken(
    applied: Path, tmp_path: Path, statement: str, says: str
) -> None:
    root = damaged(applied, tmp_path, statement)
    found = find_damage(StateReader(root / "state/batchops.duckdb"))
    assert {problem.code for problem in found} == {"state_inconsistent"}
    assert any(says in problem.detail for problem in found)
    assert any(invariant.says == says for invariant in INVARIANTS)


def test_a_damaged_state_fails_the_doctor(applied: Path, tmp_path: Path) -> None:
    found = document(damaged(applied, tmp_path, "DELETE FROM outcomes"))
    state = found["state"]
    assert isinstance(state, dict)
    assert (found["exit_code"], found["valid"], state["sound"]) == (1, False, False)


def test_answers_lost_names_the_file_that_is_gone_or_cut(applied: Path, tmp_path: Path) -> None:
    root = damaged(applied, tmp_path)
    [path] = (root / "state/answers").glob("*.parquet")
    reader = StateReader(root / "state/batchops.duckdb")
    assert find_damage(reader) == ()
    path.write_bytes(path.read_bytes()[:-1])
    [cut] = find_damage(reader)
    path.unlink()
    [gone] = find_damage(reader)
    assert (cut.code, gone.code) == ("answers_lost", "answers_lost")
    assert f"{path.name} has" in cut.detail
    assert f"{path.name} is not there" in gone.detail
