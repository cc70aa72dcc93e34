"""What a public project keeps besides its code: versions that agree, files that tools can read."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import risbench

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_versions_agree() -> None:
    newest = re.search(r"^## (\d+\.\d+\.\d+) - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["version"] == risbench.__version__ == newest[1] == citation["version"]
    assert str(citation["date-released"]) == newest[2]


def test_the_workflow_runs_what_ci_runs_and_every_file_is_yaml() -> None:
    files = [*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"]
    assert len(files) >= 5
    read = {path.name: yaml.safe_load(path.read_text()) for path in files}
    steps = [step.get("run", "") for step in read["ci.yml"]["jobs"]["test"]["steps"]]
    assert any(".ci/run" in step for step in steps)
    for name in ("bug_report.yml", "format_request.yml", "feature_request.yml"):
        assert {"name", "description", "body"} <= read[name].keys()


def test_the_classifiers_are_known_to_the_index() -> None:
    known = pytest.importorskip("trove_classifiers").classifiers
    assert set(PROJECT["classifiers"]) <= known


def test_the_words_are_spelt_as_english_is() -> None:
    command = shutil.which("codespell", path=str(Path(sys.executable).parent))
    if command is None:
        pytest.skip("codespell is not installed")
    done = subprocess.run([command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == ""
