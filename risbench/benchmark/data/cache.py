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
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch.nn import functional

from risbench.benchmark.data.arrays import ArrayFile, open_array
from risbench.benchmark.data.release import Release, Sample, by_image, fingerprint, image_of, read_release
from risbench.benchmark.load_settings import need_release
from risbench.core.errors import InputError, InvalidRowError, MissingRequirementError, printable
from risbench.core.progress import Progress
from risbench.core.storage import digest_of, explain_os_error, explain_read_error, sha256_of, to_json, write_durably

# Counts up when the same release gives other samples or pixels; the digests of runs and of figures hang on it.
_REVISION: Final = 4
# Counts up when the files are others for the same samples: older caches are then made anew, and runs go on.
_FORM: Final = 2
_ABOUT: Final = "cache.json"
_SAMPLES: Final = "samples.jsonl"


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


class _About(BaseModel):
    """What `cache.json` says: the commit point of a cache, and how large its files are."""

    model_config = ConfigDict(extra="forbid", strict=True, title=_ABOUT)

    side: int = Field(gt=0)
    format: str
    digest: str
    all_digest: str
    left_out: dict[str, int]
    first: list[str]
    images: int = Field(gt=0)
    masks: int = Field(gt=0)
    samples_sha256: str
    checksum: str = ""

    def own_digest(self) -> str:
        """Return the digest of all of it but `checksum`, which should be it."""
        return digest_of(self.model_dump(exclude={"checksum"}))


class _Row(BaseModel):
    """A line of `samples.jsonl`: a sample, its row among the masks, and its image's among the images."""

    model_config = ConfigDict(extra="forbid", title=_SAMPLES)

    sample: Sample
    row: int = Field(ge=0)
    of_image: int = Field(ge=0)


def open_cache(release: Path | str, side: int, folder: Path, *, quiet: bool = False) -> Cache:
    """Return a release's cache below `folder`, made where it is missing or damaged, or the release has changed.

    Raises:
        InputError: the release has no triplets.
        MissingRequirementError: the disk is full, or a file cannot be read or written; none of that becomes a fact about the release.
    """
    source = Path(release)
    need_release(source)
    stated = fingerprint(source)
    place = folder / digest_of([_FORM, _REVISION, side, stated])[:16]
    cache = _read(place)
    if isinstance(cache, Cache):
        return cache
    with _alone(folder, place.name):
        cache = _read(place)  # another process may have made it
        if isinstance(cache, str):
            if cache:
                print(f"risbench: {printable(f'{place}: {cache}; this cache is made anew', 2000)}", file=sys.stderr)
            # the form before kept an image that could not be read for a moment as one that is not there
            shutil.rmtree(folder / digest_of([_REVISION, side, stated])[:16], ignore_errors=True)
            _make(source, side, place, quiet)
            cache = _read(place)
    if isinstance(cache, str):
        raise MissingRequirementError(
            f"{place}: {cache or 'it is gone'}, just after it was written; check the disk, or give another --cache"
        )
    return cache


@contextlib.contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """Wait until no other process makes the cache of this name, and keep others waiting."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / f".{name}.lock", "a", encoding="utf-8")  # noqa: SIM115 (closed by the with below)
    except OSError as error:
        raise explain_os_error(error, folder) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise explain_os_error(error, folder / f".{name}.lock") from error
        yield


def _make(source: Path, side: int, place: Path, quiet: bool) -> None:
    """Make a cache; what does not come to its end is removed, as it only takes room."""
    release = read_release(source)
    groups = list(by_image(release.samples))
    needed = len(groups) * side * side * 3 + len(release.samples) * (side * side // 8 + 1)
    shutil.rmtree(place, ignore_errors=True)
    try:
        place.mkdir(parents=True)
    except OSError as error:
        raise explain_os_error(error, place) from error
    try:
        free = shutil.disk_usage(place).free
        if needed > free:
            raise MissingRequirementError(
                f"{place}: the cache needs {needed:,} bytes and {free:,} are free; make room, or give another --cache"
            )
        gone, digests = _write_arrays(release, groups, side, place, quiet)
        _commit(source, side, place, release, groups, digests, gone)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _write_arrays(
    release: Release, groups: Sequence[tuple[str, list[int]]], side: int, place: Path, quiet: bool
) -> tuple[dict[int, InvalidRowError], list[str]]:
    """Write images and masks; return the samples that cannot be used, by number, and the images' digests.

    Raises:
        MissingRequirementError: the disk is full, or an image cannot be read although it is there.
    """
    digests = [""] * len(groups)
    gone: dict[int, InvalidRowError] = {}
    with (
        ArrayFile(place / "images.npy", (len(groups), side, side, 3)) as images,
        ArrayFile(place / "masks.npy", (len(release.samples), -(-side * side // 8))) as masks,
    ):

        def one(index: int) -> list[tuple[int, InvalidRowError]]:
            """Write an image's row and its samples'; return those that cannot be used."""
            path, numbers = groups[index]
            try:
                pixels = image_of(release.tree, path)
            except InvalidRowError as reason:
                return [(number, reason) for number in numbers]
            images.write(index, resized(pixels, side))
            digests[index] = sha256_of(pixels.tobytes() + repr(pixels.shape).encode())
            bad = []
            for number in numbers:
                sample = release.samples[number]
                if sample.size == pixels.shape[:2]:
                    masks.write(number, np.packbits(resized_mask(sample.mask, side)))
                else:
                    shown = f"{pixels.shape[1]} x {pixels.shape[0]}"
                    bad.append((number, InvalidRowError("wrong_size", "mask", list(sample.size), f"its image {path} is {shown} px")))
            return bad

        with Progress("cache", len(groups), quiet=quiet) as bar, ThreadPoolExecutor(os.cpu_count()) as pool:
            for found in pool.map(one, range(len(groups))):
                bar.advance(1)
                gone.update(found)
        images.commit()
        masks.commit()
    return gone, digests


def _commit(
    source: Path,
    side: int,
    place: Path,
    release: Release,
    groups: Sequence[tuple[str, list[int]]],
    digests: Sequence[str],
    gone: Mapping[int, InvalidRowError],
) -> None:
    """Write what the samples are, and last what the cache is."""
    for number, reason in gone.items():
        release.leave_out(release.samples[number].id, reason)
    if len(gone) == len(release.samples):
        raise InputError(f"{source}: no image of it can be used: {'; '.join(release.first)}")
    # one picture under several names, as the released set has one a referent, is one image
    first: dict[str, int] = {}
    of_image = {number: first.setdefault(digests[index], index) for index, (_, numbers) in enumerate(groups) for number in numbers}
    lines: list[dict[str, Any]] = []
    for number, sample in enumerate(release.samples):
        if number not in gone:
            shown = {**sample.to_json(), "image": groups[of_image[number]][0]}
            lines.append({"sample": shown, "row": number, "of_image": of_image[number]})
    data = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines).encode()
    write_durably(place / _SAMPLES, data)
    rows = [{**line["sample"], "row": line["row"], "of_image": line["of_image"]} for line in lines]
    contents = [(row["id"], row["split"], row["sentence"], row["counts"], digests[row["of_image"]]) for row in rows]
    about = _About(
        side=side,
        format=release.format,
        digest=digest_of([_REVISION, side, contents]),
        all_digest=digest_of([_REVISION, side, rows, contents, dict(sorted(release.left_out.items()))]),
        left_out=dict(sorted(release.left_out.items())),
        first=release.first,
        images=len(groups),
        masks=len(release.samples),
        samples_sha256=sha256_of(data),
    )
    write_durably(place / _ABOUT, to_json({**about.model_dump(), "checksum": about.own_digest()}))


def _read(place: Path) -> Cache | str:
    """Return a cache, or in words what is wrong with it; "" where there is none.

    Raises:
        MissingRequirementError: a file is there and cannot be read.
    """
    try:
        return _read_files(place)
    except FileNotFoundError as error:
        return "" if str(error.filename) == str(place / _ABOUT) else f"{Path(str(error.filename)).name} is missing"
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(piece) for piece in first["loc"])
        return f"{error.title} is damaged ({field or 'as a whole'}: {first['msg']})"
    except OSError as error:
        raise explain_read_error(error, place) from error


def _read_files(place: Path) -> Cache | str:
    about = _About.model_validate_json((place / _ABOUT).read_bytes())
    if about.checksum != about.own_digest():
        return f"{_ABOUT} is damaged: its checksum is not its own"
    data = (place / _SAMPLES).read_bytes()
    if sha256_of(data) != about.samples_sha256:
        return f"{_SAMPLES} is damaged: its sha256 is not the one in {_ABOUT}"
    rows = [_Row.model_validate_json(line) for line in data.splitlines()]
    if not rows or any(row.row >= about.masks or row.of_image >= about.images for row in rows):
        return f"{_SAMPLES} is damaged: it does not fit the arrays of {_ABOUT}"
    images = open_array(place / "images.npy", (about.images, about.side, about.side, 3))
    masks = open_array(place / "masks.npy", (about.masks, -(-about.side * about.side // 8)))
    if isinstance(images, str) or isinstance(masks, str):
        return images if isinstance(images, str) else str(masks)
    return Cache(
        side=about.side,
        digest=about.digest,
        all_digest=about.all_digest,
        format=about.format,
        samples=[row.sample for row in rows],
        image_of=np.array([row.of_image for row in rows], dtype=np.int64),
        images=images,
        masks=masks,
        rows=np.array([row.row for row in rows], dtype=np.int64),
        left_out=about.left_out,
        first=about.first,
    )
