"""What every release format is written from: one triplet at a time, its image read and its mask decoded once."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.core.imagery import Pixels, encode_png
from risbench.core.images import decoded_image, image_bytes
from risbench.core.masks import mask_of
from risbench.core.record import Record
from risbench.core.storage import sha256_of


@dataclass
class Picture:
    """An image as it lies in the workspace."""

    path: str
    data: bytes
    file: Path
    placed: Path | None = None

    @property
    def suffix(self) -> str:
        """The file name's suffix, with its dot."""
        return self.file.suffix

    @cached_property
    def png(self) -> bytes:
        """The content as PNG."""
        if self.suffix == ".png":
            return self.data
        return encode_png(self.pixels)

    @cached_property
    def pixels(self) -> Pixels:
        """The pixels (height, width, 3)."""
        return decoded_image(self.data, self.file, self.path)

    def put(self, target: Path) -> None:
        """Write the content, or hard-link it to where this release has it already."""
        if self.placed is None:
            target.write_bytes(self.data)
            self.placed = target
        else:
            link(self.placed, target)


def link(first: Path, target: Path) -> None:
    """Give a file a second name, or copy it on a file system without hard links, or where it has too many of them."""
    try:
        os.link(first, target)
    except OSError:
        shutil.copyfile(first, target)


@dataclass(frozen=True)
class Triplet:
    """A record with a mask, a sentence and a split; `name` is its own image name, as the released set has one per referent."""

    record: Record
    name: str
    picture: Picture

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """The mask (height, width)."""
        assert self.record.mask is not None, "export leaves records without a mask out"
        return mask_of(self.record.mask)

    @cached_property
    def mask_png(self) -> bytes:
        """The mask as PNG of 0 and 255, which the peers' loaders expect."""
        return _png(self.mask, [])

    @cached_property
    def mask_bits_png(self) -> bytes:
        """The mask as PNG of one bit a pixel."""
        # Level 9 takes .46 ms instead of .27 on real outlines of 512 x 512, and makes half as many bytes as OpenCV's default.
        return _png(self.mask, [cv2.IMWRITE_PNG_BILEVEL, 1, cv2.IMWRITE_PNG_COMPRESSION, 9])


def _png(mask: NDArray[np.bool_], options: Sequence[int]) -> bytes:
    done, data = cv2.imencode(".png", mask.astype(np.uint8) * 255, options)
    assert done, "PNG encoding failed"
    return data.tobytes()


class Writer(Protocol):
    """Writes one format: every triplet once, then the end."""

    def add(self, triplet: Triplet) -> None:
        """Write or keep what this triplet adds."""

    def close(self) -> dict[str, Any]:
        """Write the rest and return what there is to say of the format."""


def triplets(records: Sequence[Record], root: Path) -> Iterator[Triplet]:
    """Yield the records with their images, of which only the last is kept: an image's records stand together.

    Raises:
        UnusableImage: an image is gone, or is not the one that was ingested.
    """
    names = referent_names(records)
    picture: Picture | None = None
    for record in records:
        if picture is None or picture.path != record.image.path:
            data = image_bytes(root, record.image.path, record.image.sha256)
            picture = Picture(record.image.path, data, root / record.image.path)
        yield Triplet(record, names[record.id], picture)


def referent_names(records: Sequence[Record]) -> dict[str, str]:
    """Return one file stem per record, as the released set has one image name per referent; none depends on order."""
    plain = {record.id: re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join(record.id.split("/")[1:])) for record in records}
    counts = Counter(name.casefold() for name in plain.values())
    return {key: name if counts[name.casefold()] == 1 else f"{name}-{sha256_of(key.encode())[:8]}" for key, name in plain.items()}


def image_names(records: Sequence[Record]) -> dict[str, str]:
    """Return one file name per image path, each with a stem of its own: with its folders in front where two share one."""
    paths = sorted({record.image.path for record in records})
    counts = Counter(Path(path).stem.casefold() for path in paths)
    names = {path: Path(path).name if counts[Path(path).stem.casefold()] == 1 else "__".join(Path(path).parts[1:]) for path in paths}
    again = Counter(Path(name).stem.casefold() for name in names.values())
    alike = {path for path, name in names.items() if again[Path(name).stem.casefold()] > 1}
    return {path: f"{sha256_of(path.encode())[:8]}-{name}" if path in alike else name for path, name in names.items()}
