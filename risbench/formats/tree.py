"""A source as a tree of entries: a folder, a zip, or a folder with zips, tars and Parquet shards in it. Nothing outside it is ever opened.

What lies in an archive is read into memory under limits and never extracted, so no entry's name can become a path on disk.
"""

from __future__ import annotations

import functools
import io
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

import pyarrow as pa

from risbench.core.errors import InputError, Refusal, printable
from risbench.formats.parquet import is_record_table, picture, picture_names

MAX_ENTRIES: Final = 1_000_000
MAX_ENTRY_BYTES: Final = 1 << 30
MAX_RATIO: Final = 1000
_NAMED: Final = 3
MASK_FOLDERS: Final = ("mask", "masks")
IMAGE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Entry:
    """One file of the source; `path` is relative to the source's root, with an archive's name as a folder.

    `member` is its name in the archive; `reader` reads it where that is no zip.
    """

    path: str
    size: int
    file: Path
    member: str | None = None
    reader: Callable[[], bytes] | None = None

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.path).name

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePosixPath(self.path).stem

    @property
    def suffix(self) -> str:
        """The suffix in lower case, with its dot."""
        return PurePosixPath(self.path).suffix.lower()

    def open(self) -> BinaryIO:
        """Open for reading; the caller closes.

        Raises:
            Refusal: a zip member that is larger than it says, damaged or encrypted, or a file that vanished.
        """
        if self.member is None:
            try:
                # O_NOFOLLOW: what was a plain file when the source was listed must still be one.
                return os.fdopen(os.open(self.file, os.O_RDONLY | os.O_NOFOLLOW), "rb")
            except OSError as error:
                raise Refusal("unreadable", "file", self.path, f"it cannot be opened ({error.strerror})") from error
        if self.reader is not None:
            try:
                return io.BytesIO(self.reader())
            except (OSError, ValueError, pa.ArrowException) as error:
                raise Refusal("damaged_archive", "file", self.path, f"it cannot be read ({printable(str(error), 120)})") from error
        try:
            with _archive(self.file).open(self.member) as member:
                data = member.read(self.size + 1)
        except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, EOFError) as error:
            raise Refusal("damaged_archive", "file", self.path, f"the zip member cannot be read ({error})") from error
        if len(data) > self.size:
            raise Refusal("zip_bomb", "file", self.path, f"it unpacks to more than the {self.size} bytes it states")
        return io.BytesIO(data)

    def read(self, limit: int = MAX_ENTRY_BYTES) -> bytes:
        """Return the content.

        Raises:
            Refusal: it is larger than `limit` bytes, or cannot be read.
        """
        if self.size > limit:
            raise Refusal("file_too_large", "file", self.path, f"it has {self.size:,} bytes; at most {limit:,} are read")
        with self.open() as file:
            return file.read()


@functools.lru_cache(maxsize=8)
def _archive(path: Path) -> zipfile.ZipFile:
    """Return the open zip: its directory of 30,000 names is read once, not once a member."""
    return zipfile.ZipFile(path)


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
            elif zipfile.is_zipfile(place):
                _list_zip(place, prefix, entries, refused)
            elif place.suffix.lower() == ".tar":
                _list_tar(place, "" if place == root else prefix, entries, refused)
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


def check_reference(reference: str) -> None:
    """Refuse references that leave the source.

    Raises:
        Refusal: empty, absolute, with a parent step, a drive, a scheme or a NUL.
    """
    pure = PurePosixPath(reference.replace("\\", "/"))
    if not reference.strip() or "\x00" in reference or len(reference) > 1024:
        raise Refusal("unsafe_path", "image", reference, "it must be a file name of 1 to 1,024 characters")
    if pure.is_absolute() or ".." in pure.parts or "://" in reference or pure.parts[0].endswith(":") or pure.parts[0] == "~":
        raise Refusal("unsafe_path", "image", reference, "it must lie inside the source: no absolute path, no '..', no address")


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
                _list_zip(path, relative + "/", entries, refused)
            elif path.suffix.lower() == ".tar":
                _list_tar(path, relative + "/", entries, refused)
            else:
                if path.suffix.lower() == ".parquet":
                    _list_pictures(path, relative + "/", entries, refused)
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


def _list_zip(path: Path, prefix: str, entries: list[Entry], refused: list[tuple[str, Refusal]]) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        refused.append((prefix or path.name, Refusal("damaged_archive", "file", path.name, f"it is not a readable zip ({error})")))
        return
    if len(members) + len(entries) > MAX_ENTRIES:
        raise InputError(f"{path}: more than {MAX_ENTRIES:,} entries; split the source")
    seen: set[str] = set()
    for member in members:
        if member.is_dir():
            continue
        where = prefix + member.filename
        reason = _member_refusal(member, where, seen) or _packed_twice(member)
        if reason is not None:
            refused.append((where, reason))
            continue
        seen.add(member.filename)
        entries.append(Entry(where, member.file_size, path, member.filename))


def _list_tar(path: Path, prefix: str, entries: list[Entry], refused: list[tuple[str, Refusal]]) -> None:
    """List an uncompressed tar's plain files, each to be read at its place."""
    seen: set[str] = set()
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                where = prefix + member.name
                if member.isdir():
                    continue
                try:
                    check_reference(member.name)
                except Refusal:
                    refused.append((where, Refusal("tar_slip", "entry", member.name, "its path leaves the archive")))
                    continue
                if not member.isreg() or member.issparse():
                    refused.append((where, Refusal("tar_link", "entry", member.name, "it is a link, a device or sparse")))
                elif member.name in seen:
                    refused.append((where, Refusal("tar_twice", "entry", member.name, "the archive holds this name twice")))
                elif member.size > MAX_ENTRY_BYTES:
                    refused.append((where, Refusal("file_too_large", "entry", member.name, f"it states {member.size:,} bytes")))
                else:
                    seen.add(member.name)
                    read = functools.partial(_read_at, path, member.offset_data, member.size)
                    entries.append(Entry(where, member.size, path, member.name, read))
                if len(entries) + len(refused) > MAX_ENTRIES:
                    raise InputError(f"{path}: more than {MAX_ENTRIES:,} entries; split the source")
            # over a header that is damaged, or where the file is cut off between two members, tarfile simply stops
            if _read_at(path, archive.offset, tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.TarError(f"the header at byte {archive.offset:,} is damaged")
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        refused.append((prefix.rstrip("/"), Refusal("damaged_archive", "file", path.name, f"it is not a readable tar ({error})")))


def _read_at(path: Path, offset: int, size: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) != size:
        raise ValueError(f"it breaks off {size - len(data):,} bytes early")
    return data


def _list_pictures(path: Path, prefix: str, entries: list[Entry], refused: list[tuple[str, Refusal]]) -> None:
    """List the images in the rows of a Parquet shard of records; the shard itself is an entry, too."""
    try:
        names = picture_names(path) if is_record_table(path) else []
    except (OSError, ValueError, pa.ArrowException) as error:
        refused.append((prefix.rstrip("/"), Refusal("damaged_archive", "file", path.name, f"it is not readable Parquet ({error})")))
        return
    for row, name in enumerate(names):
        try:
            check_reference(name or "")
        except Refusal as reason:
            refused.append((f"{prefix}{row}", reason))
            continue
        entries.append(Entry(prefix + str(name), path.stat().st_size, path, name, functools.partial(picture, path, row)))


def _packed_twice(member: zipfile.ZipInfo) -> Refusal | None:
    if member.filename.lower().endswith((".tar", ".parquet")):
        return Refusal("archive_in_archive", "entry", member.filename, "it is not read inside a zip; unpack the zip first")
    return None


def _member_refusal(member: zipfile.ZipInfo, where: str, seen: set[str]) -> Refusal | None:
    try:
        check_reference(member.filename)
    except Refusal:
        return Refusal("zip_slip", "entry", member.filename, "its path leaves the archive")
    if stat.S_ISLNK(member.external_attr >> 16):
        return Refusal("zip_link", "entry", member.filename, "it is a link")
    if member.filename in seen:
        return Refusal("zip_twice", "entry", member.filename, "the archive holds this name twice")
    if member.flag_bits & 1:
        return Refusal("zip_encrypted", "entry", member.filename, "it is encrypted")
    if member.file_size > MAX_ENTRY_BYTES:
        return Refusal("zip_bomb", "entry", member.filename, f"it unpacks to {member.file_size:,} bytes; at most {MAX_ENTRY_BYTES:,}")
    if member.file_size > 1 << 20 and member.file_size > MAX_RATIO * max(1, member.compress_size):
        return Refusal(
            "zip_bomb",
            "entry",
            member.filename,
            f"it unpacks to {member.file_size / max(1, member.compress_size):,.0f} times its size; at most {MAX_RATIO}",
        )
    return None
