"""Files that are small and unpack to much, that nest, that take long to read, and odd ones that real programs write."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
from rasterio.transform import Affine, from_origin

from faults.bad_releases import BAD_RELEASES, DEEP_RELEASES, NESTED_OWN, run_lengths
from faults.hostile import Case
from faults.mutate import VAST
from faults.readers import COCO, encoded, geotiff, png
from faults.stages import picture, row, write_geotiff

_INGEST: Final = ("ingest", "source", "-w", "w")
Files = Mapping[str, bytes | str]


def _files(files: Callable[[], Files]) -> Callable[[Path], None]:
    """Write a source; its files are made when they are needed, large ones take memory."""

    def make(place: Path) -> None:
        for name, data in files().items():
            path = place / "source" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))

    return make


def _case(name: str, files: Callable[[], Files], *words: str, **more: Any) -> Case:
    return Case(name, _files(files), (*_INGEST, *words), **more)


def _rows(rows: Iterable[Any], **more: bytes | str) -> Files:
    return {"VRSBench_x.json": json.dumps(list(rows)), "Images/a.png": png(), **more}


# -- bombs --------------------------------------------------------------------------------------------------------------------------------


def _parquet(rows: int) -> Files:
    columns = {"image": pa.nulls(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))}
    columns |= {name: pa.nulls(rows, pa.string()) for name in ("name", "id", "expression", "category", "mask_rle", "record")}
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, compression="zstd")
    return {"bomb.parquet": out.getvalue()}


def _png_bomb(side: int, kind: int, depth: int, channels: int) -> Files:
    """A PNG of one colour: 200 million pixels in a few kilobytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    deflate = zlib.compressobj(9)
    line = bytes(1 + -(-side * channels * depth // 8))
    body = b"".join(deflate.compress(line) for _ in range(side)) + deflate.flush()
    colours = chunk(b"PLTE", bytes(768)) if kind == 3 else b""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, kind, 0, 0, 0))
    return _rows([row("b.png", 1)], **{"Images/b.png": b"\x89PNG\r\n\x1a\n" + head + colours + chunk(b"IDAT", body) + chunk(b"IEND", b"")})


def _sparse_tiff(side: int, bands: int, kind: str, **profile: Any) -> Callable[[Path], None]:
    def make(place: Path) -> None:
        _files(lambda: _rows([row("b.tif", 1)]))(place)
        shape: dict[str, Any] = {"width": side, "height": side, "count": bands, "dtype": kind, "sparse_ok": True, "tiled": True}
        with rasterio.open(place / "source" / "Images" / "b.tif", "w", driver="GTiff", **shape, **profile):
            pass

    return make


def _long_tiff(place: Path) -> None:
    """A TIFF of 1.2 GB, as a file with holes: more than is let in, which its first bytes say."""
    _files(lambda: _rows([row("b.tif", 1)]))(place)
    path = place / "source" / "Images" / "b.tif"
    with rasterio.open(path, "w", driver="GTiff", width=20_000, height=20_000, count=3, dtype="uint8", BIGTIFF="YES", sparse_ok=True):
        pass
    with open(path, "r+b") as file:
        file.truncate(1_200_000_000)


def _zipped(files: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def _many_entries() -> Files:
    return {"x.zip": _zipped({**_rows([row("a.png", 1)]), **{str(number): b"" for number in range(100_000)}})}


def _refs(data: bytes) -> Files:
    return {"x/refs(u).p": data, "x/instances.json": json.dumps(COCO), "images/a.png": png()}


def _alike(levels: int) -> bytes:
    """A pickle of lists in lists, each holding the one before twice: 2^levels leaves in a few hundred bytes."""
    steps = b"".join(b"](h" + bytes([n]) + b"h" + bytes([n]) + b"eq" + bytes([n + 1]) for n in range(levels))
    return b"\x80\x02]q\x00" + steps + b"."


def _mask_of(counts: str, side: int) -> Files:
    annotations = [{"id": n, "image_id": 1, "category_id": 1, "bbox": [1, 1, 40, 40], "expression": f"the ship {n}",
                    "segmentation": {"size": [side, side], "counts": counts}} for n in range(1, 4)]  # fmt: skip
    return {"instances_train.json": json.dumps({**COCO, "annotations": annotations}), "a.png": png()}


BOMBS: Final = (
    _case("Parquet of 10^6 empty rows", lambda: _parquet(1_000_000), longest_s=2, most_mib=400),
    _case("Parquet of 4 x 10^6 empty rows", lambda: _parquet(4_000_000), longest_s=2, most_mib=400),
    *(_case(f"PNG of 200 Mpx, {name}", lambda sort=sort: _png_bomb(14_142, *sort)) for name, sort in (
        ("RGB", (2, 8, 3)), ("RGBA", (6, 8, 4)), ("one bit", (0, 1, 1)), ("16 bit grey", (0, 16, 1)), ("palette", (3, 8, 1)))),
    _case("PNG of 10^10 px", lambda: _png_bomb(100_000, 0, 1, 1), longest_s=5, most_mib=400),
    Case("TIFF of 200 Mpx without data", _sparse_tiff(14_142, 3, "uint16"), _INGEST),
    Case("TIFF of 60,000 bands", _sparse_tiff(64, 60_000, "uint8", blockxsize=64, blockysize=64), _INGEST),
    Case("TIFF of 1.2 GB", _long_tiff, _INGEST, longest_s=5, most_mib=500),
    _case("zip of JSON of empty objects", lambda: {"x.zip": _zipped({"VRSBench_x.json": "[" + "{}," * 400_000 + "{}]", "Images/a.png": png()})}),
    _case("zip of 100,000 empty files", _many_entries, longest_s=20),
    _case("zip in a zip in a zip", lambda: _rows([row("a.png", 1)], **{"x.zip": _zipped({"y.zip": _zipped({"z.zip": _zipped({"a": bytes(9 << 20)})})})})),
    _case("pickle with a far memo", lambda: _refs(b"]r" + struct.pack("<I", 1 << 27) + b"."), longest_s=3, most_mib=400),
    _case("pickle of 2^60 leaves", lambda: _refs(_alike(60)), longest_s=5),
    *(_case(f"COCO mask claims {side:,} px a side", lambda side=side: _mask_of(run_lengths(0, side * side), side), "--format", "coco", most_mib=700)
      for side in (23_170, 10**6, 10**9)),
    *BAD_RELEASES,
)  # fmt: skip

# -- nesting ------------------------------------------------------------------------------------------------------------------------------


def _deep_xml(place: Path) -> None:
    _files(lambda: {"a.tif": geotiff(), "b.xml": "<annotation>" + "<object>" * 100_000 + "</object>" * 100_000 + "</annotation>"})(place)


NESTED: Final = (
    *(_case(f"JSON of {deep:,} brackets", lambda deep=deep: {"VRSBench_x.json": "[" * deep + "]" * deep, "Images/a.png": png()})
      for deep in (900, 990, 5_000, 100_000)),
    _case("JSON5 of 3,000 brackets", lambda: {"VRSBench_x.json": "[" * 3_000 + "0," + "]" * 3_000, "Images/a.png": png()}),
    _case("JSON line of 50,000 brackets", lambda: {"VRSBench_x.jsonl": json.dumps(row("a.png", 1)) + "\n" + "[" * 50_000 + "\n", "Images/a.png": png()}),
    _case("GeoJSON of 3,000 brackets", lambda: {"a.tif": geotiff(), "b.geojson": '{"type":"FeatureCollection","features":' + "[" * 3_000 + "]" * 3_000 + "}"}),
    _case("COCO of 100,000 brackets", lambda: {"instances.json": "[" * 100_000, "a.png": png()}, "--format", "coco"),
    Case("VOC of 100,000 elements in each other", _deep_xml, _INGEST),
    _case("pickle of 200,000 lists in each other", lambda: _refs(b"]" + b"]" * 200_000 + b"a" * 200_000 + b".")),
    *DEEP_RELEASES,
    *NESTED_OWN,
)  # fmt: skip

# -- slow ---------------------------------------------------------------------------------------------------------------------------------


def _objects(count: int, sentence: str) -> Files:
    boxes = [{"obj_id": n, "obj_cls": "vehicle", "referring_sentence": sentence,
              "obj_coord": [(n % 320) / 330, (n // 320) / 330, (n % 320) / 330 + 0.003, (n // 320) / 330 + 0.003]} for n in range(count)]  # fmt: skip
    image = encoded("PNG", 0) if count < 1000 else _large_picture()
    return {"Annotations/a.json": json.dumps({"image": "a.png", "objects": boxes}), "Images/a.png": image}


def _large_picture() -> bytes:
    from risbench.core.imagery import encode_png

    return encode_png(np.kron(picture(0, 64), np.ones((16, 16, 1), np.uint8)))


def _almost_json(lines: int) -> Files:
    line = json.dumps({**row("a.png", 2), "pad": "x" * 1000}).replace('"', "'")[:-1]
    return {"VRSBench_x.jsonl": json.dumps(row("a.png", 1)) + "\n" + (line + "\n") * lines, "Images/a.png": png()}


def _alike_rows(count: int) -> list[Any]:
    """Rows of one sentence without an object's id, each with another box."""
    return [row("a.png", n, f"{{<{3 * (n % 30)}><{3 * (n // 30 % 30)}><{3 * (n % 30) + 2 + n // 900}><{3 * (n // 30 % 30) + 2 + n // 900}>}}",
                question="the small vehicle") for n in range(count)]  # fmt: skip


def _polygon(points: int, rings: int = 1) -> Files:
    angles = np.linspace(0, 2 * np.pi, points)
    ring = np.stack([32 + 25 * np.cos(angles), 32 + 25 * np.sin(angles)], 1).round(3).ravel().tolist()
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [7, 7, 50, 50], "segmentation": [ring] * rings}
    return {"instances.json": json.dumps({**COCO, "annotations": [annotation]}), "a.png": png()}


def _tar_header_of_digits() -> Files:
    entry = tarfile.TarInfo("p")
    body = b"9" * 200_000
    entry.type, entry.size = tarfile.XHDTYPE, len(body)
    return _rows(
        [row("a.png", 1)], **{"x.tar": entry.tobuf(tarfile.USTAR_FORMAT) + body.ljust(-(-len(body) // 512) * 512, b"\0") + bytes(1024)}
    )


_HARD_SENTENCES: Final = [row("a.png", n, question=text + str(n)) for n, text in enumerate(
    ["the " + "vehicle-" * 120, "a b " * 240, "the first " + "most " * 190] * 300)]  # fmt: skip
_HARD_PROMPTS: Final = [{"image": "a.png", "conversations": [{"value": text}, {"value": "{<1><1><9><9>}"}]} for text in (
    "[refer] <p>" + "?" * 1980, "[refer] where is " + " ?" * 950 + "x", "<img>" * 390)] * 100  # fmt: skip
_KEEP: Final = ("--uninformative", "keep", "--multi-target", "keep")
SLOW: Final = (
    _case("10,000 objects without sentences", lambda: _objects(10_000, ""), *_KEEP),
    _case("100,000 objects without sentences", lambda: _objects(100_000, ""), *_KEEP, longest_s=20),
    _case("10,000 objects with one sentence", lambda: _objects(10_000, "the small vehicle"), *_KEEP, longest_s=20),
    _case("8,000 rows of one sentence", lambda: _rows(_alike_rows(8_000)), "--uninformative", "keep"),
    _case("1,000 lines that are almost JSON", lambda: _almost_json(1_000), longest_s=15),
    _case("JSON of 400,000 empty objects", lambda: {"VRSBench_x.json": "[" + "{}," * 400_000 + "{}]", "Images/a.png": png()}),
    _case("sentence of 10^7 characters", lambda: _rows([row("a.png", 1, question="the ship " * 1_200_000), row("a.png", 2)])),
    _case("900 sentences that are hard to read", lambda: _rows(_HARD_SENTENCES)),
    _case("300 prompts that are hard to read", lambda: _rows(_HARD_PROMPTS)),
    _case("100 boxes of 18 kB", lambda: _rows([row("a.png", n, "{<1><1><9><9>}" + " ," * 9000 + "x") for n in range(100)])),
    _case("polygon of 10^6 points", lambda: _polygon(1_000_000), "--format", "coco"),
    _case("50,000 polygons in a mask", lambda: _polygon(6, 50_000), "--format", "coco"),
    _case("tar with a header of digits", _tar_header_of_digits),
)  # fmt: skip

# -- odd files that programs write -----------------------------------------------------------------------------------------------------


def _tiff_with(**profile: Any) -> Callable[[Path], None]:
    def make(place: Path) -> None:
        _files(lambda: _rows([row("b.tif", 1), row("a.png", 2)], **{"b.csv": _CSV}))(place)
        write_geotiff(place / "source" / "Images" / "b.tif", picture(1, 64), **profile)

    return make


_CSV: Final = "image_path,xmin,ymin,xmax,ymax,label\nb.tif,5,5,30,30,ship\n"


def _geojson(*places: tuple[float, float, float]) -> Files:
    features = [{"type": "Feature", "properties": {"class": "ship"}, "geometry": {"type": "Polygon",
                 "coordinates": [[[x, y], [x + d, y], [x + d, y - d], [x, y - d], [x, y]]]}} for x, y, d in places]  # fmt: skip
    return {"a.tif": geotiff(), "b.geojson": json.dumps({"type": "FeatureCollection", "features": features})}


def _zip_with(patch: Callable[[bytearray], None]) -> Files:
    data = bytearray(_zipped(_rows([row("a.png", 1)])))
    patch(data)
    return {"x.zip": bytes(data), **_rows([row("a.png", 2)])}


def _method(number: int) -> Callable[[bytearray], None]:
    def patch(data: bytearray) -> None:
        local, central = data.find(b"PK\x03\x04"), data.find(b"PK\x01\x02")
        data[local + 8 : local + 10] = data[central + 10 : central + 12] = number.to_bytes(2, "little")

    return patch


def _version(data: bytearray) -> None:
    data[data.find(b"PK\x01\x02") + 6] = 208


def _hex_number(field: str) -> Files:
    text = json.dumps([row("a.png", 1)]).replace(f'"{field}": ', f'"{field}": {VAST}, "was": ')
    return {"VRSBench_x.json": text, "Images/a.png": png()}


def _fields_are(value: Any) -> Files:
    refs = [
        {
            "ref_id": value,
            "ann_id": value,
            "image_id": value,
            "split": value,
            "sentences": [{"sent_id": value, "raw": value, "sent": value}],
        },
        value,
    ]
    return _refs(pickle.dumps(refs, 4))


ODD: Final = (
    Case("GeoTIFF in a local CRS", _tiff_with(crs='LOCAL_CS["site grid",UNIT["metre",1]]', transform=from_origin(100, 100, 0.1, 0.1)), _INGEST),
    Case("GeoTIFF in a geocentric CRS", _tiff_with(crs="EPSG:4978"), _INGEST),
    Case("GeoTIFF in a local CRS, boxes in CSV", _tiff_with(crs='LOCAL_CS["site grid",UNIT["metre",1]]'), (*_INGEST, "--format", "geotiff")),
    Case("GeoTIFF with a transform of zeros", _tiff_with(transform=Affine(0, 0, 5e5, 0, 0, 5e6)), (*_INGEST, "--format", "geotiff")),
    _case("GeoJSON in metres without a CRS", lambda: _geojson((500_010, 4_999_990, 20))),
    _case("GeoJSON with latitude 91", lambda: _geojson((15.0002, 45.1510, 1e-4), (15.0, 91, 1e-4))),
    _case("GeoJSON with axes exchanged", lambda: _geojson((45.15, 15.0, 1e-4))),
    _case("GeoJSON at a million", lambda: _geojson((15.0002, 45.1510, 1e-4), (1e6, 1e6, 1))),
    *(_case(f"CSV with {name}", lambda text=text: {"b.tif": geotiff(), "b.csv": text}) for name, text in (
        ("CR line ends", _CSV.replace("\n", "\r")), ("a CR in its head", _CSV.replace("label", "la\rbel", 1)), ("a NUL", _CSV.replace("ship", "sh\0ip")),
        ("a field of 200 kB", _CSV.replace("ship", "x" * 200_000)), ("semicolons", _CSV.replace(",", ";")), ("UTF-16", ("\ufeff" + _CSV).encode("utf-16")))),
    *(_case(f"zip method {number}", lambda number=number: _zip_with(_method(number))) for number in (9, 12, 14, 93)),
    _case("zip of version 20.8", lambda: _zip_with(_version)),
    *(_case(f"hexadecimal number of 4,000 digits as {field}", lambda field=field: _hex_number(field)) for field in ("question_id", "image_id", "obj_ids", "question")),
    _case("run length in seven characters", lambda: _mask_of(run_lengths(0, 2000, 20) + run_lengths(-1980, width=7) + run_lengths(20, 64 * 64 - 2060), 64), "--format", "coco"),
    *(_case(f"pickle fields are {type(value).__name__}", lambda value=value: _fields_are(value)) for value in (b"x", {1, 2}, None, float("nan"), (1, 2), True, 1j, 1 << 40_000)),
)  # fmt: skip
