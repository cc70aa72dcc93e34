from __future__ import annotations

import errno
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image, ImageOps
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from risbench.core import rasters
from risbench.core.errors import InvalidRowError, MissingRequirementError
from risbench.core.imagery import Raster, encode_png, near_duplicates, perceptual_hash, read_raster, turned
from risbench.core.pixels import to_eight_bits
from risbench.core.reading import open_to_read
from tests.conftest import picture


def refused(path: Path) -> str:
    with open(path, "rb") as file, pytest.raises(InvalidRowError) as caught:
        read_raster(file, path.name)
    return caught.value.code


def test_a_png_comes_back_pixel_for_pixel() -> None:
    image = picture(3)
    raster = read_raster(io.BytesIO(encode_png(image)), "a.png")
    assert (raster.pixels == image).all()
    assert raster.plain


@pytest.mark.parametrize("cut", [20, 60, 0.5, 0.9])
def test_a_truncated_image_is_refused(tmp_path: Path, cut: float) -> None:
    for name, data in (("a.png", encode_png(picture(0))), ("a.jpg", _jpeg(picture(0)))):
        path = tmp_path / name
        path.write_bytes(data[: int(cut if cut > 1 else len(data) * cut)])
        assert refused(path) in ("image_damaged", "not_an_image")


def _jpeg(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def test_one_pixel_and_fifty_thousand_squared_are_refused_before_decoding(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "one.png")
    assert refused(tmp_path / "one.png") == "image_too_small"
    header = bytearray(encode_png(picture(0)))
    header[16:24] = (50_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
    (tmp_path / "huge.png").write_bytes(header)
    assert refused(tmp_path / "huge.png") == "image_too_large"
    with rasterio.open(
        tmp_path / "huge.tif", "w", driver="GTiff", width=50_000, height=50_000, count=1, dtype="uint8", sparse_ok=True, tiled=True
    ):
        pass
    assert refused(tmp_path / "huge.tif") == "image_too_large"


def test_a_vrt_named_tif_is_not_opened(tmp_path: Path) -> None:
    secret = tmp_path / "secret.tif"
    with rasterio.open(secret, "w", driver="GTiff", width=32, height=32, count=1, dtype="uint8") as dataset:
        dataset.write(np.full((1, 32, 32), 7, np.uint8))
    band = f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename>{secret}</SourceFilename></SimpleSource></VRTRasterBand>'
    vrt = f'<VRTDataset rasterXSize="32" rasterYSize="32">{band}</VRTDataset>'
    (tmp_path / "a.tif").write_text(vrt)
    assert refused(tmp_path / "a.tif") == "not_an_image"


def test_content_counts_and_not_the_name(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    assert refused(tmp_path / "text.png") == "not_an_image"
    raster = read_raster(io.BytesIO(_jpeg(picture(0))), "really_a_jpeg.png")
    assert raster.kind == "JPEG"


def test_sixteen_bits_are_stretched_over_valid_pixels_only(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(1000, 1200, (1, 64, 64)).astype(np.uint16)
    data[0, :8] = 0
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", width=64, height=64, count=1, dtype="uint16", nodata=0,
                       crs="EPSG:32616", transform=Affine(0.5, 0, 700000, 0, -0.5, 3700000)) as dataset:  # fmt: skip
        dataset.write(data)
    with open(tmp_path / "a.tif", "rb") as file:
        raster = read_raster(file, "a.tif")
    assert (raster.pixels[:8] == 0).all()
    assert raster.pixels[8:].min() == 0
    assert raster.pixels[8:].max() == 255
    assert raster.metres_per_pixel == 0.5
    assert raster.crs == "EPSG:32616"


def test_every_real_geotiff_becomes_a_picture_or_a_reason(shared: Path) -> None:
    for path in sorted((shared / "geotiff").glob("*.tif")):
        with open(path, "rb") as file:
            if path.name == "inverted_lat.tif":
                with pytest.raises(InvalidRowError, match="image_empty.*every pixel is nodata"):
                    read_raster(file, path.name)
                continue
            raster = read_raster(file, path.name)
        # RGBA.uint16.tif holds one value everywhere; the others must show something.
        assert raster.pixels.std() > 5 or path.name == "RGBA.uint16.tif", path.name
        assert (raster.crs is None) == (path.name == "rotated.tif"), path.name


def test_near_copies_are_found_and_other_pictures_are_not() -> None:
    rng = np.random.default_rng(0)
    images = [
        np.asarray(Image.fromarray(rng.integers(0, 255, (12, 12, 3), np.uint8)).resize((256, 256), Image.Resampling.BICUBIC))
        for _ in range(12)
    ]
    copy = np.asarray(Image.open(io.BytesIO(_jpeg(np.clip(images[4] * 0.9 + 8, 0, 255).astype(np.uint8)))).resize((200, 200)))
    flat = [np.full((64, 64, 3), value, np.uint8) for value in (40, 90)]
    hashes = [perceptual_hash(image) for image in (*images, copy, *flat)]
    assert near_duplicates(hashes) == [(4, 12)]


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(bands: np.ndarray, driver: str = "GTiff", **options: Any) -> bytes:
    """Return a TIFF, or PNG, of bands (count, height, width)."""
    with MemoryFile() as memory:
        count, height, width = bands.shape
        with memory.open(driver=driver, width=width, height=height, count=count, dtype=bands.dtype, **options) as dataset:
            dataset.write(bands)
        return bytes(memory.read())


def read(data: bytes, **options: Any) -> Raster:
    return read_raster(io.BytesIO(data), "a", **options)


def why(data: bytes) -> str:
    with pytest.raises(InvalidRowError) as caught:
        read(data)
    return str(caught.value)


def deep(count: int) -> np.ndarray:
    """Return bands (count, 40, 24) of 16 bits as satellites of 12 bits have them; the last column has no opacity where the last is one."""
    bands = np.random.default_rng(3).integers(0, 3600, (count, 40, 24)).astype(np.uint16)
    bands[:, :, :4] = 20
    if count in (2, 4):
        bands[-1] = 65535
        bands[-1, :, 20:] = 0
    return bands


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_png_of_16_bits_is_stretched_as_a_tiff_of_the_same_numbers(count: int) -> None:
    bands = deep(count)
    options = {**({"photometric": "RGB"} if count > 2 else {}), **({"alpha": "YES"} if count in (2, 4) else {})}
    twin = tiff(bands, **options)
    raster = read(tiff(bands, "PNG"))
    assert np.array_equal(raster.pixels, read(twin).pixels)
    assert (raster.pixels.min(), raster.pixels.max(), raster.plain) == (0, 255, False)
    assert len(np.unique(raster.pixels)) > 200


def test_the_transparent_color_of_a_16_bit_png_counts_for_no_percentile() -> None:
    bands = deep(3)
    bands[:, :8] = np.array([60_000, 60_001, 60_002], np.uint16)[:, None, None]
    data = tiff(bands, "PNG")
    key = struct.pack(">HHH", 60_000, 60_001, 60_002)
    chunk = struct.pack(">I", 6) + b"tRNS" + key + struct.pack(">I", zlib.crc32(b"tRNS" + key))
    place = data.index(b"IDAT") - 4
    raster = read(data[:place] + chunk + data[place:])
    assert (raster.pixels[:8] == 0).all()
    assert raster.pixels[8:].max() == 255


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L", "4 bits"])
def test_what_is_transparent_is_black_as_in_a_tiff_and_its_bytes_are_not_kept(mode: str) -> None:
    colors = np.full((16, 16, 3), 200, np.uint8)
    colors[:8] = 255
    image = Image.fromarray(colors)
    if mode == "P":
        data = saved(image.quantize(2), "PNG", transparency=bytes([0, 255]))
        hidden = np.asarray(image.quantize(2)) == 0
    elif mode in ("RGB", "L"):
        data, hidden = saved(image.convert(mode), "PNG", transparency=(255, 255, 255) if mode == "RGB" else 255), colors[..., 0] == 255
    elif mode == "4 bits":
        data = tiff(colors[None, ..., 0] // 17, "PNG", nbits=4)
        key = b"tRNS" + struct.pack(">H", 15)
        place = data.index(b"IDAT") - 4
        data = data[:place] + struct.pack(">I", 2) + key + struct.pack(">I", zlib.crc32(key)) + data[place:]
        hidden = colors[..., 0] == 255
    else:
        alpha = Image.fromarray(np.where(colors[..., 0] == 255, 0, 255).astype(np.uint8))
        layered = image.convert(mode)
        layered.putalpha(alpha)
        data, hidden = saved(layered, "PNG"), colors[..., 0] == 255
    raster = read(data)
    assert hidden.any()
    assert (raster.pixels[hidden] == 0).all()
    assert (raster.pixels[~hidden] >= 187).all()
    assert not raster.plain
    gone = image.convert("RGBA")
    gone.putalpha(0)
    assert "image_empty: image = a; every pixel is transparent" in why(saved(gone, "PNG"))


def patches() -> Image.Image:
    colors = np.zeros((32, 32, 3), np.uint8)
    colors[:16], colors[16:], colors[:, :8] = (200, 30, 60), (20, 160, 90), (255, 255, 255)
    return Image.fromarray(colors)


def color_files() -> dict[str, bytes]:
    image = patches()
    grey = np.asarray(image.convert("L"))[None]
    return {
        "palette TIFF": saved(image.quantize(3), "TIFF"),
        "palette PNG": saved(image.quantize(3), "PNG"),
        "palette BMP": saved(image.quantize(3), "BMP"),
        "CMYK JPEG": saved(image.convert("CMYK"), "JPEG", quality=95),
        "CMYK TIFF": saved(image.convert("CMYK"), "TIFF"),
        "CMYK JPEG in TIFF": saved(image.convert("CMYK"), "TIFF", compression="jpeg", quality=95),
        "YCbCr TIFF": saved(image.convert("YCbCr"), "TIFF"),
        "YCbCr JPEG in TIFF": tiff(
            np.asarray(image).transpose(2, 0, 1), photometric="YCBCR", compress="jpeg", tiled=True, blockxsize=16, blockysize=16
        ),
        "white is 0": tiff(255 - grey, photometric="MINISWHITE"),
        "white is 0, 16 bits": tiff(4000 - grey.astype(np.uint16) * 7, photometric="MINISWHITE"),
        "4 bits": tiff(grey // 17, nbits=4),
        "white is 0, 4 bits": tiff(15 - grey // 17, nbits=4, photometric="MINISWHITE"),
        "1 bit": saved(image.convert("L").point(lambda value: 255 * (value > 150)).convert("1"), "TIFF"),
    }


@pytest.mark.parametrize("name", list(color_files()))
def test_colors_come_out_as_every_viewer_shows_them(name: str) -> None:
    raster, shown = read(color_files()[name]), patches()
    grey = name not in ("palette TIFF", "palette PNG", "palette BMP") and "CMYK" not in name and "YCbCr" not in name
    wanted = np.asarray(shown.convert("L").convert("RGB") if grey else shown).astype(int)
    if name == "1 bit":
        wanted = np.where(wanted > 150, 255, 0)
    if name == "white is 0, 16 bits":
        assert raster.pixels[4, 4].tolist() == [255] * 3  # the brightest, whatever the stretch
        assert raster.pixels[4, 20, 0] < raster.pixels[20, 20, 0] < 255
        return
    off = np.abs(raster.pixels.astype(int) - wanted)[4::8, 4::8]
    assert off.max() <= (17 if "4 bits" in name else 12 if "JPEG" in name else 3), name
    assert not raster.plain


def test_colors_that_are_not_read_are_refused_by_their_own_name() -> None:
    image = patches()
    bands = np.asarray(image).transpose(2, 0, 1).copy()
    twelve = bytearray(saved(image, "JPEG"))
    twelve[twelve.index(b"\xff\xc0") + 4] = 12
    inks = saved(image.convert("CMYK"), "JPEG")
    mark = inks.index(b"\xff\xee")
    unmarked = inks[:mark] + inks[mark + 2 + int.from_bytes(inks[mark + 2 : mark + 4], "big") :]
    cases = {
        "JPEG of 12 bits a color": bytes(twelve),
        "CMYK, print inks, without Adobe's mark": unmarked,
        "CMYK, print inks, with a color profile": saved(image.convert("CMYK"), "JPEG", icc_profile=b"profile"),
        "CIE L*a*b*": tiff(bands, photometric="CIELAB"),
        "ICC L*a*b*": tiff(bands, photometric="ICCLAB"),
        "print inks: 4 of uint16": tiff(np.concatenate([bands, bands[:1]]).astype(np.uint16), photometric="CMYK"),
    }
    for reason, data in cases.items():
        assert why(data).startswith("unsupported_colors: image = a; it is "), reason
        assert reason in why(data)
        assert "save it as" in why(data)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "PNG of 16 bits"])
def test_a_picture_is_turned_upright_as_annotation_tools_show_it(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(picture(5)[:40, :64])
    if kind == "PNG of 16 bits":
        plain = tiff(np.asarray(image).transpose(2, 0, 1).astype(np.uint16) * 16, "PNG")
        chunk = b"eXIf" + exif.tobytes()[6:]
        place = plain.index(b"IDAT") - 4
        data = plain[:place] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + plain[place:]
        upright = turned(read(plain).pixels, orientation)
    else:
        data = saved(image, kind, exif=exif, **({"quality": 100} if kind == "JPEG" else {}))
        upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    raster, stored = read(data), read(data, upright=False)
    assert np.array_equal(raster.pixels, upright)
    assert (raster.turned_by, raster.stored_size, raster.plain) == (orientation, (64, 40), orientation == 1 and kind in ("JPEG", "PNG"))
    assert np.array_equal(turned(stored.pixels, orientation), upright)
    assert (stored.turned_by, stored.stored_size, stored.width, stored.plain) == (1, (64, 40), 64, raster.plain)


def test_a_georeferenced_tiff_is_not_turned_and_damaged_exif_turns_nothing() -> None:
    data = bytearray(
        tiff(np.asarray(picture(1))[:40, :64].transpose(2, 0, 1), crs="EPSG:32616", transform=Affine(0.5, 0, 7e5, 0, -0.5, 37e5))
    )
    entry = struct.pack("<HHI", 277, 3, 1)  # samples per pixel gives way to an orientation: GDAL then reads one band
    place = bytes(data).index(entry)
    data[place : place + 12] = struct.pack("<HHIHH", 274, 3, 1, 6, 0)
    raster = read(bytes(data))
    assert (raster.width, raster.height, raster.turned_by, raster.crs) == (64, 40, 1, "EPSG:32616")
    damaged = saved(Image.fromarray(picture(1)), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert read(damaged).turned_by == 1


class Failing(io.BytesIO):
    """A file whose n-th read fails once, as one on a network drive does."""

    left = 10**9

    def read(self, size: int | None = -1) -> bytes:  # type: ignore[override]
        self.left -= 1
        if self.left == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(size)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "PNG of 16 bits"])
def test_a_failed_read_is_never_taken_for_a_damaged_image(kind: str) -> None:
    image = Image.fromarray(picture(2)[:96, :96])
    data = tiff(np.asarray(image).transpose(2, 0, 1).astype(np.uint16), "PNG") if kind == "PNG of 16 bits" else saved(image, kind)
    upright = read(data).pixels
    for number in range(1, 200):
        file = Failing(data)
        file.left = number
        try:
            raster = read_raster(file, "a.png")
        except MissingRequirementError as error:
            assert str(error) == "a.png: cannot be read: Input/output error; mend that, then run the same command to go on"
            continue
        assert file.left > 0  # no read failed, so this was the last
        assert np.array_equal(raster.pixels, upright)
        assert number > 2
        return
    pytest.fail("it is read for ever")


def test_too_little_memory_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", none_left)
    with pytest.raises(MissingRequirementError, match="not enough memory"):
        read(encode_png(picture(0)))


def test_gdal_reads_a_large_tiff_itself_and_a_passing_failure_of_it_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(np.asarray(picture(1)).transpose(2, 0, 1).copy(), tiled=True, compress="deflate"))
    with open_to_read(path) as file:
        wanted = read_raster(file, "a.tif").pixels
    monkeypatch.setattr(rasters, "_IN_MEMORY_BYTES", 0)
    really, failures = rasterio.open, [rasterio.errors.RasterioIOError("Read failed")]

    def fails_once(*arguments: Any, **options: Any) -> Any:
        assert arguments[0].startswith("/dev/fd/")
        if failures:
            raise failures.pop()
        return really(*arguments, **options)

    monkeypatch.setattr(rasterio, "open", fails_once)
    with open_to_read(path) as file:
        assert np.array_equal(read_raster(file, "a.tif").pixels, wanted)
    assert failures == []
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)
    with open_to_read(path) as file, pytest.raises(InvalidRowError, match="image_damaged"):
        read_raster(file, "a.tif")


def test_a_scene_of_20_gigabytes_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "scene.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=80_000, height=80_000, count=3, dtype="uint8", BIGTIFF="YES", sparse_ok=True, tiled=True
    ):
        pass
    os.truncate(path, 20 << 30)
    read_bytes: list[int] = []

    class Counted(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:  # type: ignore[override]
            data = super().read(size)
            read_bytes.append(len(data))
            return data

    with Counted(path) as file, pytest.raises(InvalidRowError, match="image_too_large: image = scene.tif; it is 80000 x 80000 px"):
        read_raster(file, "scene.tif")  # type: ignore[arg-type]
    assert sum(read_bytes) < 10_000


def test_a_stretch_of_many_rows_is_that_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    for kind in (np.uint16, np.float32, np.int16):
        band = rng.normal(500, 200, (1300, 900)).clip(0, 3000).astype(kind)
        valid = rng.random(band.shape) > 0.3
        if kind is np.float32:
            band[5] = np.nan
        usable = valid & np.isfinite(band)
        sample = band[usable]
        low, high = np.percentile(sample[:: max(1, sample.size // 1_000_000)].astype(np.float64), (2, 98))
        values = np.clip((np.where(usable, band, low).astype(np.float64) - low) * 255.0 / (high - low), 0, 255)
        assert np.array_equal(to_eight_bits(band, valid), np.where(usable, values, 0).round().astype(np.uint8))
