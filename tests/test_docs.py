"""The site is built without a warning, every input format has its page, and the student's tutorial runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from risbench.formats.registry import INPUT_FORMATS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def test_every_line_of_the_students_tutorial_runs(tmp_path: Path) -> None:
    page = (DOCS / "tutorials" / "student.md").read_text()
    commands = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.strip().splitlines()]
    assert len(commands) >= 8
    (tmp_path / "bin").mkdir()
    for name, words in (("risbench", "-m risbench"), ("python", "")):
        wrapper = tmp_path / "bin" / name
        wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        wrapper.chmod(0o755)
    place = tmp_path / "empty"
    place.mkdir()
    env = {**os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    for command in commands:
        done = subprocess.run(["sh", "-c", command], cwd=place, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"
    release = place / "my-data" / "4-export" / "release"
    for name in ("images", "masks", "output_phrase_train.txt", "coco", "README.md", "SHA256SUMS", "split.csv"):
        assert (release / name).exists(), name
    assert (place / "audit.csv").read_text().count("\n") > 3
    assert (place / "my-data" / "report" / "index.html").exists()


def test_every_input_format_has_a_page() -> None:
    listed = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    pages = next(group["Input formats"] for group in listed if "Input formats" in group)
    assert {Path(page).stem for page in pages} == set(INPUT_FORMATS.names()) == {path.stem for path in (DOCS / "formats").glob("*.md")}


def test_every_page_is_in_the_site() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    assert [path.relative_to(DOCS).as_posix() for path in sorted(DOCS.rglob("*.md")) if path.relative_to(DOCS).as_posix() not in text] == []


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the docs extra is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr
    assert (tmp_path / "site" / "api" / "index.html").exists()
