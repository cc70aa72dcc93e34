"""A release at the side a model sees, in memory-mapped files: decoded and resized once, not once an epoch.

Images are resized as the peers do it, with PIL's bilinear filter and without keeping the aspect ratio, masks by nearest neighbours
(docs/benchmark.md). 52,472 triplets on 29,614 images take 19 GiB at 480 pixels.
"""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from risbench.benchmark.data.release import Sample, by_image, fingerprint, image_of, read_release
from risbench.core.errors import EnvironmentLacks, InputError, Refusal
from risbench.core.progress import Progress
from risbench.core.storage import digest_of, sha256_of, to_json, write_durably

_REVISION: Final = 1


@dataclass(frozen=True)
class Cache:
    """Samples with `images` (n, side, side, 3) uint8 and `masks` (samples, side x side / 8) of packed bits.

    `image_of` gives a sample's row in `images`; `left_out` and `first` say what of the release could not be used.
    """

    side: int
    digest: str
    format: str
    samples: list[Sample]
    image_of: NDArray[np.int64]
    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    left_out: dict[str, int]
    first: list[str]

    def of(self, split: str) -> NDArray[np.int64]:
        """Return the numbers of a split's samples, in the order of their ids."""
        return np.array([number for number, sample in enumerate(self.samples) if sample.split == split], dtype=np.int64)

    def mask(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return masks (len(numbers), side, side) of 0 and 1."""
        bits = np.unpackbits(self.masks[numbers], axis=1, count=self.side * self.side)
        return bits.reshape(-1, self.side, self.side)


def resized(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return an image (height, width, 3) as (side, side, 3), as PIL's bilinear filter makes it, which the peers' loaders use."""
    if pixels.shape[:2] == (side, side):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR))


def resized_mask(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Return a mask (height, width) as (side, side), by nearest neighbours."""
    if mask.shape == (side, side):
        return mask
    made = Image.fromarray(mask.astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST)
    return np.asarray(made).astype(bool)


def open_cache(release: Path | str, side: int, folder: Path, *, quiet: bool = False) -> Cache:
    """Return a release's cache below `folder`, made where it is missing or the release has changed.

    Raises:
        InputError: the release has no triplets.
        EnvironmentLacks: the disk is full.
    """
    source = Path(release)
    if not source.exists():
        raise InputError(f"{source}: there is no such release; `risbench export --split` makes one")
    key = digest_of([_REVISION, side, fingerprint(source)])[:16]
    place = folder / key
    if not (place / "cache.json").exists():
        _make(source, side, place, key, quiet)
    return _opened(place)


def _make(source: Path, side: int, place: Path, key: str, quiet: bool) -> None:
    release = read_release(source)
    groups = list(by_image(release.samples))
    needed = len(groups) * side * side * 3 + len(release.samples) * (side * side // 8 + 1)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    free = shutil.disk_usage(place).free
    if needed > free:
        raise EnvironmentLacks(f"{place}: the cache needs {needed:,} bytes and {free:,} are free; make room, or give another --cache")
    images = _mapped(place / "images.npy", (len(groups), side, side, 3))
    masks = _mapped(place / "masks.npy", (len(release.samples), -(-side * side // 8)))
    bad: list[tuple[int, Refusal]] = []
    digests = [""] * len(groups)
    with Progress("cache", len(groups), quiet=quiet) as bar, ThreadPoolExecutor(os.cpu_count()) as pool:

        def one(index: int) -> tuple[int, Refusal] | None:
            path, numbers = groups[index]
            try:
                pixels = image_of(release.tree, path)
                for number in numbers:
                    sample = release.samples[number]
                    if sample.size != pixels.shape[:2]:
                        size = f"{pixels.shape[1]} x {pixels.shape[0]}"
                        raise Refusal("wrong_size", "mask", list(sample.size), f"the image {path} of sample {sample.id} is {size} px")
            except Refusal as reason:
                return index, reason
            images[index] = resized(pixels, side)
            digests[index] = sha256_of(pixels.tobytes())
            for number in numbers:
                masks[number] = np.packbits(resized_mask(release.samples[number].mask, side))
            return None

        for found in pool.map(one, range(len(groups))):
            bar.advance(1)
            if found is not None:
                bad.append(found)
    for array in (images, masks):
        assert isinstance(array, np.memmap), "it was mapped above"
        array.flush()
    gone = {number: reason for index, reason in bad for number in groups[index][1]}
    for number, reason in gone.items():
        release.leave_out(release.samples[number].id, reason)
    if len(gone) == len(release.samples):
        raise InputError(f"{source}: no image of it can be read: {'; '.join(release.first)}")
    of_image = {number: index for index, (_, numbers) in enumerate(groups) for number in numbers}
    kept = [(number, sample) for number, sample in enumerate(release.samples) if number not in gone]
    rows = [{**sample.to_json(), "row": number, "of_image": of_image[number]} for number, sample in kept]
    write_durably(place / "samples.jsonl", "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode())
    contents = [(row["id"], row["split"], row["sentence"], row["counts"], digests[row["of_image"]]) for row in rows]
    about = {
        "side": side,
        "format": release.format,
        "digest": digest_of([side, contents]),
        "left_out": dict(sorted(release.left_out.items())),
        "first": release.first,
    }
    write_durably(place / "cache.json", to_json(about))


def _mapped(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return a new file of bytes as an array, whose pages are written when they are."""
    made: NDArray[np.uint8] = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)  # type: ignore[no-untyped-call]
    return made


def _opened(place: Path) -> Cache:
    about: dict[str, Any] = json.loads((place / "cache.json").read_text())
    rows = [json.loads(line) for line in (place / "samples.jsonl").read_text().splitlines()]
    numbers = np.array([row.pop("row") for row in rows], dtype=np.int64)
    of_image = np.array([row.pop("of_image") for row in rows], dtype=np.int64)
    masks = np.load(place / "masks.npy", mmap_mode="r")
    return Cache(
        side=about["side"],
        digest=about["digest"],
        format=about["format"],
        samples=[Sample.from_json(row) for row in rows],
        image_of=of_image,
        images=np.load(place / "images.npy", mmap_mode="r"),
        masks=masks if len(numbers) == len(masks) else masks[numbers],
        left_out=about["left_out"],
        first=about["first"],
    )
