"""A source as a tree of entries: a folder, a zip, or a folder with zips, tars and Parquet shards in it. Nothing outside it is ever opened.

What lies in an archive is read into memory under limits and never extracted, so no entry's name can become a path on disk.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Final

from risbench.core.errors import InputError, Refusal, printable
from risbench.formats.archives import MAX_ENTRIES, is_zip, list_pictures, list_tar, list_zip
from risbench.formats.entry import MAX_ENTRY_BYTES, Entry, check_reference

__all__ = ["IMAGE_SUFFIXES", "MASK_FOLDERS", "MAX_ENTRY_BYTES", "Entry", "SourceTree", "check_reference"]
_NAMED: Final = 3
MASK_FOLDERS: Final = ("mask", "masks")
IMAGE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


class SourceTree:
    """All plain files below a source, sorted by path, and what was refused while listing them."""

    def __init__(self, root: Path, entries: Iterable[Entry], refused: Iterable[tuple[str, Refusal]]) -> None:
        self.root = root
        self.entries = sorted(entries, key=lambda entry: entry.path)
        self.refused = sorted(refused, key=lambda pair: pair[0])
        self.by_path = {entry.path: entry for entry in self.entries}
        self._by_name: dict[str, list[Entry]] = {}
        for entry in self.entries:
            self._by_name.setdefault(entry.name, []).append(entry)

    @classmethod
    def open(cls, source: Path | str, images: Path | str | None = None) -> SourceTree:
        """List a folder or a zip; `images` names a further folder or zip to look for images in.

        Raises:
            InputError: the source does not exist, is damaged or empty.
        """
        root = Path(source)
        entries: list[Entry] = []
        refused: list[tuple[str, Refusal]] = []
        for place, prefix in ((root, ""), *([(Path(images), "")] if images else [])):
            if not place.exists():
                raise InputError(f"{place}: there is no such file or folder; name a folder or a zip")
            if place.is_dir():
                _list_folder(place, entries, refused)
            elif is_zip(place):
                list_zip(place, prefix, entries, refused)
            elif place.suffix.lower() == ".tar":
                list_tar(place, "" if place == root else prefix, entries, refused)
            elif place.suffix.lower() == ".zip":
                raise InputError(f"{place}: is not a readable zip; download or pack it again")
            else:
                # A single file: it and its neighbours form the source, so that its images are found.
                _list_folder(place.parent, entries, refused)
        if not entries:
            reasons = "; ".join(str(reason) for _, reason in refused[:3])
            raise InputError(f"{root}: no file in it can be read" + (f": {reasons}" if reasons else ""))
        return cls(root, entries, refused)

    def find_image(self, reference: str, *, folders: tuple[str, ...] = ()) -> Entry:
        """Return the image that a row's reference means: by path, else by name.

        `folders` prefers entries that lie directly in a folder of one of these names.

        Raises:
            Refusal: an unsafe path, no such image, or several that differ.
        """
        check_reference(reference)
        pure = PurePosixPath(reference.replace("\\", "/"))
        exact = self.by_path.get(str(pure))
        if exact is not None and exact.suffix in IMAGE_SUFFIXES:
            return exact
        names = [pure.name] if pure.suffix.lower() in IMAGE_SUFFIXES else [pure.name + suffix for suffix in IMAGE_SUFFIXES]
        found = [entry for name in names for entry in self._by_name.get(name, ()) if not _is_mask(entry)]
        preferred = [entry for entry in found if PurePosixPath(entry.path).parent.name.lower() in folders]
        deeper = [entry for entry in found if entry.path.endswith("/" + str(pure))] if len(pure.parts) > 1 else []
        found = preferred or deeper or found
        if not found:
            raise Refusal("image_missing", "image", reference, "no file of this name is in the source; give its folder with --images")
        if len(found) > 1:
            contents = {entry.read() for entry in found}
            if len(contents) > 1:
                places = ", ".join(entry.path for entry in found[:3])
                raise Refusal("image_ambiguous", "image", reference, f"{len(found)} different files have this name: {places}")
        return found[0]

    def said_of_refused(self) -> str:
        """Return the first of what was refused while listing, to add to a message; empty where nothing was."""
        return "".join(f"; {path}: {reason}" for path, reason in self.refused[:_NAMED])


def _is_mask(entry: Entry) -> bool:
    """Return whether the entry lies in a folder of masks: a mask of the same name is never the image."""
    return PurePosixPath(entry.path).parent.name.lower() in MASK_FOLDERS


def _list_folder(root: Path, entries: list[Entry], refused: list[tuple[str, Refusal]]) -> None:
    resolved_root = root.resolve()
    for folder, subfolders, files in os.walk(root, followlinks=False):
        subfolders.sort()
        for name in [*subfolders]:
            if not _is_text(name):
                _refuse_name(root, Path(folder) / name, refused)
                subfolders.remove(name)
            elif (Path(folder) / name / "risbench.toml").exists():
                subfolders.remove(name)  # a workspace of ours, not part of the source
            elif (Path(folder) / name).is_symlink():
                _refuse_link(root, Path(folder) / name, refused)
                subfolders.remove(name)
        for name in sorted(files):
            path = Path(folder) / name
            if not _is_text(name):
                _refuse_name(root, path, refused)
                continue
            relative = path.relative_to(root).as_posix()
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                target = path.resolve()
                if not target.is_relative_to(resolved_root) or not target.is_file():
                    _refuse_link(root, path, refused)
                    continue
                entries.append(Entry(relative, target.stat().st_size, target))
            elif not stat.S_ISREG(status.st_mode):
                refused.append((relative, Refusal("not_a_file", "file", relative, "it is a device, pipe or socket")))
            elif path.suffix.lower() == ".zip":
                list_zip(path, relative + "/", entries, refused)
            elif path.suffix.lower() == ".tar":
                list_tar(path, relative + "/", entries, refused)
            else:
                if path.suffix.lower() == ".parquet":
                    list_pictures(path, relative + "/", entries, refused)
                entries.append(Entry(relative, status.st_size, path))
            if len(entries) > MAX_ENTRIES:
                raise InputError(f"{root}: more than {MAX_ENTRIES:,} files; split the source")


def _is_text(name: str) -> bool:
    """Return whether a file name is UTF-8: records could not hold another."""
    return not any(0xD800 <= ord(character) <= 0xDFFF for character in name)


def _refuse_name(root: Path, path: Path, refused: list[tuple[str, Refusal]]) -> None:
    shown = printable(path.relative_to(root).as_posix())
    refused.append((shown, Refusal("not_utf8", "file", shown, "its name is not UTF-8; rename it")))


def _refuse_link(root: Path, path: Path, refused: list[tuple[str, Refusal]]) -> None:
    relative = path.relative_to(root).as_posix()
    refused.append(
        (relative, Refusal("link_outside", "file", relative, "it is a link that leaves the source, or leads to a folder or nowhere"))
    )
