"""A package of somebody else adds an input format, an engine, a release format and a model; the commands use all four."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import util
from pathlib import Path

import numpy as np
import pytest

from risbench.core.imagery import encode_png
from risbench.core.masks import mask_of
from risbench.core.workspace import read_records

ROOT = Path(__file__).parents[1]
OUTSIDE = ROOT / "tests" / "outside"
COLORS = ("red", "blue", "white", "green")


def risbench(*words: str | Path, cwd: Path, outside: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line with the other package installed, or without it."""
    paths = [str(ROOT), *([str(OUTSIDE)] if outside else [])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "200", "TERM": "dumb"}
    command = [sys.executable, "-m", "risbench", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def source(folder: Path) -> Path:
    """Write twelve images with two vehicles each, as Acme does."""
    (folder / "images").mkdir(parents=True)
    draw = np.random.default_rng(0)
    lines = []
    for number in range(12):
        pixels = draw.integers(60, 200, (128, 128, 3), np.uint8)
        (folder / "images" / f"i{number}.png").write_bytes(encode_png(pixels))
        for side, x in (("left", 10), ("right", 70)):
            lines.append(f"i{number}.png\t{x}\t20\t{x + 40}\t60\tvehicle\tthe {COLORS[number % 4]} vehicle on the {side}\n")
    (folder / "objects.acme").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that was made with the other package's format and engine, and released in its layout."""
    root = tmp_path_factory.mktemp("outside")
    source(root / "s")
    done = risbench("ingest", "s", "-w", "w", "--fit", "keep", cwd=root)
    assert done.returncode == 0, done.stderr
    assert "format acme" in done.stdout
    for words in (
        ("refine-masks", "--engine", "ellipse", "--workers", "2", "-w", "w"),
        ("export", "--split", ".5,.25,.25", "--format", "sheet,parquet", "--include-unreviewed", "-w", "w"),
    ):
        done = risbench(*words, cwd=root)
        assert done.returncode == 0, done.stderr
    return root


def test_its_format_is_read_and_its_engine_makes_the_masks(released: Path) -> None:
    records = list(read_records(released / "w" / "2-refine" / "round-1"))
    assert len(records) == 24
    for record in records:
        assert record.mask is not None
        assert record.mask.engine == "ellipse"
        assert np.count_nonzero(mask_of(record.mask)) == pytest.approx(np.pi / 4 * 40 * 40, rel=0.02)


def test_its_release_is_written_and_verified_and_without_the_package_that_is_said(released: Path) -> None:
    folder = released / "w" / "4-export" / "release"
    lines = (folder / "sheet" / "triplets.tsv").read_text().splitlines()
    assert len(lines) == 24
    assert "any spreadsheet" in (folder / "README.md").read_text()
    done = risbench("verify", folder, "--json", cwd=released)
    assert (done.returncode, json.loads(done.stdout)["faults"]) == (0, [])
    without = risbench("verify", folder, "--json", cwd=released, outside=False)
    assert without.returncode == 0, without.stderr
    assert json.loads(without.stdout)["not_looked_into"] == ["sheet"]


@pytest.mark.skipif(util.find_spec("transformers") is None, reason="the train extra is not installed")
def test_its_model_is_trained_and_scored(released: Path) -> None:
    few = ("--config", "tiny", "--set", "recipe.steps=4", "--set", "recipe.batch=4", "--set", "pooled.width=8")
    done = risbench("train", "pooled", "-w", "w", *few, cwd=released)
    assert done.returncode == 0, done.stderr
    run = released / "w" / "5-benchmark" / "pooled-tiny-seed0"
    about = json.loads((run / "model.json").read_text())
    assert (about["model"], about["settings"]["pooled"]) == ("pooled", {"width": 8})
    done = risbench("evaluate", run, "-w", "w", "--json", cwd=released)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n"] > 0
    refused = risbench("train", "pooled", "-w", "w", *few[:2], "--set", "pooled.height=8", cwd=released)
    assert refused.returncode == 3
    assert "pooled.height" in refused.stderr
    elsewhere = risbench("train", "crobim", "-w", "w", *few, cwd=released)
    assert elsewhere.returncode == 3, "its section is of its own model only"


def test_help_names_what_it_adds(tmp_path: Path) -> None:
    for command, name in (
        ("ingest", "acme"),
        ("refine-masks", "ellipse"),
        ("export", "sheet"),
        ("train", "pooled"),
        ("benchmark", "acme-widths"),
    ):
        assert name in risbench(command, "--help", cwd=tmp_path).stdout
        assert name not in risbench(command, "--help", cwd=tmp_path, outside=False).stdout


def test_what_cannot_be_loaded_or_is_no_format_or_takes_a_name_is_said_and_the_rest_works(tmp_path: Path) -> None:
    source(tmp_path / "s")
    done = risbench("ingest", "s", "--explain", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for reason in (
        "entry point broken of risbench.formats, from risbench-acme: cannot be loaded (ImportError: libacme.so.3 is missing)",
        "entry point taken of risbench.formats, from risbench-acme: its name coco is taken by risbench",
        "entry point odd of risbench.formats, from risbench-acme: is a str; it must be a risbench.formats.source.format.Format",
    ):
        assert f"left out: {reason}" in done.stdout
        assert done.stderr.count(reason) == 1, "and once as a warning"
    assert "acme: yes, objects.acme" in done.stdout


def test_the_format_that_is_surer_reads_a_file_that_two_claim(tmp_path: Path) -> None:
    source(tmp_path / "s")
    (tmp_path / "s" / "objects.acme").unlink()
    image = {"id": 1, "file_name": "i0.png", "width": 128, "height": 128}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 20, 40, 40], "expression": "the red vehicle on the left"}
    coco = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "vehicle"}]}
    (tmp_path / "s" / "instances.json").write_text(json.dumps(coco))
    done = risbench("ingest", "s", "-w", "w", "--fit", "keep", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "format coco" in done.stdout
    explained = risbench("ingest", "s", "--explain", cwd=tmp_path).stdout
    assert "acme: no, instances.json could be, but coco is surer of instances.json" in explained
    asked = risbench("ingest", "s", "-w", "v", "--format", "acme", cwd=tmp_path)
    assert asked.returncode == 3
