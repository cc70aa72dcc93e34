"""Reading, stretching, hashing and writing images, with hostile files in mind.

Only PNG, JPEG, BMP and TIFF are opened, recognised by their first bytes and never by their name.
"""

from __future__ import annotations

import gc
import os
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**31))

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from risbench.core.errors import InvalidRowError, RisbenchError
from risbench.core.pixels import MAX_PIXELS as MAX_PIXELS
from risbench.core.pixels import Pixels as Pixels
from risbench.core.pixels import check_size as check_size
from risbench.core.pixels import turned as turned
from risbench.core.rasters import georeference as georeference
from risbench.core.rasters import header_size, read_bands
from risbench.core.rasters import metres_per_pixel as metres_per_pixel
from risbench.core.reading import explain_read_error, is_system_failure
from risbench.core.record import Affine

Image.MAX_IMAGE_PIXELS = None  # we check the size ourselves, before any pixel is decoded

_ORIENTATION_TAG: Final = 0x0112
_STRIP: Final = 256
_MANY_PIXELS: Final = 20_000_000
_SIGNATURES: Final = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"II+\x00": "TIFF",
    b"MM\x00+": "TIFF",
}
_SUFFIXES: Final = {"PNG": (".png",), "JPEG": (".jpg", ".jpeg"), "BMP": (".bmp",), "TIFF": (".tif", ".tiff")}


@dataclass(frozen=True)
class Raster:
    """An image as 8-bit RGB (height, width, 3), with its georeference where it has one.

    `transform` maps pixel (x, y) to CRS units; `kind` is PNG, JPEG, BMP or TIFF. `plain` says that any viewer
    shows the file as these pixels (8-bit grey or RGB, opaque, one picture, no orientation tag), so that its bytes can be kept.
    `turned_by` is the EXIF orientation (1 to 8) by which the pixels were turned from how they are stored; 1: they were not.
    `upright` says whether it was read so that they would be, for what belongs to it (a mask) to be read alike.
    `notes` are codes to count of what was passed over in the file.
    """

    pixels: Pixels
    kind: str
    plain: bool = False
    crs: str | None = None
    transform: Affine | None = None
    metres_per_pixel: float | None = None
    turned_by: int = 1
    upright: bool = True
    notes: tuple[str, ...] = ()

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.pixels.shape[1])

    @property
    def stored_size(self) -> tuple[int, int]:
        """(width, height) as the file stores it, before it was turned."""
        return (self.height, self.width) if self.turned_by >= 5 else (self.width, self.height)


def image_kind(head: bytes) -> str | None:
    """Return PNG, JPEG, BMP or TIFF by a file's first bytes, else None."""
    return next((kind for signature, kind in _SIGNATURES.items() if head.startswith(signature)), None)


def suffix_fits(name: str, kind: str) -> bool:
    """Return whether a file name ends as its content says."""
    return name.lower().endswith(_SUFFIXES[kind])


def image_size(file: BinaryIO, name: str, *, upright: bool = True) -> tuple[int, int] | None:
    """Return (width, height) of an image by its header, as `read_raster` would return it; None where it is no image that is read.

    Raises:
        MissingRequirementError: the system fails to read it.
    """
    try:
        kind = image_kind(file.read(32))
        file.seek(0)
        if kind is None:
            return None
        if kind == "TIFF":
            return header_size(file, name, upright=upright)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(file, formats=[kind])
        return (image.height, image.width) if upright and _orientation(image) >= 5 else (image.width, image.height)
    except RisbenchError:
        raise
    except Exception as error:
        if isinstance(error, OSError | MemoryError) and is_system_failure(error):
            raise explain_read_error(error, name) from error
        return None


def read_raster(
    file: BinaryIO, name: str, *, bands: Sequence[int] | None = None, max_pixels: int = MAX_PIXELS, upright: bool = True
) -> Raster:
    """Decode an image to 8-bit RGB; what is transparent or has no data is black.

    Other depths are stretched to 8 bits between the 2nd and 98th percentile of the valid pixels of each band;
    `bands` picks three bands (or one) of a TIFF, counted from 1. With `upright` the pixels are turned as the file's EXIF
    orientation says, as viewers and annotation tools show it.

    Raises:
        InvalidRowError: not an image, damaged, truncated, too small or too large, or of colors that are not read.
        MissingRequirementError: the system fails to read it, or lacks memory: this says nothing about the image.
    """
    try:
        head = file.read(32)
        file.seek(0)
        kind = image_kind(head)
        if kind is None:
            raise InvalidRowError("not_an_image", "image", name, "its first bytes are not those of a PNG, JPEG, BMP or TIFF file")
        if kind == "TIFF":
            return _read_by_gdal(file, name, kind, bands, max_pixels, upright)
        return _read_by_pillow(file, name, kind, max_pixels, upright, bits=head[24] if kind == "PNG" and len(head) > 24 else 8)
    except (OSError, MemoryError) as error:
        if is_system_failure(error):
            raise explain_read_error(error, name) from error
        raise InvalidRowError("image_damaged", "image", name, f"it cannot be decoded to the end ({error})") from error


def _read_by_gdal(file: BinaryIO, name: str, kind: str, bands: Sequence[int] | None, max_pixels: int, upright: bool) -> Raster:
    driver = "GTiff" if kind == "TIFF" else "PNG"
    pixels, crs, transform, orientation, notes = read_bands(file, name, bands, max_pixels, driver=driver, upright=upright)
    metres = metres_per_pixel(crs, transform, pixels.shape[1], pixels.shape[0])
    return Raster(pixels, kind, False, crs, transform, metres, orientation, upright, notes)


def _read_by_pillow(file: BinaryIO, name: str, kind: str, max_pixels: int, upright: bool, bits: int) -> Raster:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(file, formats=[kind])
            check_size(name, image.width, image.height, max_pixels)
            _check_inks(image, name)
            image.load()
            orientation = _orientation(image) if upright else 1
            plain = kind in ("PNG", "JPEG") and image.mode in ("RGB", "L") and _shown_alike(image, kind)
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, IndexError, KeyError) as error:
        if is_system_failure(error):
            raise
        raise _undecodable(file, name, kind, error) from error
    if bits == 16:
        # Pillow keeps the high byte of each color alone. It has checked the file to its end, and found an orientation behind the pixels.
        pixels = image.width * image.height
        del image
        if pixels > _MANY_PIXELS:
            gc.collect()  # it holds itself, and up to 800 MB
        file.seek(0)
        raster = _read_by_gdal(file, name, kind, None, max_pixels, upright)
        return Raster(turned(raster.pixels, orientation), kind, turned_by=orientation, upright=upright)
    if bits < 8 and isinstance(image.info.get("transparency"), int) and image.mode != "P":
        image.info["transparency"] *= 255 // (2**bits - 1)  # Pillow widens the greys, but not the one that is transparent
    return Raster(turned(_rgb(image, name, kind), orientation), kind, plain and orientation == 1, turned_by=orientation, upright=upright)


def _rgb(image: Image.Image, name: str, kind: str) -> Pixels:
    """Return a loaded image's colors (height, width, 3), a strip at a time: a copy of the whole would be another 800 MB."""
    # In BMP the fourth byte is filled with anything, and viewers do not look at it.
    layered = kind != "BMP" and (image.has_transparency_data or image.mode in ("LA", "PA", "RGBA"))
    pixels, seen = np.empty((image.height, image.width, 3), np.uint8), not layered
    for top in range(0, image.height, _STRIP):
        bottom = min(image.height, top + _STRIP)
        strip = image.crop((0, top, image.width, bottom))
        if not layered:
            pixels[top:bottom] = np.asarray(strip.convert("RGB"))
            continue
        values = np.asarray(strip.convert("RGBA"))
        visible = values[..., 3:] > 0
        pixels[top:bottom] = np.where(visible, values[..., :3], 0)
        seen = seen or bool(visible.any())
    if not seen:
        raise InvalidRowError("image_empty", "image", name, "every pixel is transparent")
    return pixels


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of a loaded image, 1 to 8; 1 where it states none, or its EXIF is damaged, as viewers take it."""
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        value = exif.get(_ORIENTATION_TAG, 1)
    except (SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error, EOFError):
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _shown_alike(image: Image.Image, kind: str) -> bool:
    """Return whether every viewer shows an opaque, unmoving picture, turned by none of the places that may say so."""
    try:
        turned_by = image.getexif().get(_ORIENTATION_TAG, 1)  # XMP's, and that of ImageMagick's text chunks, too
    except (SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error, EOFError):
        return False
    moving = kind == "PNG" and getattr(image, "is_animated", False)
    return turned_by == 1 and not moving and not image.has_transparency_data


def _check_inks(image: Image.Image, name: str) -> None:
    """Refuse print inks whose colors are not known: with a profile, or without Adobe's mark that says how they are stored."""
    if image.mode == "CMYK" and ("icc_profile" in image.info or "adobe" not in image.info):
        lacking = (
            "with a color profile that is not applied"
            if "icc_profile" in image.info
            else "without Adobe's mark that says how they are stored"
        )
        raise InvalidRowError("unsupported_colors", "image", name, f"it is in CMYK, print inks, {lacking}; save it as RGB")


def _undecodable(file: BinaryIO, name: str, kind: str, error: Exception) -> InvalidRowError:
    """Return why Pillow does not read a file: a kind of JPEG that is whole, but not read, is not called damaged."""
    found = _jpeg_frame(file) if kind == "JPEG" else None
    if found is not None and found[1] != 8:
        return InvalidRowError("unsupported_colors", "image", name, f"it is a JPEG of {found[1]} bits a color; save it as PNG or TIFF")
    if found is not None and (found[0] in (0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF) or found[2] not in (1, 3, 4)):
        kinds = f"{found[2]} colors" if found[2] not in (1, 3, 4) else "a lossless or hierarchical kind"
        return InvalidRowError("unsupported_colors", "image", name, f"it is a JPEG of {kinds}; save it as PNG or TIFF")
    return InvalidRowError("image_damaged", "image", name, f"it cannot be decoded to the end ({error})")


def _jpeg_frame(file: BinaryIO) -> tuple[int, int, int] | None:
    """Return (marker, bits a color, number of colors) of a JPEG's frame header, None where there is none."""
    file.seek(2)
    for _ in range(1000):
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF:
            return None
        marker, length = head[1], int.from_bytes(head[2:], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = file.read(6)
            return (marker, frame[0], frame[5]) if len(frame) == 6 else None
        file.seek(max(0, length - 2), os.SEEK_CUR)
    return None


def encode_png(pixels: NDArray[Any]) -> bytes:
    """Return the PNG file of an 8-bit RGB (height, width, 3) or grey (height, width) image."""
    image = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    # Level 1 with the sub filter: within 10 % of the default's size on overhead images at a third of the time.
    done, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done, "PNG encoding failed"
    return data.tobytes()


def perceptual_hash(pixels: Pixels) -> str:
    """Return a 256-bit difference hash as 64 hex digits: which of two neighbours on a 17 x 16 grid is brighter.

    Copies that were resized, recompressed or slightly recoloured differ in few bits.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (17, 16), interpolation=cv2.INTER_AREA).astype(np.int16)
    bits = small[:, 1:] > small[:, :-1]
    return np.packbits(bits.ravel()).tobytes().hex()


def near_duplicates(hashes: Sequence[str], max_bits: int = 20) -> list[tuple[int, int]]:
    """Return index pairs (i < j) whose perceptual hashes differ in at most `max_bits` of 256 bits.

    Images without structure (open sea) give hashes of noise or of all zeros; hashes with fewer than
    32 bits of either kind are only compared for equality of the whole, by the caller's sha256.
    """
    if len(hashes) < 2:
        return []
    codes = np.array([np.frombuffer(bytes.fromhex(value), dtype=">u8") for value in hashes]).astype(np.uint64)
    ones = np.bitwise_count(codes).sum(axis=1)
    usable = np.flatnonzero((ones >= 32) & (ones <= 224))
    pairs: list[tuple[int, int]] = []
    for place, index in enumerate(usable[:-1]):
        rest = usable[place + 1 :]
        distance = np.bitwise_count(codes[rest] ^ codes[index]).sum(axis=1)
        pairs.extend((int(index), int(other)) for other in rest[distance <= max_bits])
    return pairs
