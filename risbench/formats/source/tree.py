"""A source as a tree of entries: a folder, a zip, or a folder with zips, tars and Parquet shards in it. Nothing outside it is ever opened.

What lies in an archive is read into memory under limits and never extracted, so no entry's name can become a path on disk.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from risbench.core.errors import InputError, InvalidRowError
from risbench.formats.source.archives import is_zip, list_tar, list_zip
from risbench.formats.source.entry import MAX_ENTRY_BYTES, Entry, check_reference
from risbench.formats.source.find_image import IMAGE_SUFFIXES, MASK_FOLDERS, ImageIndex, odd_zip_names
from risbench.formats.source.folder import FolderListing
from risbench.formats.source.unopened import packed_as, part_of, unopened_archives

__all__ = ["IMAGE_SUFFIXES", "MASK_FOLDERS", "MAX_ENTRY_BYTES", "Entry", "SourceTree", "check_reference"]
_NAMED: Final = 3
_HINTED: Final = ("link_outside", "link_broken", "archive_not_opened", "archive_in_archive", "not_utf8")


class SourceTree:
    """All plain files below a source, sorted by path, and what was refused while listing them.

    `passed_over` counts, by code, what is no part of any source: resource forks of macOS, links to folders that are listed anyway.
    """

    def __init__(
        self,
        root: Path,
        entries: Iterable[Entry],
        refused: Iterable[tuple[str, InvalidRowError]],
        passed_over: dict[str, int] | None = None,
    ) -> None:
        self.root = root
        self.entries = sorted(entries, key=lambda entry: entry.path)
        self.refused = sorted(refused, key=lambda pair: pair[0])
        self.passed_over = passed_over or {}
        self.by_path = {entry.path: entry for entry in self.entries}
        self._images = ImageIndex(self.entries, self._hints)
        self.find_image_and_note = functools.lru_cache(maxsize=4096)(self._images.find)

    @classmethod
    def open(cls, source: Path | str, images: Path | str | None = None, *, follow_links: bool = False) -> SourceTree:
        """List a folder or a zip; `images` names a further folder or zip to look for images in.

        `follow_links` reads what links of a folder lead to outside it; links in archives are never followed.

        Raises:
            InputError: the source does not exist, is damaged, empty, or an archive that is not opened.
            MissingRequirementError: it cannot be listed.
        """
        root = Path(source)
        entries: list[Entry] = []
        refused: list[tuple[str, InvalidRowError]] = []
        linked = 0
        for place in (root, *([Path(images)] if images else [])):
            if not place.exists():
                raise InputError(f"{place}: there is no such file or folder; name a folder or a zip")
            if place.is_dir():
                linked += _list_folder(place, follow_links, entries, refused)
            elif is_zip(place):
                list_zip(place, "", entries, refused)
            elif place.suffix.lower() == ".tar":
                list_tar(place, "", entries, refused)
            elif place.suffix.lower() == ".zip":
                raise InputError(f"{place}: is not a readable zip; download or pack it again")
            elif packed_as(place.name) or part_of(place.name):
                siblings = [path.name for path in place.parent.iterdir() if part_of(path.name) == part_of(place.name)] or [place.name]
                [(_, reason)] = unopened_archives(siblings if part_of(place.name) else [place.name])
                raise InputError(f"{place}: {reason.bound}")
            else:
                # A single file: it and its neighbours form the source, so that its images are found.
                linked += _list_folder(place.parent, follow_links, entries, refused)
        kept, forks = _without_forks(entries, refused)
        refused += unopened_archives(entry.path for entry in kept if entry.member is None)
        if not kept:
            reasons = "; ".join(str(reason) for _, reason in refused[:_NAMED])
            raise InputError(f"{root}: no file in it can be read" + (f": {reasons}" if reasons else ""))
        passed_over = Counter({"resource_fork": forks, "link_inside": linked})
        return cls(root, kept, refused, {code: count for code, count in passed_over.items() if count})

    def find_image(self, reference: str, *, folders: tuple[str, ...] = (), beside: str = "") -> Entry:
        """Return the image that a row's reference means: by path, else by name (`find_image.ImageIndex.find`).

        Raises:
            InvalidRowError: an unsafe path, no such image, or several that differ.
        """
        return self.find_image_and_note(reference, beside, folders)[0]

    def said_of_refused(self) -> str:
        """Return the first of what was refused while listing, to add to a message; empty where nothing was."""
        return "".join(f"; {path}: {reason}" for path, reason in self.refused[:_NAMED])

    @functools.cached_property
    def _hints_made(self) -> Sequence[str]:
        """What else may be why an image is not found: links and archives that were not opened, odd names in zips."""
        first = {reason.code: f"{path}: {reason.bound}" for path, reason in reversed(self.refused) if reason.code in _HINTED}
        odd = odd_zip_names(self.entries)
        return [*(first[code] for code in _HINTED if code in first), *([odd] if odd else [])]

    def _hints(self) -> Sequence[str]:
        return self._hints_made


def _list_folder(place: Path, follow_links: bool, entries: list[Entry], refused: list[tuple[str, InvalidRowError]]) -> int:
    """List a folder; return how many links lead to folders that are listed anyway."""
    listing = FolderListing(place, follow_links, entries, refused)
    listing.run()
    return listing.linked


def _without_forks(entries: Sequence[Entry], refused: list[tuple[str, InvalidRowError]]) -> tuple[list[Entry], int]:
    """Return the entries without the resource forks that macOS lays beside files, and how many there were; `refused` loses its own."""
    kept = [entry for entry in entries if not _is_fork(entry.path)]
    forks = len(entries) - len(kept) + sum(_is_fork(path) for path, _ in refused)
    refused[:] = [(path, reason) for path, reason in refused if not _is_fork(path)]
    return kept, forks


def _is_fork(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return "__MACOSX" in parts or (bool(parts) and parts[-1].startswith("._"))
