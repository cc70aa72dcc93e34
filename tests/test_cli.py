from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from risbench.cli.app import app
from risbench.core.extras import BASE, EXTRAS
from risbench.ingest import ingest
from risbench.refine import refine_masks
from risbench.scenes.source import write_source
from tests.conftest import cli, eval_row

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    write_source(folder / "source", seed=2, scenes=4)
    ingest(folder / "source", workspace=folder / "w", name="world")
    refine_masks(workspace=folder / "w", engine="oriented-box")
    return folder / "w"


def script(name: str) -> Any:
    """Return one of the scripts in docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_help_prints() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == script("make_cli").page(), "run: make docs"


def test_the_tables_in_the_docs_are_what_the_registries_hold() -> None:
    tables = script("make_tables")
    for page in tables.PAGES:
        text = (ROOT / page).read_text()
        assert "<!-- table: " in text
        assert tables.filled(text) == text, f"{page}: run: make docs"


def test_the_table_of_extras_is_what_the_project_declares() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {extra: {re.split(r"[<>=\[]", line)[0] for line in lines} for extra, lines in declared["optional-dependencies"].items()}
    names["train"] |= names["sam"]
    base = {re.split(r"[<>=\[]", line)[0] for line in declared["dependencies"]}
    assert set(BASE) <= base
    for extra, packages in EXTRAS.items():
        # TensorBoard is asked for by what writes for it
        assert set(packages) == names[extra] - {"risbench", "tensorboard"}, extra


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("last", ["--include-unreviewed", "--split"]),
        ("before an option", ["--split", "--include-unreviewed"]),
        ("before a short option", ["--include-unreviewed", "--split", "-w", "."]),
        ("left out", ["--include-unreviewed"]),
        ("named", ["--include-unreviewed", "--split", "scene"]),
    ],
)
def test_bare_split_uses_the_default_rule_wherever_it_stands(workspace: Path, place: str, words: list[str]) -> None:
    run = cli("export", *words, "--name", place.replace(" ", "-"), "--json", cwd=workspace)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["split_rule"] == "scene"


def test_split_takes_fractions_that_begin_with_a_dot_and_counts(workspace: Path) -> None:
    for number, rule in enumerate((".7,.1,.2", "26300,10013,16159")):
        run = cli("export", "--split", rule, "--include-unreviewed", "--name", f"n{number}", "--json", cwd=workspace)
        assert run.returncode == 0, run.stderr
        assert json.loads(run.stdout)["split_rule"] == rule


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["ingest", "nowhere"], 3, "no such file or folder"),
        (["ingest"], 2, "SOURCE"),
        (["refine-masks", "--engine", "magic"], 2, "--engine magic"),
        (["refine-masks", "--engine", "sam"], 2, "--checkpoint"),
        (["export", "--split", "1,2"], 2, "--split 1,2"),
        (["export"], 3, "--include-unreviewed"),
        (["export", "--format", "voc"], 2, "--format voc"),
        (["audit", "--truth", "nowhere.json"], 3, "no such file"),
        (["show", "nothing"], 3, "no such record"),
        (["validate", "-w", "/"], 3, "not a workspace"),
    ],
)
def test_errors_are_one_line_with_their_exit_code(workspace: Path, words: list[str], code: int, said: str) -> None:
    run = cli(*words, cwd=workspace)
    assert run.returncode == code, run.stderr
    assert said in run.stderr
    assert "Traceback" not in run.stderr


def test_reports_come_as_text_and_as_json(workspace: Path) -> None:
    truth = workspace.parent / "source"
    for words in (["audit", "--truth", truth / "truth.json", "--links", truth / "links.json"], ["validate"], ["stats"], ["show", "S0000_0000/0"], ["doctor"],
                  ["refine-masks", "--engine", "oriented-box"], ["ingest", truth, "--name", "world"]):  # fmt: skip
        if words[0] == "show":
            words = ["show", json.loads((workspace / "1-ingest" / "part-00000.jsonl").read_text().splitlines()[0])["id"]]
        text = cli(*words, cwd=workspace)
        assert text.returncode == 0, text.stderr
        assert len(text.stdout) > 20
        assert text.stderr == ""
        assert isinstance(json.loads(cli(*words, "--json", cwd=workspace).stdout), dict)


def test_validate_exits_1_on_a_fault(workspace: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "w"
    shutil.copytree(workspace, copy)
    assert cli("validate", "-w", copy).returncode == 0
    next((copy / "images" / "world").iterdir()).unlink()
    run = cli("validate", "-w", copy)
    assert run.returncode == 1
    assert "is missing" in run.stdout


def test_sigterm_ends_a_run_at_once_and_it_goes_on_later(make_source: Callable[..., Path], tmp_path: Path) -> None:
    source = make_source([eval_row(f"S{key:04d}_0000.png", key) for key in range(800)], images=800)
    command = [sys.executable, "-m", "risbench", "ingest", str(source), "-w", str(tmp_path / "w")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "w" / "1-ingest" / ".progress").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "goes on from here" in error
    assert "Traceback" not in error
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_a_tilde_is_the_home_folder_and_never_a_folder_of_that_name(tmp_path: Path) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir(), here.mkdir()
    for words in (["-w", "~"], ["--workspace=~/data"], ["-w", "~/data"]):
        done = cli("validate", *words, cwd=here, env={"HOME": str(home)})
        assert str(home) in done.stderr, done.stderr
    assert list(here.iterdir()) == []


def test_a_path_that_the_system_fails_to_look_at_is_no_wrong_option(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    for words in (
        ["validate", "-w", str(workspace)],
        ["verify", str(workspace / "nowhere")],
        ["ingest", str(workspace / "nowhere"), "-w", "w"],
    ):
        assert CliRunner().invoke(app, words).exit_code != 2, words
