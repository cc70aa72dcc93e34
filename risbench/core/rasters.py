"""Files that GDAL reads (TIFF, and PNG of 16 bits): opened without their name, looked at before they are read, in their right colors."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Final, TypeVar

# GDAL must not look at sidecar files or the network, and must not guess formats.
os.environ.setdefault("GDAL_DISABLE_READDIR_ON_OPEN", "EMPTY_DIR")
os.environ.setdefault("GDAL_PAM_ENABLED", "NO")
# MiB of decoded blocks that it keeps; its own default is a twentieth of the machine's memory, beside the pixels that are kept anyway.
os.environ.setdefault("GDAL_CACHEMAX", "64")

import numpy as np
import rasterio
import rasterio.errors
import rasterio.transform
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import MemoryFile

from risbench.core.errors import InvalidRowError
from risbench.core.pixels import MAX_BAND_BYTES, Pixels, check_size, to_eight_bits, turned
from risbench.core.reading import explain_read_error, is_system_failure
from risbench.core.record import Affine

warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)  # most images have none
Result = TypeVar("Result")

# A file of up to this size is read by us, so that a failed read is told from damage; GDAL reads a larger one itself, a block at a time.
_IN_MEMORY_BYTES: Final = 256 << 20
_DESCRIPTORS: Final = "/dev/fd"
_FAILURES: Final = (rasterio.errors.RasterioError, CPLE_BaseError, ValueError, TypeError, SystemError, OverflowError, ArithmeticError)
_PHOTOMETRIC, _ORIENTATION, _COLOR_PROFILE = 262, 274, 34675
_MIN_IS_WHITE, _SEPARATED, _YCBCR = 0, 5, 6
# TIFF 6.0 and its supplements. GDAL brings the first row to RGB itself, where they have 8 bits; of the others it hands out raw numbers.
_READ: Final = {0, 1, 2, 3, 4, _SEPARATED, _YCBCR}
_NOT_READ: Final = {
    8: "CIE L*a*b*",
    9: "ICC L*a*b*",
    10: "ITU L*a*b*",
    32803: "a sensor's raw mosaic",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
}


def with_dataset(file: BinaryIO, name: str, use: Callable[[Any], Result], *, driver: str = "GTiff", header: bool = False) -> Result:
    """Open an image with one driver of GDAL, at its first byte, and return what `use` makes of the dataset.

    GDAL is given bytes or an open file, never a name, which may mean something else to it. `header` says that only the header is
    asked for, so that a file is not read whole.

    Raises:
        InvalidRowError: it cannot be decoded.
        MissingRequirementError: the system fails to read it, or lacks memory.
    """
    try:
        path = _descriptor_path(file, 0 if header else _IN_MEMORY_BYTES)
        if path is None:
            with MemoryFile(file.read()) as memory, memory.open(driver=driver) as dataset:
                return use(dataset)
        try:
            with rasterio.open(path, driver=driver) as dataset:
                return use(dataset)
        except _FAILURES:
            # GDAL does not say why a read failed. Where the system did, it ends here, or has passed.
            _read_through(file)
            with rasterio.open(path, driver=driver) as dataset:
                return use(dataset)
    except (OSError, MemoryError) as error:
        if is_system_failure(error):
            raise explain_read_error(error, name) from error
        raise InvalidRowError("image_damaged", "image", name, f"it cannot be decoded to the end ({error})") from error
    except _FAILURES as error:
        raise InvalidRowError("image_damaged", "image", name, f"it cannot be decoded to the end ({error})") from error


def _descriptor_path(file: BinaryIO, in_memory_bytes: int) -> str | None:
    """Return a path to the open file itself, for one that is too large to be held in memory beside its pixels."""
    try:
        descriptor = file.fileno()
    except (OSError, AttributeError):
        return None  # bytes in memory
    path = f"{_DESCRIPTORS}/{descriptor}"
    return path if os.fstat(descriptor).st_size > in_memory_bytes and os.path.exists(path) else None


def _read_through(file: BinaryIO) -> None:
    file.seek(0)
    while file.read(1 << 20):
        pass


def read_bands(
    file: BinaryIO, name: str, bands: Sequence[int] | None, max_pixels: int, *, driver: str = "GTiff", upright: bool = True
) -> tuple[Pixels, str | None, Affine | None, int, tuple[str, ...]]:
    """Return (pixels (height, width, 3), CRS, transform, orientation by which they were turned, notes) of a TIFF, or a PNG of 16 bits.

    A georeference is of the pixels as they are stored, so an image that has one is not turned.

    Raises:
        InvalidRowError: damaged, too small, too large, or of colors that are not read.
        MissingRequirementError: the system fails to read it, or lacks memory.
    """
    tags = tiff_tags(file) if driver == "GTiff" else {}
    file.seek(0)
    pixels, crs, transform, notes = with_dataset(file, name, lambda dataset: _read(dataset, name, bands, max_pixels, tags), driver=driver)
    orientation = tags.get(_ORIENTATION, 1)
    if crs is not None or not upright or not 2 <= orientation <= 8:
        return pixels, crs, transform, 1, notes
    return turned(pixels, orientation), None, None, orientation, notes


def header_size(file: BinaryIO, name: str, *, upright: bool = True) -> tuple[int, int]:
    """Return the (width, height) of what `read_bands` would return of a TIFF, by its header.

    Raises:
        InvalidRowError: its header is damaged.
        MissingRequirementError: the system fails to read it.
    """
    orientation = tiff_tags(file).get(_ORIENTATION, 1)
    file.seek(0)
    width, height, crs = with_dataset(file, name, lambda dataset: (dataset.width, dataset.height, georeference(dataset)[0]), header=True)
    return (height, width) if upright and crs is None and 5 <= orientation <= 8 else (width, height)


def tiff_tags(file: BinaryIO) -> dict[int, int]:
    """Return the first value of the tags of a TIFF's first directory that GDAL says nothing of; what is damaged is left out."""
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\x00", b"\x00+")
    try:
        (offset,) = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)
        file.seek(offset)
        (count,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
        entries = file.read(min(count, 4096) * (20 if big else 12))
    except (struct.error, ValueError, OverflowError):
        return {}  # GDAL says what is wrong
    found: dict[int, int] = {}
    for tag, kind, value in struct.iter_unpack(
        order + ("HH8x8s" if big else "HH4x4s"), entries[: len(entries) // (20 if big else 12) * (20 if big else 12)]
    ):
        if tag in (_PHOTOMETRIC, _ORIENTATION):
            found[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), value)[0]
        elif tag == _COLOR_PROFILE:
            found[tag] = 1
    return found


def _read(
    dataset: Any, name: str, bands: Sequence[int] | None, max_pixels: int, tags: dict[int, int]
) -> tuple[Pixels, str | None, Affine | None, tuple[str, ...]]:
    check_size(name, dataset.width, dataset.height, max_pixels)
    chosen = _choose_bands(dataset, bands, name)
    item_bytes = max(np.dtype(dataset.dtypes[band - 1]).itemsize for band in chosen)
    if dataset.width * dataset.height * item_bytes > MAX_BAND_BYTES:
        size = f"{dataset.width} x {dataset.height} px of {item_bytes} bytes"
        raise InvalidRowError(
            "image_too_large", "image", name, f"a band has {size}; at most {MAX_BAND_BYTES:,} bytes: cut it into tiles first"
        )
    if bands is None:
        _check_colors(dataset, name, tags)
    valid = _valid_pixels(dataset, chosen, name)
    pixels = _palette(dataset, valid) if bands is None and dataset.colorinterp[0] == ColorInterp.palette else _shown(dataset, chosen, valid)
    if tags.get(_PHOTOMETRIC) == _MIN_IS_WHITE and bands is None and dataset.colorinterp[0] != ColorInterp.palette:
        pixels = np.where(True if valid is None else valid[..., None], 255 - pixels, 0).astype(np.uint8)
    crs, transform = georeference(dataset)
    return pixels, crs, transform, ("georeference_not_used",) if unusable_georeference(dataset) is not None else ()


def _shown(dataset: Any, chosen: Sequence[int], valid: NDArray[np.bool_] | None) -> Pixels:
    # Band by band, so that one band of the file's own depth is in memory at a time.
    pixels = np.empty((dataset.height, dataset.width, 3), np.uint8)
    for channel, band in enumerate(chosen):
        bits = dataset.tags(band, ns="IMAGE_STRUCTURE").get("NBITS")
        pixels[..., channel] = to_eight_bits(dataset.read(band), valid, int(bits) if bits else None)
    if len(chosen) == 1:
        pixels[..., 1], pixels[..., 2] = pixels[..., 0], pixels[..., 0]
    return pixels


def _palette(dataset: Any, valid: NDArray[np.bool_] | None) -> Pixels:
    """Return the colors of a dataset whose band holds places in its palette; places that the palette lacks are black."""
    places = dataset.read(1)
    table = np.zeros((int(np.iinfo(places.dtype).max) + 1, 3), np.uint8)
    for place, (red, green, blue, opacity) in dataset.colormap(1).items():
        if place < len(table) and opacity:
            table[place] = red, green, blue
    colors: Pixels = table[places]
    return colors if valid is None else np.where(valid[..., None], colors, np.uint8(0))


def _check_colors(dataset: Any, name: str, tags: dict[int, int]) -> None:
    """Refuse colors that neither GDAL nor we bring to RGB: shown as they are stored they would be other colors."""
    kind = tags.get(_PHOTOMETRIC, 1)
    bits = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", "8")
    as_rgb = dataset.dtypes[0] == "uint8" and bits == "8"
    turned_by_gdal = tags.get(_ORIENTATION, 1) != 1 and dataset.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION") != "YCbCr JPEG"
    if kind == _SEPARATED and _COLOR_PROFILE in tags:
        reason = "it is in CMYK, print inks, with a color profile that is not applied"
    elif kind == _SEPARATED and not (as_rgb and dataset.count == 4 and not turned_by_gdal):
        reason = f"it is in print inks: {dataset.count} of {dataset.dtypes[0]}"
    elif kind == _YCBCR and (not as_rgb or turned_by_gdal):
        reason = f"it is in YCbCr of {dataset.dtypes[0]}"
    elif kind not in _READ:
        reason = f"it is in {_NOT_READ.get(kind, f'colors of a kind that is not known (photometric {kind})')}"
    else:
        return
    raise InvalidRowError("unsupported_colors", "image", name, f"{reason}; save it as RGB, or say with --bands which bands to show")


def _valid_pixels(dataset: Any, chosen: Sequence[int], name: str) -> NDArray[np.bool_] | None:
    """Return where a dataset has data, None where it has it everywhere."""
    if dataset.nodata is None and dataset.mask_flag_enums[0] == [MaskFlags.all_valid]:
        return None
    # Invalid is what is so in every band: a dark pixel may hold the nodata value in one of them.
    valid = np.zeros((dataset.height, dataset.width), bool)
    for band in chosen:
        valid |= dataset.read_masks(band) > 0
    if not valid.any():
        why = "transparent" if dataset.nodata is None else f"nodata ({dataset.nodata})"
        raise InvalidRowError("image_empty", "image", name, f"every pixel is {why}")
    return valid


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
        raise InvalidRowError(
            "no_such_band", "image", name, f"bands {list(bands)} are asked for; it has bands 1 to {count}; name one or three"
        )
    return list(bands)


def georeference(dataset: Any) -> tuple[str | None, Affine | None]:
    """Return (CRS, pixel-to-CRS map) of an open rasterio dataset, from its transform or its ground control points.

    (None, None) where it has none, and where it has one that leads to no place on the map (`unusable_georeference`).
    """
    if unusable_georeference(dataset) is not None:
        return None, None
    crs, transform = _stated_georeference(dataset)
    if crs is None or transform is None:
        return None, None
    a, b, c, d, e, f = tuple(transform)[:6]
    code = crs.to_epsg()
    return (f"EPSG:{code}" if code else crs.to_wkt()), (a, b, c, d, e, f)


def unusable_georeference(dataset: Any) -> str | None:
    """Return why a dataset's georeference is not used, None where it is, or where there is none.

    A local (surveyor's) or geocentric CRS is none of the map, damaged geo keys make GDAL fail, a transform of zeros gives pixels no size.
    """
    try:
        crs, transform = _stated_georeference(dataset)
        if crs is None or transform is None:
            return None
        numbers = tuple(transform)[:6]
        if crs.to_epsg() is None:
            rasterio.crs.CRS.from_user_input(crs.to_wkt())
        flat = not (crs.is_geographic or crs.is_projected)
    except (rasterio.errors.RasterioError, CPLE_BaseError, ValueError) as error:
        return f"its CRS or its control points cannot be read ({error})"
    if flat:
        return "its CRS is a local or geocentric one, neither projected nor geographic"
    a, b, _, d, e, _ = numbers
    if not np.isfinite(numbers).all() or abs(a * e - b * d) <= 1e-12 * max(a * a + d * d, b * b + e * e):
        return f"its transform {numbers} gives pixels no size"
    return None


def _stated_georeference(dataset: Any) -> tuple[Any, Any]:
    """Return rasterio's (CRS, transform) as the file states them, (None, None) where it does not."""
    crs, transform = dataset.crs, dataset.transform
    if transform.is_identity:
        points, crs = dataset.gcps
        transform = rasterio.transform.from_gcps(points) if points else None
    return (crs, transform) if crs is not None and transform is not None else (None, None)


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
