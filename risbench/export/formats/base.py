"""What a release format is: a name, how it is written, how it is checked, and how users open it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from risbench.core.progress import Progress
from risbench.core.record import Record
from risbench.export.triplet import Triplet, Writer
from risbench.formats.split_list import SplitList

SHARD_BYTES: Final = 400_000_000


@dataclass(frozen=True)
class Check:
    """What `verify` hands to a format: the release's folder and description, its split list, and the list that faults are added to."""

    folder: Path
    described: Mapping[str, Any]
    frozen: SplitList
    faults: list[str]
    progress: Progress

    def written(self, name: str) -> Any:
        """Return what a format's writer said of what it wrote."""
        return self.described["written"][name]


def _always(records: Sequence[Record]) -> bool:
    return True


@dataclass(frozen=True)
class ReleaseFormat:
    """One release format; docs/architecture.md says how to add one.

    `writer` makes what writes it below the release's folder from the records, which all have a split, and the data set's name.
    `opened` is Markdown for the card: what to open with what. `count` returns how many triplets each split holds and adds the faults
    that it sees; None where the format does not count triplets. `possible` says whether there is anything to write of the
    records, and `impossible` what none of them has. `tables` is a pattern of the Parquet files that hold whole records, with {} for the
    split, and `pictures` is true where these hold the pictures as well.
    """

    name: str
    opened: str
    writer: Callable[[Path, Sequence[Record], str], Writer]
    count: Callable[[Check], dict[str, int] | None]
    rank: int = 100
    possible: Callable[[Sequence[Record]], bool] = _always
    impossible: str = ""
    tables: str = ""
    pictures: bool = False


class ImageFolder:
    """A folder that holds each image once: the workspace's file is copied, so that an edited release cannot harm it; further copies of
    one release are names of the first."""

    def __init__(self, folder: Path, names: Mapping[str, str]) -> None:
        folder.mkdir(parents=True)
        self._folder, self._names, self._written = folder, names, set[str]()

    def add(self, triplet: Triplet) -> None:
        """Write the triplet's image, unless it is there."""
        path = triplet.picture.path
        if path not in self._written:
            self._written.add(path)
            triplet.picture.put(self._folder / self._names[path])


def compact_json(value: Any) -> bytes:
    """Return JSON without blanks, in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
