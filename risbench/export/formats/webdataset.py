"""Tar shards for WebDataset."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any, Final

from risbench.core.record import SPLITS, Split
from risbench.export.formats.base import SHARD_BYTES, Check, ReleaseFormat
from risbench.export.triplet import Triplet
from risbench.formats.webdataset import add_member, sample


class WebDatasetShards:
    """<split>-NNNNNN.tar, uncompressed, a sample's four files one behind the other."""

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        folder.mkdir(parents=True)
        self._folder, self._limit = folder, shard_bytes
        self._open: dict[Split, tarfile.TarFile] = {}
        self._counts: dict[Split, int] = dict.fromkeys(SPLITS, 0)

    def add(self, triplet: Triplet) -> None:
        """Append the triplet to the shard of its split."""
        split = triplet.record.split
        assert split is not None, "every record that is released has a split"
        if split not in self._open:
            self._open[split] = tarfile.open(self._folder / f"{split}-{self._counts[split]:06d}.tar", "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 (open for many triplets)
            self._counts[split] += 1
        archive = self._open[split]
        for name, data in sample(triplet.record, triplet.name, triplet.picture.data, triplet.picture.suffix, triplet.mask_png):
            add_member(archive, name, data)
        if archive.offset >= self._limit:
            self._open.pop(split).close()

    def close(self) -> dict[str, Any]:
        """End the open shards; return how many there are."""
        for archive in self._open.values():
            archive.close()
        return {"shards": dict(self._counts)}


def _count(check: Check) -> dict[str, int]:
    return {split: _samples(check.folder / "webdataset", split) for split in SPLITS}


def _samples(folder: Path, split: str) -> int:
    count = 0
    for path in sorted(folder.glob(f"{split}-*.tar")):
        with tarfile.open(path) as archive:
            count += sum(member.name.endswith(".json") for member in archive)
    return count


RELEASE_FORMAT: Final = ReleaseFormat(
    name="webdataset",
    opened='`webdataset/`: `webdataset.WebDataset("webdataset/train-*.tar")`',
    writer=lambda folder, records, dataset: WebDatasetShards(folder / "webdataset"),
    count=_count,
    rank=50,
)
