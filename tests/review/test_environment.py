"""Environments and databases of the server that somebody else owns; and a server that dies."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import risbench.review.labelstudio.environment as environment
from risbench.core.errors import BusyError, MissingRequirementError
from risbench.review.labelstudio.database import database_settings, has_password
from risbench.review.labelstudio.environment import server_python
from risbench.review.labelstudio.server import Running, _keep_up


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a Python that claims to have the versions of `versions.json`; nothing may change in it."""
    folder = tmp_path / "given"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text(f'#!/bin/sh\ncat "{folder}/versions.json"\n')
    (folder / "bin" / "python").chmod(0o755)
    monkeypatch.setenv("RISBENCH_LABEL_STUDIO_ENV", str(folder))
    before = sorted(folder.rglob("*"))
    yield folder
    assert sorted(path for path in folder.rglob("*") if path.name != "versions.json") == before


def test_a_given_environment_of_the_tested_versions_is_used_as_it_is(given: Path) -> None:
    (given / "versions.json").write_text(json.dumps(environment.tested_versions()))
    assert server_python(None) == (given / "bin" / "python", [])
    (given / "versions.json").write_text(json.dumps({**environment.tested_versions(), "django": "5.1"}))
    python, [warning] = server_python(given)
    assert python == given / "bin" / "python"
    assert "other versions than the tested ones (1): django 5.1 (tested: 5." in warning


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({"label-studio": "1.22.0"}, "label-studio 1.22.0 where 1.23.2 is needed, label-studio-sdk missing where 2.1.2 is needed"),
        ("nonsense", "its Python says nonsense"),
    ],
)
def test_a_given_environment_of_other_versions_is_refused_with_what_to_do(given: Path, versions: Any, said: str) -> None:
    (given / "versions.json").write_text(versions if isinstance(versions, str) else json.dumps(versions))
    with pytest.raises(MissingRequirementError, match=said) as caught:
        server_python(None)
    assert "--environment FOLDER with a folder that does not exist yet makes one of your own" in str(caught.value)


def test_a_folder_that_is_no_environment_and_a_linked_one_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "diary").write_text("x")
    monkeypatch.delenv("RISBENCH_LABEL_STUDIO_ENV", raising=False)
    with pytest.raises(MissingRequirementError, match="is no Python environment with Label Studio, and is not written to"):
        server_python(other)
    (tmp_path / "own").symlink_to(other)
    monkeypatch.setattr(environment, "default_environment", lambda: tmp_path / "own")
    with pytest.raises(MissingRequirementError, match="is not written to"):
        server_python(None)
    assert [path.name for path in other.iterdir()] == ["diary"]


def test_an_environment_that_a_kill_left_half_made_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def run(command: list[str], **more: Any) -> Any:
        calls.append(command[2])
        if len(calls) == 2:
            raise KeyboardInterrupt
        (tmp_path / "new" / "bin").mkdir(parents=True, exist_ok=True)
        (tmp_path / "new" / "bin" / "python").touch()
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(KeyboardInterrupt):
        server_python(tmp_path / "new", quiet=True)
    assert server_python(tmp_path / "new", quiet=True)[0] == tmp_path / "new" / "bin" / "python"
    assert server_python(tmp_path / "new", quiet=True)[1] == []
    assert calls == ["venv", "pip", "venv", "pip"]


def test_the_databases_password_comes_from_the_url_the_variable_or_a_private_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGPASSWORD", "PGPASSFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert database_settings("postgresql://u:p%40@h/db")["POSTGRE_PASSWORD"] == "p@"
    assert "PGPASSFILE" not in database_settings("postgresql://u@h/db")
    (tmp_path / ".pgpass").write_text("h:5432:db:u:secret\n")
    (tmp_path / ".pgpass").chmod(0o640)
    with pytest.raises(MissingRequirementError, match=r"\.pgpass: others can read it, and PostgreSQL then ignores it; run chmod 600"):
        database_settings("postgresql://u@h/db")
    (tmp_path / ".pgpass").chmod(0o600)
    found = database_settings("postgresql://u@h/db")
    assert (found["PGPASSFILE"], found["POSTGRE_PASSWORD"]) == (str(tmp_path / ".pgpass"), "")
    monkeypatch.setenv("PGPASSWORD", "secret")
    assert database_settings("postgresql://u@h/db")["PGPASSWORD"] == "secret"
    monkeypatch.delenv("PGPASSWORD")
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    with pytest.raises(MissingRequirementError, match="PGPASSFILE: .*none: there is no such file"):
        database_settings("postgresql://u@h/db")
    assert has_password("postgresql://u:p@h/db")
    assert not has_password("postgresql://u@h/db")


def test_a_server_that_keeps_dying_is_given_up_and_one_that_ran_well_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, slept, starts = [0.0], [], []
    monkeypatch.setattr("risbench.review.labelstudio.server.time", SimpleNamespace(monotonic=lambda: clock[0], sleep=slept.append))

    class Process:
        def __init__(self, runs_s: float) -> None:
            self.runs_s = runs_s

        def wait(self) -> int:
            clock[0] += self.runs_s
            return -11

    def start() -> Any:
        starts.append(1)
        if len(starts) == 2:
            raise BusyError("127.0.0.1:8080: taken")
        return Process(1000.0 if len(starts) == 3 else 1.0)

    server = Running("u", Process(1.0), tmp_path, tmp_path / "log", tmp_path, start)  # type: ignore[arg-type]
    lines: list[str] = []
    with pytest.raises(
        MissingRequirementError, match=r"Label Studio ended by itself \(exit -11\), for the 7th time; its last words are in"
    ):
        lines.extend(line["restarted"] for line in _keep_up(server))
    assert slept == [1, 2, 4, 1, 2, 4, 8, 16, 30]  # a start that failed counts; after ten good minutes it begins anew
    assert lines[2].startswith("127.0.0.1:8080: taken; it is started again in 4 s")


def test_the_makefile_makes_the_environment_by_the_function_that_is_there() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    assert "from risbench.review.labelstudio.environment import make_environment" in makefile
