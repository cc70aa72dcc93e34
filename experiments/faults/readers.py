"""Sources of every format, with one thing damaged, and what reads them."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from faults.mutate import Mutator
from faults.stages import picture, row, write_geotiff
from risbench.core.imagery import encode_png, perceptual_hash, read_raster
from risbench.core.masks import decode_rle, encode_rle
from risbench.formats.brush import decode_brush, encode_brush
from risbench.ingest import ingest

Reader = Callable[[Mutator, Path], None]
_SIDE: Final = 64
_TRAIN: Final = {"image": "a.png", "conversations": [{"from": "human", "value": "<image>\n[refer] give me the location of <p> the large ship </p>"}, {"from": "gpt", "value": "{<24><24><49><49>}"}]}  # fmt: skip
_OBJECTS: Final = {
    "image": "a.png",
    "objects": [
        {"obj_id": 0, "obj_cls": "vehicle", "obj_coord": [0.1, 0.1, 0.4, 0.4], "obj_corner": [0.1, 0.1, 0.4, 0.1, 0.4, 0.4, 0.1, 0.4],
         "referring_sentence": "the only car left", "is_unique": True, "obj_position": "top", "obj_size": "small", "flag": False},
        {"obj_id": 1, "obj_cls": "ship", "obj_coord": [0.5, 0.5, 0.9, 0.9], "referring_sentence": "the ship"},
    ],
}  # fmt: skip
_SHARES: Final = {"image": "a.png", "expression": "the small ship at the top", "category": "ship", "boxes_0_100_xyxy": [[1, 1, 30, 30]]}
COCO: Final = {
    "images": [{"id": 1, "file_name": "a.png", "width": _SIDE, "height": _SIDE}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0, "expression": "the big ship",
         "segmentation": [[5, 5, 25, 5, 25, 25, 5, 25]]},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 20], "segmentation": {"size": [_SIDE, _SIDE], "counts": [100, 20, 3976]}},
        {"id": 3, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 20], "segmentation": {"size": [_SIDE, _SIDE], "counts": "T3d0\\3"}},
    ],
    "categories": [{"id": 1, "name": "ship", "supercategory": "x"}],
}  # fmt: skip
_REFS: Final = [{"ref_id": 1, "ann_id": 1, "image_id": 1, "category_id": 1, "split": "train", "file_name": "a.png", "sent_ids": [1],
                 "sentences": [{"sent_id": 1, "sent": "the big ship", "raw": "The big ship", "tokens": ["the"]}, {"sent_id": 2, "sent": "a ship left"}]}]  # fmt: skip
_GEO: Final = {
    "type": "FeatureCollection",
    "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}},
    "features": [
        {"type": "Feature", "id": 1, "properties": {"class": "ship", "expression": "the white ship"}, "geometry": {"type": "Polygon",
         "coordinates": [[[500010, 4999990], [500030, 4999990], [500030, 4999970], [500010, 4999970], [500010, 4999990]]]}},
        {"type": "Feature", "properties": {"label": "vehicle"}, "geometry": {"type": "MultiPolygon",
         "coordinates": [[[[500040, 4999960], [500050, 4999960], [500050, 4999950], [500040, 4999960]]]]}},
    ],
}  # fmt: skip
_DOTA: Final = "imagesource:GoogleEarth\ngsd:0.25\n10 10 30 10 30 30 10 30 ship 0\n40.5 40.5 60 42 58 60 39 58 small-vehicle 1\n"
_CSV: Final = "image_path,xmin,ymin,xmax,ymax,label\na.tif,5,5,30,30,ship\na.tif,35,35,60,60,vehicle\n"
_VOC: Final = (
    "<annotation><filename>a.tif</filename><size><width>64</width><height>64</height></size><object><name>ship</name>"
    "<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>30</xmax><ymax>30</ymax></bndbox></object></annotation>"
)


@cache
def png(seed: int = 0, mode: str = "RGB") -> bytes:
    """Return a small PNG."""
    return encoded("PNG", seed, mode)


def encoded(form: str, seed: int = 0, mode: str = "RGB", **options: Any) -> bytes:
    """Return a small image in one of Pillow's formats."""
    out = io.BytesIO()
    Image.fromarray(picture(seed, _SIDE)).convert(mode).save(out, form, **options)
    return out.getvalue()


@cache
def geotiff() -> bytes:
    """Return a small georeferenced TIFF."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write_geotiff(Path(folder) / "a.tif", picture(1, _SIDE))
        return (Path(folder) / "a.tif").read_bytes()


def write_files(folder: Path, files: Mapping[str, bytes | str]) -> Path:
    """Write a source anew and return its folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in files.items():
        path = folder / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return folder / "source"


def ingested(place: Path, files: Mapping[str, bytes | str], **options: Any) -> None:
    """Ingest a source; what was read must add up, be text that harms no terminal, and have met no exception that nobody thought of."""
    source, workspace = write_files(place, files), place / "w"
    result = ingest(source, workspace=workspace, quiet=True, **options)
    counts = result["counts"]
    assert counts["in"] == counts["out"] + counts["quarantined"] + counts["filtered"], counts
    for path in (workspace / "1-ingest").glob("*.jsonl"):
        odd = [
            character
            for character in path.read_bytes().decode()
            if (ord(character) < 32 and character != "\n") or character in "\x7f\u202e\u2028"
        ]
        assert not odd, f"control characters {odd[:3]!r} in {path.name}"
    log = workspace / "1-ingest" / "errors.log"
    if log.exists():
        raise UnforeseenError(log.read_text(errors="replace"))


class UnforeseenError(Exception):
    """The run went on after an exception that nobody thought of: no harm to the others, and yet a bug of ours."""


def _vrsbench(draw: Mutator, place: Path) -> None:
    name, value = draw.draw.choice(
        (("VRSBench_x.json", [row("a.png", 1), row("a.png", 2)]), ("VRSBench_x.json", [_TRAIN]), ("Annotations/a.json", _OBJECTS))
    )
    options = {"uninformative": draw.draw.choice(("filter", "keep")), "multi_target": draw.draw.choice(("aside", "keep"))}
    ingested(place, {name: draw.json(value), "Images/a.png": png()}, **options)


def _lines_of_json(draw: Mutator, place: Path) -> None:
    rows = draw.draw.choice(([row("a.png", 1), _TRAIN, _OBJECTS], [_SHARES]))
    ingested(place, {"VRSBench_x.jsonl": b"\n".join(draw.json(item) for item in rows), "Images/a.png": png()})


def _coco(draw: Mutator, place: Path) -> None:
    ingested(place, {"instances_train.json": draw.json(COCO), "a.png": png()}, format=draw.draw.choice((None, "coco")))


def _refer_json(draw: Mutator, place: Path) -> None:
    ingested(place, {"x/refs.json": draw.json(_REFS), "x/instances.json": json.dumps(COCO), "images/a.png": png()})


def _refer_pickle(draw: Mutator, place: Path) -> None:
    refs = draw.value(_REFS) if draw.chance(0.6) else _REFS
    data = pickle.dumps(refs, draw.draw.randrange(5))
    instances = draw.json(COCO) if draw.chance(0.2) else json.dumps(COCO)
    ingested(place, {"x/refs(u).p": draw.data(data) if draw.chance(0.6) else data, "x/instances.json": instances, "images/a.png": png()})


def _dota(draw: Mutator, place: Path) -> None:
    ingested(place, {"labelTxt/a.txt": draw.lines(_DOTA), "images/a.png": png()}, format=draw.draw.choice((None, "dota")))


def _phrases(draw: Mutator, place: Path) -> None:
    mask = draw.data(png(0, "L")) if draw.chance(0.4) else png(0, "L")
    listed = draw.lines("a.png the big ship on the left\nb.png a white vehicle\n")
    ingested(
        place,
        {"output_phrase_train.txt": listed, "images/a.png": png(), "images/b.png": png(1), "masks/a.png": mask, "masks/b.png": png(0, "1")},
    )


def _geo(which: str, text: str | Any) -> Reader:
    def read(draw: Mutator, place: Path) -> None:
        damaged = draw.lines(text) if isinstance(text, str) else draw.json(text)
        ingested(
            place,
            {"a.tif": geotiff(), which: damaged},
            format=draw.draw.choice((None, "geotiff")),
            class_field=draw.draw.choice((None, None, "label")),
        )

    return read


def _geotiff(draw: Mutator, place: Path) -> None:
    ingested(place, {"a.tif": draw.data(geotiff()), "b.csv": _CSV, "c.geojson": json.dumps(_GEO)}, format="geotiff")


@cache
def _pictures() -> tuple[bytes, ...]:
    made = [encoded(form, mode=mode, **options) for form, mode, options in (
        ("PNG", "RGB", {}), ("PNG", "P", {}), ("PNG", "RGBA", {}), ("PNG", "1", {}), ("PNG", "LA", {}), ("PNG", "I;16", {}), ("JPEG", "RGB", {}),
        ("JPEG", "RGB", {"progressive": True}), ("JPEG", "CMYK", {}), ("BMP", "RGB", {}), ("BMP", "P", {}), ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "RGB", {"compression": "jpeg"}), ("TIFF", "1", {"compression": "group4"})) if mode != "I;16"]  # fmt: skip
    return (*made, geotiff())


def _image(draw: Mutator, place: Path) -> None:
    whole = draw.draw.choice(_pictures())
    data = draw.data(whole)
    data = whole[:4] + data[4:] if draw.chance(0.8) else data  # with its mark it is tried as what it says
    raster = read_raster(io.BytesIO(data), "x", bands=draw.draw.choice((None, None, [1], [3, 2, 1], [9, 9, 9])), max_pixels=4_000_000)
    assert raster.pixels.dtype == np.uint8, raster.pixels.dtype
    assert raster.pixels.shape[2:] == (3,), raster.pixels.shape
    perceptual_hash(raster.pixels)
    encode_png(raster.pixels)


def _zip(draw: Mutator, place: Path) -> None:
    out = io.BytesIO()
    method = draw.draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in (("Images/a.png", png()), ("VRSBench_x.json", json.dumps([row("a.png", 1)])), ("é.txt", "x")):
            archive.writestr(name, data)
    ingested(place, {"x.zip": draw.data(out.getvalue()), "VRSBench_y.json": json.dumps([row("a.png", 2)])})


def _tar(draw: Mutator, place: Path) -> None:
    out = io.BytesIO()
    form = draw.draw.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, data in (
            ("a.png", png()),
            ("VRSBench_x.json", json.dumps([row("a.png", 1)]).encode()),
            ("y" * 90 + ".txt", b"x"),
            ("é.txt", b"x"),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    ingested(place, {"x.tar": draw.data(out.getvalue()), "a.png": png(), "VRSBench_y.json": json.dumps([row("a.png", 2)])})


def _drawn_mask(draw: Mutator) -> np.ndarray[Any, np.dtype[np.bool_]]:
    height, width = draw.draw.randrange(1, 60), draw.draw.randrange(1, 60)
    return np.random.default_rng(draw.draw.randrange(1 << 30)).random((height, width)) < draw.draw.random()


def _brush(draw: Mutator, place: Path) -> None:
    mask = _drawn_mask(draw)
    rle: list[Any] = encode_brush(mask)
    assert ((decode_brush(rle, *mask.shape) > 127) == mask).all()
    if draw.chance(0.6):
        rle = list(draw.data(bytes(rle)))
    else:
        rle[draw.draw.randrange(len(rle))] = draw.odd()
    decode_brush(rle, mask.shape[0] if draw.chance(0.9) else draw.draw.choice((0, -1, 2**31)), mask.shape[1])


def _coco_rle(draw: Mutator, place: Path) -> None:
    mask = _drawn_mask(draw)
    size, counts = encode_rle(mask)
    assert (decode_rle(size, counts) == mask).all()
    size = (
        size
        if draw.chance(0.7)
        else (draw.draw.choice((0, -1, 10**6, 23_170, 10**9, 2**40)), draw.draw.choice((0, 1, 10**6, 23_170, 2**40)))
    )
    decode_rle(size, draw.text(counts) if draw.chance(0.7) else draw.data(counts.encode()).decode("latin-1"))


SOURCES: Final[Mapping[str, Reader]] = {
    "VRSBench rows": _vrsbench,
    "JSON lines": _lines_of_json,
    "COCO": _coco,
    "REFER json": _refer_json,
    "REFER pickle": _refer_pickle,
    "DOTA": _dota,
    "phrases": _phrases,
    "GeoJSON": _geo("b.geojson", _GEO),
    "CSV": _geo("b.csv", _CSV),
    "VOC": _geo("b.xml", _VOC),
    "GeoTIFF": _geotiff,
    "images": _image,
    "zip": _zip,
    "tar": _tar,
    "brush RLE": _brush,
    "COCO RLE": _coco_rle,
}
