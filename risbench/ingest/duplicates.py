"""Images of one ingest that are copies of each other, near copies, or show the same ground."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from risbench.core.errors import InputError
from risbench.core.imagery import Pixels, near_duplicates, read_raster
from risbench.core.overlap import BANDS, CORNER, Corners, alike, at_source_scale, overlap_of
from risbench.core.progress import Progress
from risbench.core.reading import open_to_read
from risbench.core.record import ImageRef, Placement, Record
from risbench.core.storage import to_json, write_durably
from risbench.core.workspace import part_files


def write_corners(path: Path, corners: Mapping[str, Corners]) -> None:
    """Keep a part's corners, by image path, until the stage ends."""
    found = io.BytesIO()
    every = np.concatenate([*corners.values(), np.zeros(0, CORNER)])
    np.savez(found, names=np.array(list(corners), np.str_), counts=np.array([len(of) for of in corners.values()], np.int64), corners=every)
    write_durably(path, found.getvalue())


def _read_corners(paths: Sequence[Path]) -> dict[str, Corners]:
    corners: dict[str, Corners] = {}
    for path in paths:
        with open_to_read(path) as file, np.load(file, allow_pickle=False) as found:  # zipfile takes an OSError for "no zip"
            parted = np.split(found["corners"], np.cumsum(found["counts"])[:-1])
            corners.update(zip(map(str, found["names"]), parted, strict=True) if len(found["names"]) else ())
    return corners


def write_duplicates(folder: Path, root: Path, kept: Sequence[Path], quiet: bool) -> dict[str, Any]:
    """Write duplicates.json: images that are copies, near copies, or show the same ground; return what to count of it.

    `kept` are the files of write_corners; images are read from the workspace `root` only where two seem to overlap.
    """
    images = _images_of(folder)
    paths = sorted(images)
    exact: dict[str, list[str]] = {}
    for path in paths:
        exact.setdefault(images[path][0].sha256, []).append(path)
    copies = [group for group in exact.values() if len(group) > 1]
    close = near_duplicates([images[path][0].perceptual_hash for path in paths])
    near = [[paths[i], paths[j]] for i, j in close if images[paths[i]][0].sha256 != images[paths[j]][0].sha256]
    # of exact copies one stands for all
    shared = _overlaps(root, [images[group[0]] for group in exact.values()], _read_corners(kept), quiet)
    write_durably(folder / "duplicates.json", to_json({"exact": copies, "near": near, "overlapping": shared}))
    return {
        "images": len(paths),
        "scenes": len({image.scene for image, _ in images.values()}),
        "duplicate_images": {
            "exact": sum(len(group) - 1 for group in copies),
            "near_pairs": len(near),
            "overlapping_pairs_of_different_scenes": len(shared),
        },
    }


def _images_of(folder: Path) -> dict[str, tuple[ImageRef, Placement]]:
    """Return the images of a stage's records by path; of records whose lines say the same of their image one is read."""
    images: dict[str, tuple[ImageRef, Placement]] = {}
    seen: set[str] = set()
    for part in part_files(folder):  # run.json, which lists them, is not written yet
        for line in part.read_text(encoding="utf-8").split("\n")[:-1]:
            # in text a quote is escaped, so that the first of these is the field
            said = line[line.index('"image":{') : line.index('"category":{')]
            if said not in seen:
                seen.add(said)
                record = Record.model_validate_json(line)
                images[record.image.path] = (record.image, record.placement)
    return images


def _overlaps(root: Path, images: Sequence[tuple[ImageRef, Placement]], found: Mapping[str, Corners], quiet: bool) -> list[dict[str, Any]]:
    """Return the pairs of images of different scenes that show the same ground, and how."""

    @lru_cache(maxsize=16)
    def read(index: int) -> Pixels:
        image, placement = images[index]
        path = root / image.path
        try:
            with open_to_read(path) as file:
                return at_source_scale(read_raster(file, image.path).pixels, placement)
        except FileNotFoundError:
            raise InputError(f"{path}: was written by this run and is gone; run ingest again with --replace") from None

    corners = [found[image.path] for image, _ in images]
    with Progress("ground shown twice", BANDS, quiet=quiet) as progress:
        pairs = alike(corners, [image.scene for image, _ in images], progress.advance)
    shared: list[dict[str, Any]] = []
    with Progress("ground shown twice: proof", len(pairs), quiet=quiet) as progress:
        for pair in pairs:
            overlap = overlap_of(pair, corners, read)
            if overlap is not None:
                found_pair = {"images": [images[index][0].path for index in pair], "shift_px": overlap.shift}
                shared.append({**found_pair, "share": overlap.share, "correlation": overlap.correlation})
            progress.advance(1)
    return shared
