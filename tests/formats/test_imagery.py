from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine

from risbench.core.errors import Refusal
from risbench.core.imagery import encode_png, near_duplicates, perceptual_hash, read_raster
from tests.conftest import picture


def refused(path: Path) -> str:
    with open(path, "rb") as file, pytest.raises(Refusal) as caught:
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
    import zlib

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
                with pytest.raises(Refusal, match="image_empty.*every pixel is nodata"):
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
