"""One file of a source, wherever it lies: on disk, in a zip, in a tar, in a row of a Parquet shard."""

from __future__ import annotations

import functools
import io
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

import pyarrow as pa

from risbench.core.errors import InputError, InvalidRowError, MissingRequirementError, printable
from risbench.core.reading import explain_read_error, is_system_failure, open_to_read

MAX_ENTRY_BYTES: Final = 1 << 30
# What the libraries raise over a damaged or unknown zip, tar or Parquet (NotImplementedError is a RuntimeError, UnicodeDecodeError
# a ValueError).
DAMAGED_ARCHIVE: Final = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    pa.ArrowException,
    struct.error,
    OSError,
    ValueError,
    RuntimeError,
    EOFError,
    MemoryError,
    OverflowError,
    LookupError,
)


_path = functools.lru_cache(maxsize=1 << 10)(PurePosixPath)  # parsed once for all rows of a file


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
        return _path(self.path).name

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return _path(self.path).stem

    @property
    def suffix(self) -> str:
        """The suffix in lower case, with its dot."""
        return _path(self.path).suffix.lower()

    def open(self) -> BinaryIO:
        """Open for reading; the caller closes.

        Raises:
            InvalidRowError: a zip member that is larger than it says, damaged or encrypted, or a file that became a link.
            MissingRequirementError: the system fails to read it, now or later, or it is gone: this says nothing about the data.
        """
        if self.member is None:
            return open_listed(self.file)
        try:
            if self.reader is not None:
                return io.BytesIO(self.reader())
            archive = open_zip(self.file)
            if self.member not in archive.NameToInfo:
                raise InputError(f"{self.file}: was changed while it was read; run the same command again once it is whole")
            with archive.open(self.member) as member:
                data = member.read(self.size + 1)
        except DAMAGED_ARCHIVE as error:
            if is_system_failure(error):
                raise explain_read_error(error, self.file) from error
            what = "it" if self.reader is not None else "the zip member"
            raise InvalidRowError("damaged_archive", "file", self.path, f"{what} cannot be read ({said_of(error)})") from error
        if len(data) > self.size:
            raise InvalidRowError("zip_bomb", "file", self.path, f"it unpacks to more than the {self.size} bytes it states")
        return io.BytesIO(data)

    def read(self, limit: int = MAX_ENTRY_BYTES) -> bytes:
        """Return the content.

        Raises:
            InvalidRowError: it is larger than `limit` bytes, or cannot be read.
        """
        if self.size > limit:
            raise InvalidRowError("file_too_large", "file", self.path, f"it has {self.size:,} bytes; at most {limit:,} are read")
        with self.open() as file:
            return file.read()


def said_of(error: Exception) -> str:
    """Return what a library says of damage, as one line; its kind where it says nothing."""
    return printable(str(error), 120) or type(error).__name__


def open_listed(path: Path) -> io.BufferedReader:
    """Open a file of the source that was a plain one when the source was listed.

    Raises:
        InvalidRowError: it is a plain file no more.
        MissingRequirementError: the system fails to read it, now or later, or it is gone.
    """
    try:
        return open_to_read(path, follow=False)
    except FileNotFoundError:
        raise MissingRequirementError(
            f"{path}: is gone, though the source held it a moment ago; mend that, then run the same command to go on"
        ) from None
    except OSError as error:
        raise InvalidRowError("unreadable", "file", path.name, f"it cannot be opened ({error.strerror})") from error


class _Zip(zipfile.ZipFile):
    """A zip that closes the file it was given."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._given = file
        super().__init__(file)

    def close(self) -> None:
        """Close both."""
        super().close()
        self._given.close()


def open_zip(path: Path) -> zipfile.ZipFile:
    """Return the open zip: its directory of 30,000 names is read once, not once a member, and anew where the file was replaced.

    Raises:
        InvalidRowError, MissingRequirementError: as `open_listed`.
        Exception: one of DAMAGED_ARCHIVE.
    """
    with open_listed(path) as file:
        status = os.fstat(file.fileno())
    return _zip_of(path, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))


@functools.lru_cache(maxsize=8)
def _zip_of(path: Path, identity: tuple[int, ...]) -> zipfile.ZipFile:
    return _Zip(open_listed(path))


def check_reference(reference: str) -> None:
    """Refuse references that leave the source.

    Raises:
        InvalidRowError: empty, absolute, with a parent step, a drive, a scheme or a NUL.
    """
    pure = PurePosixPath(reference.replace("\\", "/"))
    if not reference.strip() or not pure.parts or "\x00" in reference or len(reference) > 1024:
        raise InvalidRowError("unsafe_path", "image", reference, "it must be a file name of 1 to 1,024 characters")
    if pure.is_absolute() or ".." in pure.parts or "://" in reference or pure.parts[0].endswith(":") or pure.parts[0] == "~":
        raise InvalidRowError("unsafe_path", "image", reference, "it must lie inside the source: no absolute path, no '..', no address")
