"""One file of a source, wherever it lies: on disk, in a zip, in a tar, in a row of a Parquet shard."""

from __future__ import annotations

import functools
import io
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

import pyarrow as pa

from risbench.core.errors import Refusal, printable

MAX_ENTRY_BYTES: Final = 1 << 30


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
