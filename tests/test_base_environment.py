"""The base package alone, in a new environment without torch: what a newcomer has after `pip install risbench`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from risbench.scenes.source import write_source
from tests.test_structure import help_seconds

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def base_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    command = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-c",
        str(ROOT / "constraints.txt"),
        str(ROOT),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and ("Could not find" in done.stderr or "Connection" in done.stderr):
        pytest.skip("no package registry can be reached")
    assert done.returncode == 0, done.stderr
    return python


def run(python: Path, *words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(python), "-m", "risbench", *map(str, words)], capture_output=True, text=True, cwd=cwd, check=False)


@pytest.mark.slow
def test_without_torch_help_is_fast_and_the_whole_factory_runs(base_python: Path, tmp_path: Path) -> None:
    assert subprocess.run([str(base_python), "-c", "import torch"], capture_output=True, check=False).returncode != 0
    assert min(help_seconds(base_python) for _ in range(4)) < 0.5
    write_source(tmp_path / "source", seed=1, scenes=2)
    for words in (["ingest", "source", "-w", "w"], ["refine-masks", "-w", "w"], ["export", "--split", "--include-unreviewed", "--allow-empty", "-w", "w"],
                  ["audit", "--truth", "source/truth.json", "-w", "w"], ["stats", "-w", "w"], ["validate", "-w", "w"], ["doctor"]):  # fmt: skip
        done = run(base_python, *words, cwd=tmp_path)
        assert done.returncode == 0, (words, done.stderr)
    assert json.loads(run(base_python, "doctor", "--json", cwd=tmp_path).stdout)["extras"]["sam"].startswith("lacks torch")


@pytest.mark.slow
def test_without_torch_what_needs_it_says_how_to_get_it(base_python: Path, tmp_path: Path) -> None:
    write_source(tmp_path / "source", seed=1, scenes=1)
    run(base_python, "ingest", "source", "-w", "w", cwd=tmp_path)
    (tmp_path / "sam.pth").write_bytes(b"x")
    for words in (["--engine", "sam", "--checkpoint", "sam.pth"], ["--gpu"]):
        done = run(base_python, "refine-masks", *words, "-w", "w", cwd=tmp_path)
        assert done.returncode == 4, done.stderr
        assert "pip install 'risbench[sam]'" in done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
