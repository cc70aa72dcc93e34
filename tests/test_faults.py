"""A few of the points of `experiments/faults`: kills before a change of the disk, calls that fail once, and power cuts, in the stages that keep data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "experiments"
POINTS = 14
STAGES = ("ingest", "export", "report")
EXPERIMENTS = ("killed", "failed call", "power cut")
pytestmark = pytest.mark.slow


def tried(*words: str, points: int | None = POINTS) -> list[dict[str, Any]]:
    """Run experiments at so many points, or at their own number, and return their rows; skip with the reason where calls cannot be made to fail."""
    paths = os.pathsep.join((str(FOLDER.parent), os.environ.get("PYTHONPATH", "")))
    command = [sys.executable, "-m", "faults", "--json", "--jobs", "1", *(["--points", str(points)] if points else []), *words]
    done = subprocess.run(
        command, cwd=FOLDER, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}, timeout=900, check=False
    )
    if "skipped: " in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.stdout, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    """All rows, from one process that has imported risbench once."""
    wanted = ",".join(f"{experiment}: {stage}$" for experiment in EXPERIMENTS for stage in STAGES)
    return {row["experiment"]: row for row in tried("kills", "failed-calls", "power-cut", "--only", wanted)}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_same_command_ends_with_the_same_bytes(rows: dict[str, dict[str, Any]], experiment: str, stage: str) -> None:
    row = rows[f"{experiment}: {stage}"]
    assert row["tried"] == POINTS
    assert [f"{failure['kind']}: {failure['point']}: {failure['detail']}" for failure in row["failures"]] == []


def test_planted_bugs_are_caught() -> None:
    rows = tried("--planted", "--only", "failed call: refine box$,power cut: ingest$", points=None)
    found = {row["planted"]: len(row["failures"]) for row in rows}
    assert set(found) == {"failed reads are taken for damage", "nothing is synced"}
    assert all(found.values()), found
