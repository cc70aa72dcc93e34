"""The commented scripts of a data build, run as they stand on a small source of VRSBench's shape."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from risbench.export.verify import verify
from risbench.scenes.source import write_source

ROOT = Path(__file__).parents[1]


def run(script: str, *words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **variables}
    command = ["bash", str(ROOT / "pipelines" / script), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.slow
def test_the_papers_recipe_builds_up_to_where_people_begin(tmp_path: Path) -> None:
    write_source(tmp_path / "source", seed=2, scenes=6)
    done = run("risbench.sh", "build", tmp_path / "source", tmp_path / "w")
    assert done.returncode == 0, done.stderr
    release = tmp_path / "w" / "4-export" / "unreviewed"
    assert verify(release)["faults"] == []
    described = json.loads((release / "release.json").read_text())
    assert described["leaked"] == {"val": 0, "test": 0}
    assert described["unreviewed"] == described["triplets"] > 0
    assert (tmp_path / "w" / "report" / "index.html").is_file()
    assert "risbench review serve -w" in done.stdout
    again = run("risbench.sh", "build", tmp_path / "source", tmp_path / "w")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("up to date") == 4, "what is finished stays as it is"


def test_a_pipeline_without_its_words_says_what_it_wants() -> None:
    for script in ("risbench.sh", "data_engine.sh", "benchmark.sh"):
        done = run(script)
        assert done.returncode == 2
        assert done.stderr.startswith("usage: ")
