"""A few of the points of `benchmarks/faults`: kills before a change of the disk, calls that fail once, and power cuts, in the stages that keep data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.slow


def tried(*words: str) -> list[dict[str, Any]]:
    """Run experiments and return their rows; skip with the reason where this machine cannot make calls fail."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(BENCHMARKS.parent), os.environ.get("PYTHONPATH", "")))}
    command = [sys.executable, "-m", "faults", "--json", "--jobs", "1", *words]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, env=environment, timeout=600, check=False)
    if "skipped: " in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.stdout, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def failures(rows: list[dict[str, Any]]) -> list[str]:
    """Return what failed, one line each."""
    return [
        f"{row['experiment']}: {failure['kind']}: {failure['point']}: {failure['detail']}" for row in rows for failure in row["failures"]
    ]


@pytest.mark.parametrize("stage", ["ingest", "export", "report"])
def test_killed_before_a_change_or_with_a_failing_call_the_same_command_ends_with_the_same_bytes(stage: str) -> None:
    rows = tried(
        "kills", "failed-calls", "power-cut", "--points", "14", "--only", f"killed: {stage}$,failed call: {stage}$,power cut: {stage}$"
    )
    assert [row["tried"] for row in rows] == [14, 14, 14]
    assert failures(rows) == []


def test_a_planted_bug_is_caught() -> None:
    rows = tried("--planted", "--points", "12", "--only", "killed: ingest,power cut: ingest")
    assert len(rows) == 2
    assert all(row["failures"] for row in rows), rows
