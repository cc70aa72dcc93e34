"""The Python API: every example of its page runs, packages stay functions, and tables and data sets hold what the records hold."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from importlib import util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import risbench as rb
from risbench.core.errors import InputError, OptionError
from risbench.core.masks import mask_of
from risbench.core.workspace import read_records
from risbench.scenes.source import write_source
from tests.conftest import cli

ROOT = Path(__file__).parents[1]
NEEDS_TRAIN = pytest.mark.skipif(util.find_spec("transformers") is None, reason="the train extra is not installed")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with masks and a release."""
    root = tmp_path_factory.mktemp("api")
    write_source(root / "s", seed=1, scenes=6)
    rb.ingest(root / "s", workspace=root / "w", quiet=True)
    rb.refine_masks(workspace=root / "w", engine="box", quiet=True)
    rb.export(workspace=root / "w", split=".5,.25,.25", formats=["parquet"], include_unreviewed=True, quiet=True)
    return root / "w"


@NEEDS_TRAIN
def test_every_example_of_the_page_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 9
    script = tmp_path / "page.py"
    body = "\n".join(blocks)
    script.write_text(
        "def main():\n" + "".join(f"    {line}\n" for line in body.splitlines()) + "\nif __name__ == '__main__':\n    main()\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in re.findall(r"\brb\.(\w+)\(", page):
        assert hasattr(rb, name), name


def test_a_package_and_the_function_of_its_name_are_not_confused() -> None:
    code = (
        "import risbench, risbench.ingest, risbench.export, risbench.benchmark\n"
        "from risbench.ingest import ingest\n"
        "for package in (risbench.ingest, risbench.export, risbench.benchmark):\n"
        "    assert callable(package), package\n"
        "try: risbench.ingest('nowhere', workspace='x')\n"
        "except risbench.core.errors.InputError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "nowhere" in done.stdout


def test_importing_it_is_light() -> None:
    code = "import sys, risbench; print(sorted({'torch', 'pandas', 'numpy', 'rasterio'} & set(sys.modules)), 'open' in dir(risbench))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[] True"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rb.nothing  # type: ignore[attr-defined]


def test_tables_hold_what_the_records_hold(data: Path) -> None:
    opened = rb.open(data)
    records = list(read_records(data / "2-refine" / "round-1"))
    triplets, objects, sentences = (table.to_pandas() for table in (opened.triplets(), opened.objects(), opened.expressions()))
    assert list(triplets["id"]) == [record.id for record in records] == [record.id for record in opened.triplets()]
    assert len(objects) == sum(len(record.targets) for record in records)
    assert len(sentences) == sum(record.expression is not None for record in records)
    first = records[0]
    row = triplets.iloc[0]
    assert first.mask is not None
    assert row["mask_area_px"] == np.count_nonzero(mask_of(first.mask))
    assert (row["x_min"], row["y_max"]) == (first.targets[0].box[0], first.targets[0].box[3])
    assert opened.image(first).shape == (first.image.height, first.image.width, 3)
    with pytest.raises(InputError, match="not a workspace"):
        rb.open(data / "images")


@NEEDS_TRAIN
def test_a_release_is_a_data_set_for_loaders_with_workers(data: Path) -> None:
    from torch.utils.data import DataLoader

    release = data / "4-export" / "release"
    every = rb.load(release)
    parts = {split: rb.load(release, split=split) for split in ("train", "val", "test")}
    assert len(every) == sum(map(len, parts.values()))
    alone = [parts["train"][index] for index in range(len(parts["train"]))]
    loaded = [item for batch in DataLoader(parts["train"], batch_size=3, num_workers=2, collate_fn=list) for item in batch]
    assert [item["id"] for item in loaded] == [item["id"] for item in alone]
    assert all(
        (one["image"] == other["image"]).all() and (one["mask"] == other["mask"]).all() for one, other in zip(alone, loaded, strict=True)
    )
    records = {record.id: record for record in read_records(data / "2-refine" / "round-1")}
    item = rb.load(release, kind="array")[0]
    mask = records[item["id"]].mask
    assert mask is not None
    assert np.array_equal(item["mask"], mask_of(mask))
    assert item["image"].shape[:2] == item["mask"].shape
    assert len(pickle.loads(pickle.dumps(every))) == len(every)
    assert rb.load(release, transform=lambda item: item["sentence"])[0] == item["sentence"]
    with pytest.raises(OptionError, match="must be one of train, val, test"):
        rb.load(release, split="dev")
    with pytest.raises(OptionError, match="must be tensor or array"):
        rb.load(release, kind="image")  # type: ignore[arg-type]
    with pytest.raises(InputError):
        rb.load(data / "images")


def test_tables_of_the_commands_are_written_as_csv(data: Path, tmp_path: Path) -> None:
    for words in (("stats",), ("audit", "--truth", str(data.parent / "s" / "truth.json"))):
        file = tmp_path / f"{words[0]}.csv"
        done = cli(*words, "-w", str(data), "--csv", str(file), "--json")
        assert done.returncode == 0, done.stderr
        frame = pd.read_csv(file)
        assert len(frame) > 3
        assert {"table", "figure", "value"} <= set(frame) or {"by", "group", "mean_iou"} <= set(frame)
    done = cli("stats", "-w", str(data), "--csv", str(tmp_path / "no" / "folder" / "x.csv"))
    assert done.returncode == 4
    assert "x.csv" in done.stderr
    assert "Traceback" not in done.stderr
