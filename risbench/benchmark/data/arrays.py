"""Arrays of bytes in files of NumPy's form: written so that a full disk is an error and no signal, read only where they are whole.

A page of a mapped file that finds no room on the disk ends the process with SIGBUS and no message. So the blocks are allocated before
anything is written, and rows are written by calls that can fail.
"""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from risbench.core.storage import explain_os_error

_ZEROS: Final = bytes(1 << 20)
# How file systems and systems say that they cannot allocate; then zeros are written instead.
_NO_ALLOCATION: Final = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


class ArrayFile:
    """A new file of bytes (rows, ...), zero where nothing is written; threads may write different rows at once."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        """Make the file and allocate its blocks.

        Raises:
            MissingRequirementError: the disk is full, or the file cannot be written.
        """
        self._path, self._shape = path, shape
        self._header = header_of(shape)
        self._row_bytes = int(np.prod(shape[1:], dtype=np.int64))
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        except OSError as error:
            raise explain_os_error(error, path) from error
        try:
            _allocate(self._file, len(self._header) + shape[0] * self._row_bytes)
            _write_all(self._file, self._header, 0)
        except OSError as error:
            os.close(self._file)
            raise explain_os_error(error, path) from error

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._file)

    def write(self, row: int, values: NDArray[np.uint8]) -> None:
        """Write one row.

        Raises:
            MissingRequirementError: the disk is full, or the file cannot be written.
        """
        assert values.dtype == np.uint8, "it is a file of bytes"
        assert values.shape == self._shape[1:], f"a row of {self._path.name} is {self._shape[1:]}"
        try:
            _write_all(self._file, values.tobytes(), len(self._header) + row * self._row_bytes)
        except OSError as error:
            raise explain_os_error(error, self._path) from error

    def commit(self) -> None:
        """Have everything on the disk before the caller says that it is there.

        Raises:
            MissingRequirementError: it cannot be written.
        """
        try:
            os.fsync(self._file)
        except OSError as error:
            raise explain_os_error(error, self._path) from error


def header_of(shape: tuple[int, ...]) -> bytes:
    """Return what stands at the beginning of a .npy file of bytes of this shape."""
    buffer = io.BytesIO()
    about: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, about)  # type: ignore[no-untyped-call]
    return buffer.getvalue()


def open_array(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | str:
    """Return a file of `ArrayFile` as a mapped array, or in words what is wrong with the file.

    Raises:
        OSError: the file is there and cannot be read.
    """
    header = header_of(shape)
    size = len(header) + int(np.prod(shape, dtype=np.int64))
    try:
        with open(path, "rb") as file:
            stored, start = os.fstat(file.fileno()).st_size, file.read(len(header))
    except FileNotFoundError:
        return f"{path.name} is missing"
    if stored != size:
        return f"{path.name} has {stored:,} bytes instead of {size:,}"
    if start != header:
        return f"{path.name} is damaged: its header does not say {shape}"
    array: NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r", offset=len(header), shape=shape)
    return array


def _allocate(file: int, size: int) -> None:
    try:
        os.posix_fallocate(file, 0, size)
    except AttributeError:  # macOS has no such call
        pass
    except OSError as error:
        if error.errno not in _NO_ALLOCATION:
            raise
    else:
        return
    for start in range(0, size, len(_ZEROS)):
        _write_all(file, _ZEROS[: size - start], start)


def _write_all(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(file, view, offset)
        view, offset = view[count:], offset + count
