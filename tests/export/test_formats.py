"""Every format of a release, opened by its own reader."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from risbench.core.masks import mask_of
from risbench.core.metrics import mask_iou
from risbench.core.record import Record
from risbench.core.workspace import Workspace, read_records
from risbench.export import export
from risbench.export.formats import parquet
from risbench.export.formats import webdataset as tars
from risbench.formats.yolo import label_line, read_label_line
from risbench.ingest import ingest
from risbench.refine import refine_masks
from risbench.scenes.source import write_source
from tests.conftest import tree_bytes


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("formats")
    write_source(folder / "source", seed=1, scenes=10)
    ingest(folder / "source", workspace=folder / "w", name="world")
    refine_masks(workspace=folder / "w", engine="oriented-box")
    patch = pytest.MonkeyPatch()
    patch.setattr(parquet, "_ROW_GROUP", 16)
    patch.setattr(parquet.ParquetShards.__init__, "__defaults__", (500_000,))
    patch.setattr(tars.WebDatasetShards.__init__, "__defaults__", (500_000,))
    export(workspace=folder / "w", formats=["all"], include_unreviewed=True)
    patch.undo()
    return folder / "w"


@pytest.fixture(scope="module")
def records(world: Path) -> dict[str, Record]:
    return {record.id: record for record in read_records(Workspace.open(world).latest())}


def splits_of(world: Path) -> dict[str, set[str]]:
    tables = {split: pq.read_table(release(world) / f"annotations_{split}.parquet", columns=["id"]) for split in ("train", "val", "test")}
    return {split: set(table["id"].to_pylist()) for split, table in tables.items()}


def release(world: Path) -> Path:
    return world / "4-export" / "release"


def pixels(world: Path, record: Record) -> np.ndarray:
    return np.asarray(Image.open(world / record.image.path).convert("RGB"))


def test_datasets_opens_the_folder_with_its_splits_images_and_masks(world: Path, records: dict[str, Record], tmp_path: Path) -> None:
    import datasets

    found = datasets.load_dataset(str(release(world)), cache_dir=str(tmp_path))
    assert {name: set(part["id"]) for name, part in found.items()} == {
        {"val": "validation"}.get(name, name): ids for name, ids in splits_of(world).items()
    }
    for part in found.values():
        for row in part:
            record = records[row["id"]]
            assert record.expression is not None
            assert record.mask is not None
            assert isinstance(row["image"], Image.Image)
            assert np.array_equal(np.asarray(row["image"].convert("RGB")), pixels(world, record))
            assert np.array_equal(np.asarray(row["mask"]) > 0, mask_of(record.mask))
            assert (row["expression"], row["category"]) == (record.expression.text, record.category.name)


def test_parquet_shards_hold_whole_records_and_each_image_of_a_group_once(world: Path, records: dict[str, Record]) -> None:
    folder = release(world) / "parquet"
    names = sorted(path.name for path in folder.iterdir())
    count = sum(name.startswith("train") for name in names)
    assert count > 1
    assert [name for name in names if name.startswith("train")] == [f"train-{k:05d}-of-{count:05d}.parquet" for k in range(count)]
    seen = {}
    for path in folder.iterdir():
        table = pq.read_table(path)
        for row in table.to_pylist():
            seen[row["id"]] = Record.model_validate_json(row["record"]).model_copy(update={"split": None})
        distinct = sum(len(data) for data in {row["image"]["bytes"] for row in table.to_pylist()})
        assert path.stat().st_size < 1.15 * distinct + 60_000
    assert seen == records


def test_webdataset_reads_the_shards(world: Path, records: dict[str, Record]) -> None:
    import webdataset

    for split, ids in splits_of(world).items():
        paths = sorted(str(path) for path in (release(world) / "webdataset").glob(f"{split}-*.tar"))
        assert len(paths) > (split == "train")
        seen = set()
        for sample in webdataset.WebDataset(paths, shardshuffle=False).decode("rgb8"):
            record = records[sample["json"]["id"]]
            assert record.mask is not None
            assert sample["txt"] == record.expression.text  # type: ignore[union-attr]
            assert np.array_equal(sample["png"], pixels(world, record))
            assert np.array_equal(sample["mask.png"][:, :, 0] > 127, mask_of(record.mask))
            seen.add(record.id)
        assert seen == ids


def test_croissant_is_valid_and_its_records_are_the_triplets(world: Path, records: dict[str, Record]) -> None:
    import mlcroissant

    found = mlcroissant.Dataset(jsonld=str(release(world) / "croissant.json"))
    issues = found.metadata.ctx.issues
    assert not issues.errors
    assert len(issues.warnings) <= 2  # nobody knows yet how it is cited and when it is published
    for split, ids in splits_of(world).items():
        rows = {row[f"{split}/id"].decode(): row for row in found.records(split)}
        assert rows.keys() == ids
        for name, row in rows.items():
            mask = records[name].mask
            assert mask is not None
            assert np.array_equal(np.asarray(row[f"{split}/mask"]) > 0, mask_of(mask))


def test_the_card_counts_what_is_in_it_and_its_front_matter_is_yaml(world: Path, records: dict[str, Record]) -> None:
    import yaml

    text = (release(world) / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["size_categories"] == ["n<1K"]
    assert [row["split"] for row in front["configs"][0]["data_files"]] == ["train", "validation", "test"]
    described = json.loads((release(world) / "release.json").read_text())
    for name in ("by_class", "by_size", "review"):
        assert sum(sum(row.values()) for row in described[name].values()) == len(records)
    assert described["masks"] == {"oriented-box": len(records)}
    kept = splits_of(world)
    ships = sum(records[name].category.name == "ship" for name in kept["train"])
    assert f"| ship | {ships} |" in text
    assert f"| unreviewed | {len(kept['train'])} | {len(kept['val'])} | {len(kept['test'])} | nobody looked at it |" in text


def test_yolo_labels_are_the_masks_as_nearly_as_it_says(world: Path, records: dict[str, Record]) -> None:
    folder, found = release(world) / "yolo", json.loads((release(world) / "release.json").read_text())["written"]["yolo"]
    ious, lines = [], 0
    for split, ids in splits_of(world).items():
        by_image: dict[str, list[Record]] = {}
        for record in (records[name] for name in ids):
            by_image.setdefault(record.image.path, []).append(record)
        for path, group in by_image.items():
            image = folder / "images" / split / Path(path).name
            assert image.read_bytes() == (world / path).read_bytes()
            height, width = group[0].image.height, group[0].image.width
            labels = (folder / "labels" / split / f"{image.stem}.txt").read_text().splitlines()
            lines += len(labels)
            drawn = [read_label_line(line, height, width) for line in labels]
            assert all(0 <= float(value) <= 1 for line in labels for value in line.split()[1:])
            for record in group:
                assert record.mask is not None
                ious.append(max(mask_iou(mask_of(record.mask), mask) for name, mask in drawn if name == record.category.name))
    assert lines == found["objects"]
    assert found["mean_iou"] == pytest.approx(np.mean(ious), abs=1e-3)
    assert found["lowest_iou"] == pytest.approx(min(ious), abs=1e-3)
    assert "lossy" in found
    assert "path:" not in (folder / "dataset.yaml").read_text()  # else readers look from where they are started
    assert found["lowest_iou"] > 0.9


def test_a_polygon_keeps_parts_holes_and_single_pixels() -> None:
    ring = np.zeros((64, 64), bool)
    ring[8:40, 8:40] = True
    ring[16:30, 16:30] = False
    ring[50:60, 50:60] = True
    category, drawn = read_label_line(label_line("harbor", ring), 64, 64)
    assert category == "harbor"
    assert mask_iou(ring, drawn) > 0.97
    assert not drawn[20:26, 20:26].any()
    for shape in ((slice(5, 6), slice(7, 8)), (slice(5, 6), slice(7, 20)), (slice(0, 64), slice(0, 64))):
        mask = np.zeros((64, 64), bool)
        mask[shape] = True
        assert np.array_equal(read_label_line(label_line("ship", mask), 64, 64)[1], mask)


def test_a_mask_in_very_many_pieces_is_a_polygon_soon() -> None:
    noise = np.random.default_rng(0).random((512, 512)) < 0.3
    began = time.monotonic()
    label_line("ship", noise)
    assert time.monotonic() - began < 10


def test_the_same_records_make_the_same_bytes(world: Path, tmp_path: Path) -> None:
    export(workspace=world, formats=["all"], include_unreviewed=True, name="one")
    export(workspace=world, formats=["all"], include_unreviewed=True, name="two")
    one, two = (tree_bytes(world / "4-export" / name) for name in ("one", "two"))
    differing = {path for path in one if one[path] != two.get(path)}
    assert differing <= {"release.json", "README.md", "croissant.json", "SHA256SUMS"}  # which hold the name
    assert one.keys() == two.keys()
    with Image.open(
        io.BytesIO(pq.read_table(next((world / "4-export" / "one" / "parquet").iterdir()))["mask"][0].as_py()["bytes"])
    ) as mask:
        assert mask.mode == "1"
