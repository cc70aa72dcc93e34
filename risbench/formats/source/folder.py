"""Listing a folder of a source: plain files, archives in it, and links, which are followed outside only where asked for."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from risbench.core.errors import InputError, InvalidRowError, printable
from risbench.core.reading import explain_read_error, is_system_failure
from risbench.formats.source.archives import MAX_ENTRIES, list_pictures, list_tar, list_zip
from risbench.formats.source.entry import Entry

MAX_FOLDERS: Final = 200_000
FOLLOW: Final = "--follow-links reads it"


@dataclass
class FolderListing:
    """Lists one folder of a source into `entries`, and what cannot be read into `refused`."""

    root: Path
    follow_links: bool
    entries: list[Entry]
    refused: list[tuple[str, InvalidRowError]]
    folders: int = 0
    linked: int = 0
    _real_root: Path = field(init=False)

    def __post_init__(self) -> None:
        self._real_root = self.root.resolve()

    def run(self) -> None:
        """List everything below the root.

        Raises:
            InputError: there are too many files or folders.
            MissingRequirementError: a folder cannot be listed.
        """
        waiting: list[tuple[Path, tuple[Path, ...]]] = [(self.root, (self._real_root,))]
        while waiting:  # not by recursion: folders may be nested deeper than Python's calls
            folder, inside = waiting.pop()
            waiting += [(path, (*inside, real)) for path, real in self._folder(folder, inside)]

    def _folder(self, folder: Path, inside: tuple[Path, ...]) -> list[tuple[Path, Path]]:
        """List a folder; return its own folders, each with where it really lies. `inside` are the real folders that lead to it, to know a
        loop of links by.
        """
        self.folders += 1
        if self.folders > MAX_FOLDERS:
            raise InputError(f"{self.root}: more than {MAX_FOLDERS:,} folders; split the source")
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            raise explain_read_error(error, folder) from error
        subfolders: list[tuple[Path, Path]] = []
        for name in names:
            path = folder / name
            if not _is_text(name):
                shown = printable(path.relative_to(self.root).as_posix())
                self.refused.append((shown, InvalidRowError("not_utf8", "file", shown, "its name is not UTF-8; rename it")))
                continue
            real = self._real_folder(path, inside)
            if real is not None:
                subfolders.append((path, real))
            if len(self.entries) > MAX_ENTRIES:
                raise InputError(f"{self.root}: more than {MAX_ENTRIES:,} files; split the source")
        return subfolders

    def _real_folder(self, path: Path, inside: tuple[Path, ...]) -> Path | None:
        """List what is no folder; of a folder that is to be listed return where it really lies."""
        relative = path.relative_to(self.root).as_posix()
        try:
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                return self._link(path, relative, inside)
            if stat.S_ISDIR(status.st_mode):
                # a workspace of ours is not part of the source
                return None if (path / "risbench.toml").exists() else inside[-1] / path.name
            if not stat.S_ISREG(status.st_mode):
                self.refused.append((relative, InvalidRowError("not_a_file", "file", relative, "it is a device, pipe or socket")))
                return None
        except OSError as error:
            if is_system_failure(error):
                raise explain_read_error(error, path) from error
            self.refused.append((relative, InvalidRowError("unreadable", "file", relative, f"it cannot be listed ({error.strerror})")))
            return None
        self._file(path, relative, status.st_size)
        return None

    def _link(self, path: Path, relative: str, inside: tuple[Path, ...]) -> Path | None:
        target = Path(os.path.realpath(path))
        if not target.exists():
            self.refused.append((relative, InvalidRowError("link_broken", "file", relative, _why_broken(os.readlink(path)))))
            return None
        within = target.is_relative_to(self._real_root)
        if target.is_dir():
            if within:
                self.linked += 1  # what it leads to is listed where it lies
                return None
            if not self.follow_links:
                self._refuse(relative, f"it is a link to a folder outside the source; {FOLLOW}, or name that folder with --images")
                return None
            if any(one == target or one.is_relative_to(target) for one in inside):
                self.refused.append(
                    (relative, InvalidRowError("link_loop", "file", relative, "it is a link back to a folder that holds it"))
                )
                return None
            return None if (target / "risbench.toml").exists() else target
        if not within and not self.follow_links:
            self._refuse(relative, f"it is a link to a file outside the source; {FOLLOW}, or copy what it leads to (cp -rL)")
        elif not target.is_file():
            self.refused.append((relative, InvalidRowError("not_a_file", "file", relative, "it is a link to a device, pipe or socket")))
        else:
            self._file(target, relative, target.stat().st_size)
        return None

    def _refuse(self, relative: str, bound: str) -> None:
        self.refused.append((relative, InvalidRowError("link_outside", "file", relative, bound)))

    def _file(self, path: Path, relative: str, size: int) -> None:
        suffix = os.path.splitext(relative)[1].lower()
        if suffix == ".zip":
            list_zip(path, relative + "/", self.entries, self.refused)
        elif suffix == ".tar":
            list_tar(path, relative + "/", self.entries, self.refused)
        else:
            if suffix == ".parquet":
                list_pictures(path, relative + "/", self.entries, self.refused)
            self.entries.append(Entry(relative, size, path))


def _is_text(name: str) -> bool:
    """Return whether a file name is UTF-8: records could not hold another."""
    return not any(0xD800 <= ord(character) <= 0xDFFF for character in name)


def _why_broken(target: str) -> str:
    if "annex/objects" in target:
        return "it is a git-annex link whose content is not here: run git annex get, then ingest again"
    if "/blobs/" in target:
        return "it is a link of the Hugging Face cache whose content is not here: download it again"
    return "it is a link that leads nowhere (its content was moved, or never fetched: dvc pull, git lfs pull); mend it, or remove it"
