"""The commented script of the full benchmark, run as it stands with a few steps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="the train extra is not installed")

from risbench.benchmark.data.release import read_release
from tests.test_pipelines import run


@pytest.mark.slow
def test_the_full_benchmark_runs_and_trains_nothing_twice(workspace: Path, release: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    shutil.copytree(workspace / "4-export" / "risbench", other)
    gone = next(sample.image for sample in read_release(other).samples if sample.split == "train")
    (other / gone).unlink()
    words = ("benchmark.sh", release, out, other)
    few = "--set recipe.steps=2 --set recipe.looks=1 --set recipe.batch=4 --set recipe.warm_up=1"
    asked = {
        "CONFIG": "tiny",
        "SEEDS": "1",
        "SET": few,
        "PUBLISHED": "RISBench",
        "ABLATIONS": "crobim,table7",
        "MODELS": "",
        "WEIGHTS": "",
        "GPU": "",
    }
    done = run(*words, **asked)
    assert done.returncode == 0, done.stderr
    models, ablations = (json.loads((out / name / "table.json").read_text()) for name in ("models", "ablations"))
    assert [row["name"] for row in models["rows"]][:3] == ["empty", "full", "centre"]
    assert {"lavt", "caris", "crobim", "box-predicted", "box-oracle"} <= {row["name"] for row in models["rows"]}
    assert ablations["rows"][0]["name"] == "crobim"
    assert len(ablations["rows"]) == 3
    assert any(row["model"] == "CroBIM, mid.attention=pwam" for row in ablations["published"])
    assert (out / "models" / "crobim-seed0" / "parquet-test-peer-shuffled.json").is_file()
    compared = json.loads((out / "masks" / "compare.json").read_text())
    assert compared["left_out"]["A"]["image_missing"] == compared["training"]["B"] - compared["common"] > 0
    assert f"left out of A: {compared['left_out']['A']['image_missing']:,} image_missing; first: " in " ".join(done.stdout.split())
    first = [next((out / name / "crobim-seed0").glob("best-*")) for name in ("models", "ablations")]
    assert first[0].stat().st_mtime_ns == first[1].stat().st_mtime_ns, "CroBIM as it is is trained once"

    stamps = {path: path.stat().st_mtime_ns for name in ("best-*", "*-peer*.json") for path in out.rglob(name)}
    tables = {path: path.read_bytes() for path in out.rglob("table.*")}
    again = run(*words, **asked)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert {path: path.read_bytes() for path in out.rglob("table.*")} == tables
