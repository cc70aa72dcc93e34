"""Listing what lies in a zip, a tar, or the rows of a Parquet shard, without unpacking any of it."""

from __future__ import annotations

import functools
import re
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Final

from risbench.core.errors import InputError, InvalidRowError
from risbench.core.reading import explain_read_error, is_system_failure, open_to_read
from risbench.formats.parquet import is_record_table, picture, picture_names
from risbench.formats.source.entry import DAMAGED_ARCHIVE, MAX_ENTRY_BYTES, Entry, check_reference, open_listed, open_zip, said_of
from risbench.formats.source.unopened import packed_as, part_of

MAX_ENTRIES: Final = 1_000_000
MAX_RATIO: Final = 1000
_MAX_HEADER_BYTES: Final = 1 << 20
_MAX_DIGITS: Final = 4000


def list_zip(path: Path, prefix: str, entries: list[Entry], refused: list[tuple[str, InvalidRowError]]) -> None:
    """List a zip's plain files: its directory is read, none of its content.

    Raises:
        InputError: it holds too many.
    """
    try:
        members = open_zip(path).infolist()
    except DAMAGED_ARCHIVE as error:
        refused.append((prefix or path.name, _damaged(path, "zip", error)))
        return
    if len(members) + len(entries) > MAX_ENTRIES:
        raise InputError(f"{path}: more than {MAX_ENTRIES:,} entries; split the source")
    seen: set[str] = set()
    for member in members:
        if member.is_dir():
            continue
        where = prefix + member.filename
        reason = _member_refusal(member, where, seen) or _packed_twice(member.filename, "zip")
        if reason is not None:
            refused.append((where, reason))
            continue
        seen.add(member.filename)
        entries.append(Entry(where, member.file_size, path, member.filename))


def list_tar(path: Path, prefix: str, entries: list[Entry], refused: list[tuple[str, InvalidRowError]]) -> None:
    """List an uncompressed tar's plain files, each to be read at its place."""
    seen: set[str] = set()
    try:
        with open_listed(path) as file, tarfile.open(fileobj=file, mode="r:", tarinfo=_BoundedHeader) as archive:
            for member in archive:
                where = prefix + member.name
                if member.isdir():
                    continue
                try:
                    check_reference(member.name)
                except InvalidRowError:
                    refused.append((where, InvalidRowError("tar_slip", "entry", member.name, "its path leaves the archive")))
                    continue
                if not member.isreg() or member.issparse():
                    refused.append((where, InvalidRowError("tar_link", "entry", member.name, "it is a link, a device or sparse")))
                elif member.name in seen:
                    refused.append((where, InvalidRowError("tar_twice", "entry", member.name, "the archive holds this name twice")))
                elif (reason := _packed_twice(member.name, "tar")) is not None:
                    refused.append((where, reason))
                elif member.size > MAX_ENTRY_BYTES:
                    refused.append((where, InvalidRowError("file_too_large", "entry", member.name, f"it states {member.size:,} bytes")))
                else:
                    seen.add(member.name)
                    read = functools.partial(_read_at, path, member.offset_data, member.size)
                    entries.append(Entry(where, member.size, path, member.name, read))
                if len(entries) + len(refused) > MAX_ENTRIES:
                    raise InputError(f"{path}: more than {MAX_ENTRIES:,} entries; split the source")
            # over a header that is damaged, or where the file is cut off between two members, tarfile simply stops
            if _read_at(path, archive.offset, tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.TarError(f"the header at byte {archive.offset:,} is damaged")
    except DAMAGED_ARCHIVE as error:
        refused.append((prefix.rstrip("/"), _damaged(path, "tar", error)))


class _BoundedHeader(tarfile.TarInfo):
    """A tar's header whose extensions are looked at before they are parsed: older Pythons take minutes over a long row of digits."""

    def _proc_pax(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        start = archive.fileobj.tell()
        self._check_length()
        longest = max(map(len, re.findall(rb"[0-9]+", archive.fileobj.read(self.size))), default=0)
        if longest > _MAX_DIGITS:
            raise tarfile.ReadError(f"a header holds {longest:,} digits in a row; at most {_MAX_DIGITS:,}")
        archive.fileobj.seek(start)
        return super()._proc_pax(archive)  # type: ignore[misc,no-any-return]

    def _proc_gnulong(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        self._check_length()
        return super()._proc_gnulong(archive)  # type: ignore[misc,no-any-return]

    def _check_length(self) -> None:
        if not 0 <= self.size <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header has {self.size:,} bytes; at most {_MAX_HEADER_BYTES:,}")


def _damaged(path: Path, kind: str, error: Exception) -> InvalidRowError:
    """Return the refusal of an archive.

    Raises:
        MissingRequirementError: the system failed to read it, which says nothing about it.
    """
    if is_system_failure(error):
        raise explain_read_error(error, path) from error
    return InvalidRowError("damaged_archive", "file", path.name, f"it is not a readable {kind} ({said_of(error)})")


def is_zip(path: Path) -> bool:
    """Return whether a file's content is a zip.

    Raises:
        MissingRequirementError: the system fails to read it.
    """
    with open_to_read(path) as file:
        return zipfile.is_zipfile(file)


def _read_at(path: Path, offset: int, size: int) -> bytes:
    with open_listed(path) as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) != size:
        raise ValueError(f"it breaks off {size - len(data):,} bytes early")
    return data


def list_pictures(path: Path, prefix: str, entries: list[Entry], refused: list[tuple[str, InvalidRowError]]) -> None:
    """List the images in the rows of a Parquet shard of records; the shard itself is an entry, too."""
    try:
        names = picture_names(path) if is_record_table(path) else []
    except InvalidRowError as reason:
        refused.append((prefix.rstrip("/"), reason))
        return
    except DAMAGED_ARCHIVE as error:
        refused.append((prefix.rstrip("/"), _damaged(path, "Parquet table", error)))
        return
    for row, name in enumerate(names):
        try:
            check_reference(name or "")
        except InvalidRowError as reason:
            refused.append((f"{prefix}{row}", reason))
            continue
        entries.append(Entry(prefix + str(name), path.stat().st_size, path, name, functools.partial(picture, path, row)))


def _packed_twice(name: str, outer: str) -> InvalidRowError | None:
    """Return why a member of an archive is not read where it is one itself, or a part of one."""
    whole = part_of(name.rpartition("/")[2])
    if whole is None and not name.lower().endswith((".tar", ".parquet", ".zip")) and not packed_as(name):
        return None
    what = f"{name}, a part of {whole}," if whole is not None else name
    mend = f"unpack the outer {outer} first, then ingest the folder"
    return InvalidRowError("archive_in_archive", "entry", name, f"{what} inside a {outer} is not opened; {mend}")


def _member_refusal(member: zipfile.ZipInfo, where: str, seen: set[str]) -> InvalidRowError | None:
    try:
        check_reference(member.filename)
    except InvalidRowError:
        return InvalidRowError("zip_slip", "entry", member.filename, "its path leaves the archive")
    if stat.S_ISLNK(member.external_attr >> 16):
        return InvalidRowError("zip_link", "entry", member.filename, "it is a link")
    if member.filename in seen:
        return InvalidRowError("zip_twice", "entry", member.filename, "the archive holds this name twice")
    if member.flag_bits & 1:
        return InvalidRowError("zip_encrypted", "entry", member.filename, "it is encrypted")
    if member.file_size > MAX_ENTRY_BYTES:
        return InvalidRowError(
            "zip_bomb", "entry", member.filename, f"it unpacks to {member.file_size:,} bytes; at most {MAX_ENTRY_BYTES:,}"
        )
    if member.file_size > 1 << 20 and member.file_size > MAX_RATIO * max(1, member.compress_size):
        return InvalidRowError(
            "zip_bomb",
            "entry",
            member.filename,
            f"it unpacks to {member.file_size / max(1, member.compress_size):,.0f} times its size; at most {MAX_RATIO}",
        )
    return None
