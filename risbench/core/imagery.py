"""Reading, stretching, hashing and writing images, with hostile files in mind.

Only PNG, JPEG, BMP and TIFF are opened, recognised by their first bytes and never by their name.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

# GDAL must not look at sidecar files or the network, and must not guess formats.
os.environ.setdefault("GDAL_DISABLE_READDIR_ON_OPEN", "EMPTY_DIR")
os.environ.setdefault("GDAL_PAM_ENABLED", "NO")
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**31))

import cv2
import numpy as np
import rasterio
import rasterio.errors
import rasterio.transform
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from rasterio.enums import ColorInterp, MaskFlags

from risbench.core.errors import Refusal
from risbench.core.record import Affine

warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)  # most images have none
Image.MAX_IMAGE_PIXELS = None  # we check the size ourselves, before any pixel is decoded
Pixels = NDArray[np.uint8]

MAX_PIXELS: Final = 200_000_000
MAX_BAND_BYTES: Final = 400_000_000
MIN_SIDE_PX: Final = 8
_ORIENTATION_TAG: Final = 0x0112
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
    shows the file as these pixels (8-bit grey or RGB, no orientation tag), so that its bytes can be kept.
    """

    pixels: Pixels
    kind: str
    plain: bool = False
    crs: str | None = None
    transform: Affine | None = None
    metres_per_pixel: float | None = None

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.pixels.shape[1])


def image_kind(head: bytes) -> str | None:
    """Return PNG, JPEG, BMP or TIFF by a file's first bytes, else None."""
    return next((kind for signature, kind in _SIGNATURES.items() if head.startswith(signature)), None)


def suffix_fits(name: str, kind: str) -> bool:
    """Return whether a file name ends as its content says."""
    return name.lower().endswith(_SUFFIXES[kind])


def check_size(name: str, width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse images that are too small to hold an object or too large to decode in memory."""
    size = f"{width} x {height} px"
    if min(width, height) < MIN_SIDE_PX:
        raise Refusal("image_too_small", "image", name, f"it is {size}; a side must have at least {MIN_SIDE_PX} px")
    if width * height > max_pixels:
        raise Refusal("image_too_large", "image", name, f"it is {size}; at most {max_pixels:,} pixels are decoded: cut it into tiles first")


def read_raster(file: BinaryIO, name: str, *, bands: Sequence[int] | None = None, max_pixels: int = MAX_PIXELS) -> Raster:
    """Decode an image to 8-bit RGB.

    Other depths are stretched to 8 bits between the 2nd and 98th percentile of the valid pixels of each band;
    `bands` picks three bands (or one) of a TIFF, counted from 1.

    Raises:
        Refusal: not an image, damaged, truncated, too small or too large.
    """
    kind = image_kind(file.read(16))
    file.seek(0)
    if kind is None:
        raise Refusal("not_an_image", "image", name, "its first bytes are not those of a PNG, JPEG, BMP or TIFF file")
    if kind == "TIFF":
        return _read_tiff(file, name, bands, max_pixels)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(file, formats=[kind])
            check_size(name, image.width, image.height, max_pixels)
            image.load()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
        raise Refusal("image_damaged", "image", name, f"it cannot be decoded to the end ({error})") from error
    if image.mode in ("I", "I;16", "I;16B", "F"):
        grey = _to_eight_bits(np.asarray(image), None)
        return Raster(np.repeat(grey[..., None], 3, axis=2), kind)
    plain = kind in ("PNG", "JPEG") and image.mode in ("RGB", "L") and image.getexif().get(_ORIENTATION_TAG, 1) == 1
    return Raster(np.ascontiguousarray(np.asarray(image.convert("RGB"))), kind, plain)


def _read_tiff(file: BinaryIO, name: str, bands: Sequence[int] | None, max_pixels: int) -> Raster:
    path = getattr(file, "name", None)
    try:
        source: Any = path if isinstance(path, str) else io.BytesIO(file.read())
        with rasterio.open(source, driver="GTiff") as dataset:
            check_size(name, dataset.width, dataset.height, max_pixels)
            chosen = _choose_bands(dataset, bands, name)
            item_bytes = max(np.dtype(dataset.dtypes[band - 1]).itemsize for band in chosen)
            if dataset.width * dataset.height * item_bytes > MAX_BAND_BYTES:
                size = f"{dataset.width} x {dataset.height} px of {item_bytes} bytes"
                raise Refusal(
                    "image_too_large", "image", name, f"a band has {size}; at most {MAX_BAND_BYTES:,} bytes: cut it into tiles first"
                )
            valid = _valid_pixels(dataset, chosen, name)
            # Band by band, so that one band of the file's own depth is in memory at a time.
            pixels = np.empty((dataset.height, dataset.width, 3), np.uint8)
            for channel, band in enumerate(chosen):
                pixels[..., channel] = _to_eight_bits(dataset.read(band), valid)
            if len(chosen) == 1:
                pixels[..., 1], pixels[..., 2] = pixels[..., 0], pixels[..., 0]
            crs, transform = georeference(dataset)
    except (rasterio.errors.RasterioError, ValueError, TypeError, MemoryError) as error:
        raise Refusal("image_damaged", "image", name, f"it cannot be decoded to the end ({error})") from error
    return Raster(pixels, "TIFF", False, crs, transform, metres_per_pixel(crs, transform, pixels.shape[1], pixels.shape[0]))


def _valid_pixels(dataset: Any, chosen: Sequence[int], name: str) -> NDArray[np.bool_] | None:
    """Return where a dataset has data, None where it has it everywhere."""
    if dataset.nodata is None and dataset.mask_flag_enums[0] == [MaskFlags.all_valid]:
        return None
    # Invalid is what is so in every band: a dark pixel may hold the nodata value in one of them.
    valid = np.zeros((dataset.height, dataset.width), bool)
    for band in chosen:
        valid |= dataset.read_masks(band) > 0
    if not valid.any():
        raise Refusal("image_empty", "image", name, f"every pixel is nodata ({dataset.nodata})")
    return valid


def _to_eight_bits(band: NDArray[Any], valid: NDArray[np.bool_] | None) -> Pixels:
    """Stretch one band (height, width) of any dtype between its 2nd and 98th percentile; 8-bit bands stay as they are."""
    if np.iscomplexobj(band):
        band = np.abs(band)
    if band.dtype == np.uint8:
        return np.asarray(band if valid is None else np.where(valid, band, 0), dtype=np.uint8)
    usable = np.isfinite(band) if valid is None else np.isfinite(band) & valid
    out = np.zeros(band.shape, np.uint8)
    if not usable.any():
        return out
    # A million samples settle a percentile; the stride is fixed, so the result is too.
    sample = band[usable]
    low, high = np.percentile(sample[:: max(1, sample.size // 1_000_000)].astype(np.float64), (2, 98))
    if high <= low:
        low, high = float(sample.min()), float(sample.max())
    scale = 255.0 / (high - low) if high > low else 0.0
    for start in range(0, band.shape[0], 512):
        rows = slice(start, start + 512)
        values = np.where(usable[rows], band[rows], low).astype(np.float64)
        out[rows] = np.where(usable[rows], np.clip((values - low) * scale, 0, 255), 0).round().astype(np.uint8)
    return out


def _choose_bands(dataset: Any, bands: Sequence[int] | None, name: str) -> list[int]:
    """Return the bands to show: those asked for, else the ones marked red, green and blue, else the first three, or the first."""
    count = dataset.count
    if bands is None:
        marked = {color: index for index, color in reversed(list(enumerate(dataset.colorinterp, 1)))}
        wanted = [marked.get(color) for color in (ColorInterp.red, ColorInterp.green, ColorInterp.blue)]
        if None not in wanted:
            return [index for index in wanted if index is not None]
        return [1, 2, 3] if count >= 3 else [1]
    if len(bands) not in (1, 3) or not all(1 <= band <= count for band in bands):
        raise Refusal("no_such_band", "image", name, f"bands {list(bands)} are asked for; it has bands 1 to {count}; name one or three")
    return list(bands)


def georeference(dataset: Any) -> tuple[str | None, Affine | None]:
    """Return (CRS, pixel-to-CRS map) of an open rasterio dataset, from its transform or its ground control points."""
    crs, transform = dataset.crs, dataset.transform
    if transform.is_identity:
        points, points_crs = dataset.gcps
        if not points:
            return None, None
        crs, transform = points_crs, rasterio.transform.from_gcps(points)
    if crs is None:
        return None, None
    a, b, c, d, e, f = tuple(transform)[:6]
    code = crs.to_epsg()
    return (f"EPSG:{code}" if code else crs.to_wkt()), (a, b, c, d, e, f)


def metres_per_pixel(crs: str | None, transform: Affine | None, width: int, height: int) -> float | None:
    """Return the side of a pixel in metres, in the middle of the image where the CRS is geographic; None without georeference."""
    if crs is None or transform is None:
        return None
    a, b, _, d, e, f = transform
    x_step, y_step = float(np.hypot(a, d)), float(np.hypot(b, e))
    parsed = rasterio.crs.CRS.from_user_input(crs)
    if parsed.is_geographic:
        latitude = f + d * width / 2 + e * height / 2
        x_step, y_step = x_step * 111_320.0 * float(np.cos(np.radians(latitude))), y_step * 110_574.0
        return round(float(np.sqrt(abs(x_step * y_step))), 6)
    return round(float(np.sqrt(x_step * y_step)) * float(parsed.linear_units_factor[1]), 6)


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
