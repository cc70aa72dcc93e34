"""What a release holds comes back through ingest: whole records where the format can hold them."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from risbench.core.record import Record, Review
from risbench.core.rle import compress_runs
from risbench.core.workspace import Workspace, read_records
from risbench.export import export
from risbench.formats.webdataset import add_member
from risbench.ingest import ingest
from risbench.inspect.validate import validate
from risbench.refine import refine_masks
from risbench.scenes.source import write_source
from tests.conftest import cli
from tests.export.test_export import rewrite


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("back")
    write_source(folder / "source", seed=1, scenes=10)
    ingest(folder / "source", workspace=folder / "w", name="world")
    refine_masks(workspace=folder / "w", engine="oriented-box")
    stage = Workspace.open(folder / "w").latest()
    reviewed = Review(status="accepted", votes={"accept": 2}, agreement=0.93, reviewers=("a-1", "a-2"))
    rewrite(stage, [record.model_copy(update={"review": reviewed}).to_line() for record in read_records(stage)])
    export(workspace=folder / "w", formats=["all"])
    return folder / "w"


def release(world: Path) -> Path:
    return world / "4-export" / "release"


def records_of(workspace: Path) -> dict[str, Record]:
    return {record.id: record for record in read_records(Workspace.open(workspace).latest())}


def pixels(workspace: Path, record: Record) -> np.ndarray:
    return np.asarray(Image.open(workspace / record.image.path).convert("RGB"))


@pytest.mark.parametrize("source", ["parquet", "webdataset", "", "annotations"])
def test_whole_records_come_back_and_can_be_released_again(world: Path, tmp_path: Path, source: str) -> None:
    folder = release(world) / source
    if source == "annotations":  # RISBench's own layout alone
        folder = tmp_path / "layout"
        folder.mkdir()
        for path in release(world).iterdir():
            if path.name in ("images", "masks") or path.name.startswith(("annotations", "output")):
                (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / path.name)
    done = ingest(folder, workspace=tmp_path / "again")
    assert done["format"] == ("webdataset" if source == "webdataset" else "parquet")
    assert done["counts"]["quarantined"] == done["counts"]["filtered"] == 0
    before, after = records_of(world), records_of(tmp_path / "again")
    assert after == before
    assert all(np.array_equal(pixels(world, before[name]), pixels(tmp_path / "again", after[name])) for name in before)
    assert len(list((tmp_path / "again" / "images").rglob("*.*"))) == len({record.image.path for record in before.values()})
    assert validate(workspace=tmp_path / "again")["faults"] == []
    again = export(workspace=tmp_path / "again", split=str(release(world) / "split.csv"))
    assert again["triplets"] == len(before)
    for split in ("train", "val", "test"):
        name = f"output_phrase_{split}.txt"
        assert (Path(again["path"]) / name).read_bytes() == (release(world) / name).read_bytes()


SMALL = compress_runs([10, 20, 226])


def _changed(world: Path, folder: Path, **changes: object) -> Path:
    """A copy of the first row of the validation shard, changed."""
    [path] = (release(world) / "parquet").glob("val-*.parquet")
    table = pq.read_table(path)
    row = table.slice(0, 1).to_pylist()[0]
    record = json.loads(row["record"])
    for name, value in changes.items():
        if name.startswith("record__"):
            *outer, last = name.removeprefix("record__").split("__")
            inside = record
            for key in outer:
                inside = inside[key]
            inside[last] = value
        else:
            row[name] = value
    if "record" not in changes:
        row["record"] = json.dumps(record)
    folder.mkdir()
    [other] = (release(world) / "parquet").glob("train-*.parquet")  # a row of another image, which is good whatever the first is
    rows = [row, *table.slice(1, 1).to_pylist(), *pq.read_table(other).slice(0, 1).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / "val.parquet")
    return folder


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"record": "{"}, "broken_record"),
        ({"record__image__path": "images/world/../../../x.png"}, "unsafe_path"),
        ({"record__image__path": "/etc/passwd"}, "unsafe_path"),
        ({"record__image__path": "images/world/.hidden.png"}, "unsafe_path"),
        ({"record__category__name": "submarine"}, "release_disagrees"),
        ({"record__category__name": "submarine", "category": "submarine"}, "unmapped_class"),
        ({"expression": "another one"}, "release_disagrees"),
        ({"mask_rle": "PPP8", "record__mask__counts": "PPP8"}, "empty_mask"),
        ({"mask_rle": "P", "record__mask__counts": "P"}, "broken_rle"),
        ({"record__mask__size": [16, 16]}, "broken_rle"),
        ({"mask_rle": SMALL, "record__mask__counts": SMALL, "record__mask__size": [16, 16]}, "wrong_size"),
        ({"record__image__width": 100, "record__mask__size": [512, 100]}, "broken_rle"),
        ({"image": {"bytes": b"no image", "path": "x.png"}}, "not_an_image"),
        ({"image": {"bytes": None, "path": "x.png"}}, "damaged_archive"),
        ({"expression": "bell \a", "record__expression__text": "bell \a"}, "control_character"),
        ({"record__source__licence": "free\n# as in beer"}, "control_character"),
        ({"record__targets": []}, "no_target"),
        ({"id": "x", "record__id": "x"}, "unsafe_id"),
        ({"record__image__perceptual_hash": "0" * 16}, "image_differs"),
        ({"mask_rle": "ooSle_11", "record__mask__counts": "ooSle_11", "record__mask__size": [40000, 40000],
          "record__image__width": 40000, "record__image__height": 40000}, "image_too_large"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_used_is_quarantined_and_the_rest_goes_on(
    world: Path, tmp_path: Path, changes: dict[str, object], code: str
) -> None:
    folder = _changed(world, tmp_path / "source", **changes)
    done = ingest(folder, workspace=tmp_path / "w")
    assert code in done["quarantined_by_code"], done
    assert done["counts"]["in"] == done["counts"]["out"] + done["counts"]["quarantined"]
    assert not (tmp_path / "x.png").exists()


def test_an_id_that_comes_twice_is_taken_once(world: Path, tmp_path: Path) -> None:
    shutil.copytree(release(world) / "parquet", tmp_path / "source")
    [path] = (tmp_path / "source").glob("val-*.parquet")
    shutil.copy(path, tmp_path / "source" / "again.parquet")
    done = ingest(tmp_path / "source", workspace=tmp_path / "w")
    assert done["counts"]["out"] == len(records_of(world))
    assert done["quarantined_by_code"] == {"duplicate_id": pq.read_metadata(path).num_rows}


def test_hostile_archives_are_refused_and_open_nothing_outside(world: Path, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    whole = next((release(world) / "webdataset").glob("val-*.tar"))
    shutil.copy(whole, folder / "good.tar")
    with tarfile.open(folder / "bad.tar", "w") as archive:
        add_member(archive, "../outside.png", b"x")
        add_member(archive, "/etc/absolute.png", b"x")
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        add_member(archive, "a.json", b'{"schema_version": 1}')
    with tarfile.open(whole) as archive:
        places = [member.offset for member in archive]
    data = bytearray(whole.read_bytes())
    (folder / "cut.tar").write_bytes(data[: places[5] + 700])
    (folder / "border.tar").write_bytes(data[: places[5]])
    data[places[5] + 3] ^= 1
    (folder / "flipped.tar").write_bytes(data)
    (folder / "no.parquet").write_bytes(b"PAR1 this is none PAR1")
    with tarfile.open(folder / "theirs.tar", "w") as archive:  # an archive of somebody's own makes nothing of the source
        add_member(archive, "P0001.json", b'{"objects": []}')
    done = ingest(folder, workspace=tmp_path / "w")
    codes = done["quarantined_by_code"]
    assert codes["tar_slip"] == 2
    assert codes["tar_link"] == 1
    assert codes["broken_record"] == 1
    assert codes["damaged_archive"] == 4
    with tarfile.open(whole) as archive:
        ours = sum(name.endswith(".json") for name in archive.getnames())
    assert done["counts"]["out"] == ours
    assert codes["duplicate_id"] == 3  # the first samples of the three damaged ones were there before


def test_two_pictures_of_one_place_are_not_mixed_up(world: Path, tmp_path: Path) -> None:
    folder = _changed(world, tmp_path / "source", id="world/a/1", record__id="world/a/1", record__image__sha256="0" * 64)
    [path] = (release(world) / "parquet").glob("val-*.parquet")
    shutil.copy(path, folder / "whole.parquet")
    codes = ingest(folder, workspace=tmp_path / "w")["quarantined_by_code"]
    assert codes["image_place_taken"] >= 1


def test_one_shard_alone_is_a_source(world: Path, tmp_path: Path) -> None:
    for kind, pattern in (("parquet", "val-*.parquet"), ("webdataset", "val-*.tar")):
        path = next((release(world) / kind).glob(pattern))
        assert ingest(path, workspace=tmp_path / kind)["counts"]["quarantined"] == 0


def test_the_command_says_what_it_read(world: Path, tmp_path: Path) -> None:
    done = cli("ingest", release(world) / "webdataset", "-w", tmp_path / "w")
    assert done.returncode == 0, done.stderr
    assert "format webdataset (guessed)" in done.stdout
