"""The cache of a release: what passes is no fact about the release, a full disk is an error, and damage is seen."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="the train extra is not installed")

from risbench.benchmark.data import arrays
from risbench.benchmark.data.arrays import ArrayFile, open_array
from risbench.benchmark.data.cache import open_cache
from risbench.benchmark.data.release import fingerprint
from risbench.core.errors import MissingRequirementError
from risbench.core.imagery import encode_png
from risbench.core.storage import digest_of
from risbench.formats.source.tree import Entry


@pytest.fixture
def phrases(tmp_path: Path) -> Path:
    """A release of eight images with a sentence and a mask each."""
    release = tmp_path / "release"
    for folder in ("images", "masks"):
        (release / folder).mkdir(parents=True)
    for number in range(8):
        mask = np.zeros((40, 40, 3), np.uint8)
        mask[4:12, 4:20] = 255
        picture = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        (release / "images" / f"P{number}.png").write_bytes(encode_png(picture))
        (release / "masks" / f"P{number}.png").write_bytes(encode_png(mask))
    for split, numbers in (("train", range(4)), ("val", range(4, 6)), ("test", range(6, 8))):
        (release / f"output_phrase_{split}.txt").write_text("".join(f"P{n}.png the vehicle number {n}\n" for n in numbers))
    return release


class Failing(io.BytesIO):
    """A file whose every read after the first fails as a network drive's does."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(size)


def caches(folder: Path) -> list[Path]:
    """Return the caches that are there to the end."""
    return sorted(path.parent for path in folder.glob("*/cache.json"))


def test_an_image_that_the_system_cannot_read_once_stops_and_leaves_no_cache(
    phrases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = open_cache(phrases, 64, tmp_path / "whole", quiet=True)
    real: Callable[..., Any] = os.open
    for number in (errno.EMFILE, errno.EIO, errno.EACCES, errno.ESTALE):

        def opens(path: Any, *words: Any, number: int = number, **options: Any) -> int:
            if str(path).endswith("images/P3.png"):
                raise OSError(number, os.strerror(number), str(path))
            return int(real(path, *words, **options))

        monkeypatch.setattr(os, "open", opens)
        with pytest.raises(MissingRequirementError, match=r"P3\.png.*same command"):
            open_cache(phrases, 64, tmp_path / "cache", quiet=True)
        monkeypatch.setattr(os, "open", real)
        assert caches(tmp_path / "cache") == []
    made = open_cache(phrases, 64, tmp_path / "cache", quiet=True)
    assert (made.digest, made.all_digest, made.left_out) == (whole.digest, whole.all_digest, {})


def test_an_image_whose_reading_fails_in_the_middle_stops_too(phrases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Entry.open
    monkeypatch.setattr(Entry, "open", lambda entry: Failing(plain(entry).read()) if entry.path.endswith("images/P3.png") else plain(entry))
    with pytest.raises(MissingRequirementError, match=r"P3\.png"):
        open_cache(phrases, 64, tmp_path / "cache", quiet=True)
    assert caches(tmp_path / "cache") == []


def test_a_cache_of_the_form_before_is_made_anew_and_removed(phrases: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    old = folder / digest_of([4, 64, fingerprint(phrases)])[:16]
    old.mkdir(parents=True)
    (old / "cache.json").write_text(json.dumps({"side": 64, "left_out": {"image_damaged": 1}}))
    made = open_cache(phrases, 64, folder, quiet=True)
    assert len(made.samples) == 8
    assert not old.exists()


def test_a_disk_that_fills_while_the_cache_is_written_is_one_line(phrases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*words: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for name in ("posix_fallocate", "pwrite", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(arrays.os, name, full)
            with pytest.raises(MissingRequirementError, match="the disk is full"):
                open_cache(phrases, 64, tmp_path / "cache", quiet=True)
        assert not list((tmp_path / "cache").glob("*/")), "what was begun only takes room"


def test_blocks_are_allocated_before_rows_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*words: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    for way in ("allocated", "zeros"):
        if way == "zeros":
            monkeypatch.setattr(arrays.os, "posix_fallocate", unknown)
        path = tmp_path / f"{way}.npy"
        with ArrayFile(path, (3, 1 << 20)) as file:
            assert path.stat().st_blocks * 512 >= 3 << 20, way
            file.write(1, np.full(1 << 20, 7, np.uint8))
            file.commit()
        found = np.load(path)
        assert found.shape == (3, 1 << 20)
        assert (found[0].max(), found[1].min(), found[2].max()) == (0, 7, 0)


def damages() -> Iterator[Any]:
    """Yield ways in which the files of a cache are damaged, by name."""

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-5])

    def longer(path: Path) -> None:
        path.write_bytes(path.read_bytes() + b"\0\0")

    def flipped(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[20] ^= 1
        path.write_bytes(data)

    def empty(path: Path) -> None:
        path.write_bytes(b"")

    def gone(path: Path) -> None:
        path.unlink()

    for name in ("images.npy", "masks.npy", "samples.jsonl", "cache.json"):
        for damage in (cut, longer, flipped, empty, gone):
            if (name, damage.__name__) not in (("cache.json", "longer"),):
                yield pytest.param(name, damage, id=f"{name} {damage.__name__}")


def test_a_damaged_cache_is_one_line_and_made_anew(phrases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = open_cache(phrases, 64, tmp_path / "cache", quiet=True)
    place = caches(tmp_path / "cache")[0]
    kept = shutil.copytree(place, tmp_path / "kept")
    for case in damages():
        name, damage = case.values
        shutil.rmtree(place)
        shutil.copytree(kept, place)
        damage(place / name)
        capsys.readouterr()
        again = open_cache(phrases, 64, tmp_path / "cache", quiet=True)
        lines = capsys.readouterr().err.splitlines()
        if (name, damage.__name__) == ("cache.json", "gone"):
            assert lines == [], "as if it had never come to its end"
        else:
            assert len(lines) == 1, (case.id, lines)
            assert name in lines[0]
            assert lines[0].endswith("made anew")
        assert again.all_digest == whole.all_digest
        assert np.array_equal(again.images, whole.images), case.id


def test_a_cache_that_the_system_cannot_read_is_not_made_anew(phrases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_cache(phrases, 64, tmp_path / "cache", quiet=True)
    stamp = (caches(tmp_path / "cache")[0] / "images.npy").stat().st_mtime_ns

    def fails(path: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fails)
        with pytest.raises(MissingRequirementError, match="same command"):
            open_cache(phrases, 64, tmp_path / "cache", quiet=True)
    open_cache(phrases, 64, tmp_path / "cache", quiet=True)
    assert (caches(tmp_path / "cache")[0] / "images.npy").stat().st_mtime_ns == stamp


def test_an_array_of_another_shape_is_refused(tmp_path: Path) -> None:
    with ArrayFile(tmp_path / "a.npy", (4, 8)) as file:
        file.commit()
    assert isinstance(open_array(tmp_path / "a.npy", (4, 8)), np.ndarray)
    assert "does not say" in str(open_array(tmp_path / "a.npy", (8, 4)))
    assert "instead of" in str(open_array(tmp_path / "a.npy", (4, 9)))
