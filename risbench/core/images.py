"""Images of a workspace, read in one way: whole, compared with the sha256 that was ingested, then decoded."""

from __future__ import annotations

import io
from pathlib import Path

from risbench.core.errors import InputError, InvalidRowError
from risbench.core.imagery import Pixels, read_raster
from risbench.core.reading import read_file
from risbench.core.record import ImageRef
from risbench.core.storage import sha256_of


class UnusableImage(InputError):
    """An image of the workspace is gone, is another one than was ingested, or cannot be decoded; `code` is a word to count by."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def image_bytes(root: Path, path: str, sha256: str) -> bytes:
    """Return an image file of a workspace.

    Raises:
        UnusableImage: it is gone (`image_missing`), or not the one that was ingested (`image_changed`).
        MissingRequirementError: the system fails to read it.
    """
    data = _read(root / path)
    _check(data, sha256, root / path)
    return data


def _read(path: Path) -> bytes:
    try:
        return read_file(path)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UnusableImage("image_missing", f"{path}: is gone; run ingest again") from None


def _check(data: bytes, sha256: str, path: Path) -> None:
    if sha256_of(data) != sha256:
        said = "is not the image that was ingested (sha256 differs); run ingest again, or see what else differs with `risbench validate`"
        raise UnusableImage("image_changed", f"{path}: {said}")


def decoded_image(data: bytes, where: Path | str, path: str) -> Pixels:
    """Return the pixels (height, width, 3), 8-bit RGB, of an image file of a workspace.

    Raises:
        UnusableImage: it cannot be decoded.
    """
    try:
        return read_raster(io.BytesIO(data), path).pixels
    except InvalidRowError as reason:
        raise UnusableImage(reason.code, f"{where}: {reason}") from None


def read_image(root: Path, image: ImageRef) -> Pixels:
    """Return the pixels (height, width, 3), 8-bit RGB, of a record's image in the workspace `root`.

    Raises:
        UnusableImage: it is gone, is not the image that was ingested, cannot be decoded, or has another size than the record says.
        MissingRequirementError: the system fails to read it.
    """
    data = _read(root / image.path)
    pixels = decoded_image(data, root / image.path, image.path)  # first: damaged says more than changed
    _check(data, image.sha256, root / image.path)
    if pixels.shape[:2] != (image.height, image.width):
        found, wanted = f"{pixels.shape[1]} x {pixels.shape[0]}", f"{image.width} x {image.height}"
        raise UnusableImage("image_changed", f"{root / image.path}: has {found} px; the record says {wanted} px. Run ingest again")
    return pixels
