"""What an input format is: a name, how its files are told from others, and how their rows are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from risbench.core.errors import InvalidRowError
from risbench.formats.source.rows import Item, guarded_file
from risbench.formats.source.scale import BoxScales
from risbench.formats.source.text import decoded
from risbench.formats.source.tree import Entry, SourceTree

HEAD_BYTES: Final = 1 << 16


def head_of(entry: Entry) -> str:
    """Return the first characters of a text file, in whatever encoding it is; empty where it cannot be read."""
    try:
        with entry.open() as file:
            return decoded(file.read(HEAD_BYTES), entry.path, "replace").lstrip("\ufeff \r\n\t")
    except InvalidRowError:
        return ""


@dataclass
class Look:
    """A file of a source as a format looks at it; its first 64 kB are read once for all formats."""

    entry: Entry
    tree: SourceTree

    @cached_property
    def head(self) -> str:
        """The first characters, empty where the file cannot be read."""
        return head_of(self.entry)

    @cached_property
    def json_head(self) -> str:
        """The first characters of a JSON file, with double quotes where the file has single ones only, as JSON5 may."""
        return self.head if '"' in self.head else self.head.replace("'", '"')


@dataclass(frozen=True)
class Source:
    """What a format reads: its files in a source, and the options of the reading.

    `class_field` names the property or column that holds the class; `scales` judges in which scale a file's boxes are written.
    """

    tree: SourceTree
    files: Sequence[Entry]
    class_field: str | None = None
    scales: BoxScales = field(default_factory=BoxScales)


# How sure a format is that a file is its own, above 0 and at most 1; or the reason why it is not.
Verdict = float | str


@dataclass(frozen=True)
class Format:
    """One input format; docs/architecture.md says how to add one.

    `detect` says of each file with one of the `suffixes` (all files where there are none) how sure the format is that it is its own, or
    why it is not. A file is read as the format that is surest. Of several formats in a source the one with the lowest `rank` is read.
    `read` yields the rows of the format's files. `scaled` says in words what of the format has boxes in numbers of the image, which
    --box-scale is about, and `scaled_suffixes` which files have (all where there are none); `corners` that its box is a list
    of four numbers, which people also fill with two corners. `trains` says that its rows have masks and splits, as releases have.
    """

    name: str
    summary: str
    detect: Callable[[SourceTree, Sequence[Look]], Sequence[Verdict]]
    read: Callable[[Source], Iterator[Item]]
    rank: int = 100
    suffixes: tuple[str, ...] = ()
    scaled: str = ""
    scaled_suffixes: tuple[str, ...] = ()
    corners: bool = False
    trains: bool = False

    def looks_at(self, entry: Entry) -> bool:
        """Return whether the format has files that end so."""
        return not self.suffixes or entry.suffix in self.suffixes

    def has_scale(self, files: Sequence[Entry]) -> bool:
        """Return whether some of the files have boxes in numbers of the image."""
        return bool(self.scaled) and (not self.scaled_suffixes or any(entry.suffix in self.scaled_suffixes for entry in files))


def each(judge: Callable[[Look], Verdict]) -> Callable[[SourceTree, Sequence[Look]], list[Verdict]]:
    """Return a `detect` that judges every file by itself."""
    return lambda tree, looks: [judge(look) for look in looks]


def file_by_file(
    read: Callable[[Entry, SourceTree], Iterator[Item]], *, scaled: bool = False, corners: bool = False
) -> Callable[[Source], Iterator[Item]]:
    """Return a `read` for a format whose files are read one by one; a file that cannot be read is one refusal."""

    def rows(source: Source) -> Iterator[Item]:
        for entry in source.files:
            items = guarded_file(read(entry, source.tree), entry.path)
            yield from source.scales.judged(entry.path, items, corners=corners) if scaled else items

    return rows
