"""A GeoPackage is whole, or it is not released; `verify` looks at the same things."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from risbench.core.errors import InputError, MissingRequirementError
from risbench.core.record import Record, Review
from risbench.export import export, geopackage
from risbench.export.geopackage import look_into, write_geopackage
from risbench.export.release import write_checksums
from risbench.export.verify import verify
from tests.record import a_record, tiny_workspace

SQUARE = {"type": "MultiPolygon", "coordinates": [[[(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 0.0)]]]}


def on_the_ground(index: int, crs: str = "EPSG:32633") -> Record:
    record = a_record(f"r{index}")
    image = record.image.model_copy(update={"crs": crs, "transform": (0.5, 0.0, 5e5 + 100 * index, 0.0, -0.5, 5.4e6)})
    return record.model_copy(update={"image": image, "review": Review(status="accepted")})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tiny_workspace(tmp_path_factory.mktemp("ground") / "w", [on_the_ground(index) for index in range(4)])
    return Path(export(workspace=workspace, split="2,1,1", formats=["geo"], quiet=True)["path"])


@pytest.fixture
def release(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "release"))


def change(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as file:
        for statement in statements:
            file.execute(statement)
    file.close()


DAMAGES = {
    "has no entry in gpkg_contents": ["PRAGMA foreign_keys = OFF", "DELETE FROM gpkg_contents"],
    "has no entry in gpkg_geometry_columns": ["DELETE FROM gpkg_geometry_columns"],
    "the spatial index of layer train holds nothing of 2": ["DROP TABLE rtree_train_geom"],
    "the spatial index of layer train holds 1 of 2": ["DELETE FROM rtree_train_geom WHERE id = 1"],
    "has no entry in gpkg_extensions": ["DELETE FROM gpkg_extensions"],
    "has no layer train": ["ALTER TABLE train RENAME TO tests"],
}


@pytest.mark.parametrize("said", DAMAGES)
def test_verify_says_what_a_geopackage_lacks(release: Path, said: str) -> None:
    assert verify(release, quiet=True)["faults"] == []
    change(release / "geo" / "train.gpkg", *DAMAGES[said])
    write_checksums(release)
    faults = verify(release, quiet=True)["faults"]
    assert any(said in fault and fault.startswith("geo/train.gpkg: ") for fault in faults), faults


def test_a_cut_or_foreign_file_is_one_fault_and_no_traceback(release: Path) -> None:
    path = release / "geo" / "train.gpkg"
    data = path.read_bytes()
    for content in (b"", data[:3000], b"no database" * 100, data[: len(data) // 2]):
        path.write_bytes(content)
        count, faults = look_into(path, "train")
        assert faults, content[:20]
        assert count == 0 or "index" in faults[0]


@pytest.mark.parametrize(
    "fails",
    [
        lambda path, data: data[: len(data) // 2],
        lambda path, data: b"\0" * len(data),
    ],
)
def test_what_was_not_written_whole_is_not_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., bytes]) -> None:
    """The disk takes something else than was written."""
    workspace = tiny_workspace(tmp_path / "w", [on_the_ground(index) for index in range(4)])
    write = Path.write_bytes

    def written(path: Path, data: Any) -> int:
        return write(path, fails(path, bytes(data)) if path.suffix == ".gpkg" else data)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", written)
        with pytest.raises(MissingRequirementError, match=r"train.gpkg: was not written whole: .*the same command"):
            export(workspace=workspace, split="2,1,1", formats=["geo"], quiet=True)
    assert not (workspace / "4-export" / "release").exists()
    assert export(workspace=workspace, split="2,1,1", formats=["geo"], quiet=True)["state"] == "released"


def test_an_error_of_the_library_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyogrio

    def fails(*args: Any, **options: Any) -> None:
        raise pyogrio.errors.DataSourceError("disk I/O error")

    monkeypatch.setattr(pyogrio.raw, "write", fails)
    with pytest.raises(MissingRequirementError, match=r"train.gpkg: cannot be made \(DataSourceError: disk I/O error\).*the same command"):
        write_geopackage(tmp_path / "train.gpkg", [SQUARE], {"id": ["a"]}, "EPSG:32633")


def test_an_unknown_crs_is_one_line_that_names_the_record(tmp_path: Path) -> None:
    workspace = tiny_workspace(tmp_path / "w", [on_the_ground(0, "EPSG:32633"), on_the_ground(1, "EPSG:999999")])
    with pytest.raises(InputError, match=r"record world/r1: image.crs = EPSG:999999: cannot be used"):
        export(workspace=workspace, split="1,0,0", formats=["geo"], quiet=True)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_failed_flush_of_any_format_is_no_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    workspace = tiny_workspace(tmp_path / "w", [on_the_ground(index) for index in range(3)])

    class Library:
        def syncfs(self, descriptor: int) -> int:
            os.fstat(descriptor)
            import ctypes

            ctypes.set_errno(code)
            return -1

    with monkeypatch.context() as patched:
        patched.setattr("risbench.core.storage.ctypes.CDLL", lambda *args, **options: Library())
        with pytest.raises(MissingRequirementError, match="release: .*the same command to go on|release: the disk is full"):
            export(workspace=workspace, split=".4,.3,.3", quiet=True)
    assert not (workspace / "4-export" / "release").exists()
    assert export(workspace=workspace, split=".4,.3,.3", quiet=True)["state"] == "released"
    assert geopackage.look_into(workspace / "none.gpkg", "train")[1]
