"""A release at the side a model sees, in memory-mapped files: decoded and resized once, not once an epoch.

Images are resized as the peers do it, with PIL's bilinear filter (PyTorch's quicker writing of it) and without keeping the aspect ratio,
masks by nearest neighbours (docs/benchmark.md). 52,472 triplets on 29,614 images take 21 GiB at 480 pixels.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from risbench.benchmark.data.release import Release, Sample, by_image, fingerprint, image_of, read_release
from risbench.core.errors import EnvironmentLacks, InputError, Refusal
from risbench.core.progress import Progress
from risbench.core.storage import digest_of, sha256_of, to_json, write_durably

_REVISION: Final = 4


@dataclass(frozen=True)
class Cache:
    """Samples with `images` (n, side, side, 3) uint8 and `masks` (samples, side x side / 8) of packed bits.

    `image_of` gives a sample's row in `images`, `rows` its row in `masks`; `left_out` and `first` say what of the release could not be
    used. `digest` is of what is learnt from, `all_digest` of everything that is told of samples.
    """

    side: int
    digest: str
    all_digest: str
    format: str
    samples: list[Sample]
    image_of: NDArray[np.int64]
    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    rows: NDArray[np.int64]
    left_out: dict[str, int]
    first: list[str]

    def of(self, split: str) -> NDArray[np.int64]:
        """Return the numbers of a split's samples, in the order of their ids."""
        return np.array([number for number, sample in enumerate(self.samples) if sample.split == split], dtype=np.int64)

    def needed(self, split: str, release: Path | str, only: Set[str] | None = None) -> NDArray[np.int64]:
        """Return the numbers of a split's samples, of those with an id in `only` where that is given.

        Raises:
            InputError: there is none in `release`.
        """
        numbers = self.of(split)
        if only is not None:
            numbers = numbers[[self.samples[number].id in only for number in numbers.tolist()]]
        if not len(numbers):
            told = f" (left out: {'; '.join(self.first)})" if self.first else ""
            raise InputError(f"{release}: has no sample in its {split} split{told}; `risbench export --split` makes one with all three")
        return numbers

    def mask(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return masks (len(numbers), side, side) of 0 and 1."""
        bits = np.unpackbits(self.masks[self.rows[numbers]], axis=1, count=self.side * self.side)
        return bits.reshape(-1, self.side, self.side)


def resized(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return an image (height, width, 3) as (side, side, 3), as PIL's bilinear filter makes it, which the peers' loaders use.

    It is PyTorch's writing of that filter, more than five times as fast; a few values in a hundred differ by one grey level.
    """
    if pixels.shape[:2] == (side, side):
        return pixels
    # in this order of operations PyTorch knows that channels come last, and takes its quickest way
    given = torch.tensor(pixels)[None].permute(0, 3, 1, 2)
    made = functional.interpolate(given, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return np.ascontiguousarray(made[0].permute(1, 2, 0).numpy())


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
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / f".{key}.lock"):
            if not (place / "cache.json").exists():
                _make(source, side, place, quiet)
    return _opened(place)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process makes this cache, and keep others waiting."""
    with open(path, "a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(source: Path, side: int, place: Path, quiet: bool) -> None:
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
    digests = [""] * len(groups)

    def one(index: int) -> list[tuple[int, Refusal]]:
        """Fill an image's row and its samples'; return those that cannot be used."""
        path, numbers = groups[index]
        try:
            pixels = image_of(release.tree, path)
        except Refusal as reason:
            return [(number, reason) for number in numbers]
        images[index] = resized(pixels, side)
        digests[index] = sha256_of(pixels.tobytes() + repr(pixels.shape).encode())
        bad = []
        for number in numbers:
            sample = release.samples[number]
            if sample.size == pixels.shape[:2]:
                masks[number] = np.packbits(resized_mask(sample.mask, side))
            else:
                shown = f"{pixels.shape[1]} x {pixels.shape[0]}"
                bad.append((number, Refusal("wrong_size", "mask", list(sample.size), f"its image {path} is {shown} px")))
        return bad

    gone: dict[int, Refusal] = {}
    with Progress("cache", len(groups), quiet=quiet) as bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(one, range(len(groups))):
            bar.advance(1)
            gone.update(found)
    for array in (images, masks):
        assert isinstance(array, np.memmap), "it was mapped above"
        array.flush()
    _commit(source, side, place, release, groups, digests, gone)


def _commit(
    source: Path,
    side: int,
    place: Path,
    release: Release,
    groups: Sequence[tuple[str, list[int]]],
    digests: Sequence[str],
    gone: Mapping[int, Refusal],
) -> None:
    """Write what the samples are, and last what the cache is."""
    for number, reason in gone.items():
        release.leave_out(release.samples[number].id, reason)
    if len(gone) == len(release.samples):
        raise InputError(f"{source}: no image of it can be used: {'; '.join(release.first)}")
    # one picture under several names, as the released set has one a referent, is one image
    first: dict[str, int] = {}
    of_image = {number: first.setdefault(digests[index], index) for index, (_, numbers) in enumerate(groups) for number in numbers}
    rows = []
    for number, sample in enumerate(release.samples):
        if number not in gone:
            path = groups[of_image[number]][0]
            rows.append({**sample.to_json(), "image": path, "row": number, "of_image": of_image[number]})
    write_durably(place / "samples.jsonl", "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode())
    contents = [(row["id"], row["split"], row["sentence"], row["counts"], digests[row["of_image"]]) for row in rows]
    about = {
        "side": side,
        "format": release.format,
        "digest": digest_of([_REVISION, side, contents]),
        "all_digest": digest_of([_REVISION, side, rows, contents, dict(sorted(release.left_out.items()))]),
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
    return Cache(
        side=about["side"],
        digest=about["digest"],
        all_digest=about["all_digest"],
        format=about["format"],
        samples=[Sample.from_json(row) for row in rows],
        image_of=of_image,
        images=np.load(place / "images.npy", mmap_mode="r"),
        masks=np.load(place / "masks.npy", mmap_mode="r"),
        rows=numbers,
        left_out=about["left_out"],
        first=about["first"],
    )
