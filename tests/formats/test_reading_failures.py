"""What the machine fails to read is no fact about the data, whatever holds the file; and damage of every kind of archive is a refusal."""

from __future__ import annotations

import errno
import io
import os
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from rasterio.transform import Affine

from risbench.core import reading
from risbench.core.errors import InputError, InvalidRowError, MissingRequirementError
from risbench.core.imagery import encode_png
from risbench.formats.geotiff import read_scene
from risbench.formats.source import archives
from risbench.formats.source.tree import Entry, SourceTree
from tests.conftest import picture

IMAGE = encode_png(picture(0))


class Fault:
    """Lets the n-th read below a folder fail once with EIO; `count` is how many there were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at, self.count = 0, 0
        for name in ("readinto", "readall"):
            monkeypatch.setattr(reading._Checked, name, self._failing(getattr(reading._Checked, name)))

    def _failing(self, really: Any) -> Any:
        def read(file: Any, *arguments: Any) -> Any:
            self.count += 1
            if self.count == self.at:
                raise reading.explain_read_error(OSError(errno.EIO, os.strerror(errno.EIO)), file.path)
            return really(file, *arguments)

        return read

    def each(self, limit: int = 300) -> Iterator[int]:
        """Yield n for which the n-th read is to fail, until there are not so many."""
        for number in range(1, limit):
            self.at, self.count = number, 0
            yield number
            if self.count < number:
                return


def write_sources(folder: Path) -> None:
    """Write an image as a file, in a zip and in a tar."""
    (folder / "plain.png").write_bytes(IMAGE)
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("zipped.png", IMAGE)
    with tarfile.open(folder / "b.tar", "w") as archive:
        info = tarfile.TarInfo("tarred.png")
        info.size = len(IMAGE)
        archive.addfile(info, io.BytesIO(IMAGE))


def test_a_read_that_fails_anywhere_in_listing_or_reading_is_no_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sources(tmp_path)
    fault, failed = Fault(monkeypatch), 0
    for _ in fault.each():
        try:
            tree = SourceTree.open(tmp_path)
            assert [entry.path for entry in tree.entries] == ["a.zip/zipped.png", "b.tar/tarred.png", "plain.png"]
            assert tree.refused == []
            assert {entry.read() for entry in tree.entries} == {IMAGE}
        except MissingRequirementError as error:
            assert "cannot be read: Input/output error; mend that, then run the same command to go on" in str(error)
            failed += 1
    assert failed > 6
    assert failed == fault.count


def test_a_parquet_that_cannot_be_read_is_no_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")

    def fails(*_: object) -> bool:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(archives, "is_record_table", fails)
    with pytest.raises(MissingRequirementError, match="a.parquet: cannot be read: Stale file handle"):
        SourceTree.open(tmp_path)


def test_a_file_that_is_gone_after_the_listing_stops_and_one_that_became_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(IMAGE)
    entry = SourceTree.open(tmp_path).entries[0]
    (tmp_path / "a.png").rename(tmp_path / "b.png")
    with pytest.raises(MissingRequirementError, match=r"a\.png: is gone, though the source held it a moment ago"):
        entry.open()
    (tmp_path / "a.png").symlink_to("b.png")
    with pytest.raises(InvalidRowError, match="unreadable"):
        entry.open()


def test_a_zip_that_was_replaced_under_its_name_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    for members in ({"one.png": IMAGE}, {"one.png": IMAGE[:-20], "two.png": IMAGE}):
        with zipfile.ZipFile(path, "w") as packed:
            for name, data in members.items():
                packed.writestr(name, data)
        tree = SourceTree.open(path)
        assert {entry.path: entry.read() for entry in tree.entries} == members
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("other.png", IMAGE)
    with pytest.raises(InputError, match=r"a\.zip: was changed while it was read; run the same command again"):
        tree.entries[0].read()


def lzma_damaged(data: bytearray) -> None:
    place = data.index(b"one.png") + len("one.png") + 12
    data[place : place + 40] = bytes(range(40))


def not_utf8_inside(data: bytearray) -> None:
    data[data.index(b"one.png")] = 0xFF
    data[6:8] = (0x800).to_bytes(2, "little")  # the local header says that its name is UTF-8


def not_utf8(data: bytearray) -> None:
    place = data.index(b"PK\x01\x02")
    data[place + 8 : place + 10] = (0x800).to_bytes(2, "little")
    data[place + 46] = 0xFF


def of_the_future(data: bytearray) -> None:
    data[data.index(b"PK\x01\x02") + 6] = 208


def begins_before_the_file(data: bytearray) -> None:
    end = data.rfind(b"PK\x05\x06")
    where = int.from_bytes(data[end + 16 : end + 20], "little")
    data[end + 16 : end + 20] = (where + 100_000).to_bytes(4, "little")


@pytest.mark.parametrize("damage", [lzma_damaged, not_utf8_inside, not_utf8, of_the_future, begins_before_the_file])
def test_every_kind_of_damage_to_a_zip_is_a_refusal_by_name(tmp_path: Path, damage: Any) -> None:
    (tmp_path / "kept.png").write_bytes(IMAGE)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as packed:
        packed.writestr("one.png", IMAGE)
    data = bytearray(path.read_bytes())
    damage(data)
    path.write_bytes(data)
    tree = SourceTree.open(tmp_path)
    reasons = [reason for _, reason in tree.refused]
    for entry in tree.entries:
        if entry.member is not None:
            with pytest.raises(InvalidRowError) as caught:
                entry.read()
            reasons.append(caught.value)
    assert [reason.code for reason in reasons] == ["damaged_archive"]
    assert "()" not in reasons[0].bound


@pytest.mark.parametrize("kind", ["digits", "long name"])
def test_headers_of_a_tar_that_take_minutes_to_parse_are_refused_at_once(tmp_path: Path, kind: str) -> None:
    (tmp_path / "kept.png").write_bytes(IMAGE)
    info = tarfile.TarInfo("x")
    content = b"1" * 200_000 if kind == "digits" else b"n" * (3 << 20)
    info.type, info.size = tarfile.XHDTYPE if kind == "digits" else tarfile.GNUTYPE_LONGNAME, len(content)
    (tmp_path / "a.tar").write_bytes(info.tobuf() + content + bytes(-len(content) % 512 + 1024))
    start = time.process_time()
    tree = SourceTree.open(tmp_path)
    assert time.process_time() - start < 1
    assert [(path, reason.code) for path, reason in tree.refused] == [("a.tar", "damaged_archive")]
    assert "at most" in str(tree.refused[0][1])


@pytest.mark.parametrize("name", ["file:", "https:", "GTIFF_DIR:1:", "zip:", "/vsicurl"])
def test_gdal_is_given_no_name_that_means_something_else_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    place = tmp_path / "source" / name.lstrip("/")
    place.mkdir(parents=True)
    options: dict[str, Any] = {"driver": "GTiff", "count": 1, "dtype": "uint8", "crs": "EPSG:32616", "transform": Affine(1, 0, 0, 0, -1, 0)}
    with rasterio.open(place / "a.tif", "w", width=40, height=40, **options) as dataset:
        dataset.write(np.zeros((1, 40, 40), np.uint8))
    monkeypatch.chdir(tmp_path / "source")
    opened: list[object] = []
    really = rasterio.open
    monkeypatch.setattr(rasterio, "open", lambda path, *rest, **more: (opened.append(path), really(path, *rest, **more))[1])
    scene = read_scene(Entry(f"{name.lstrip('/')}/a.tif", 1, Path(name.lstrip("/")) / "a.tif"))
    assert (scene.width, scene.crs) == (40, "EPSG:32616")
    assert all(str(path).startswith("/dev/fd/") for path in opened)


def test_a_backup_or_kept_corners_that_cannot_be_read_are_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from risbench.core.overlap import CORNER
    from risbench.ingest.duplicates import _read_corners, write_corners
    from risbench.review.verbs.backup import _unpack

    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("backup.json", '{"format": 1, "files": {}}')
    write_corners(tmp_path / "c.npz", {"a.png": np.zeros(3, CORNER)})
    fault, ended = Fault(monkeypatch), 0
    for read in (lambda: _unpack(tmp_path / "b.zip", tmp_path / "desk"), lambda: _read_corners([tmp_path / "c.npz"])):
        for number in fault.each():
            if (tmp_path / "desk").exists():
                (tmp_path / "desk").rmdir()
            try:
                read()
            except MissingRequirementError:
                ended += 1
            else:
                assert fault.count < number, "a failed read went unnoticed"
    assert ended >= 2
