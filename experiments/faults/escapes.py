"""Sources that point outside of themselves, and links and names that somebody laid out beforehand."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from faults.hostile import Case
from faults.readers import COCO, geotiff, png
from faults.stages import picture, row, write_geotiff, write_source

_CSV: Final = "image_path,xmin,ymin,xmax,ymax,label\n{name},5,5,30,30,ship\n"
_GEO: Final = {"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {"class": "ship"}, "geometry": {
    "type": "Polygon", "coordinates": [[[15.0001, 45.1501], [15.0004, 45.1501], [15.0004, 45.1499], [15.0001, 45.1499], [15.0001, 45.1501]]]}}]}  # fmt: skip


def _secret(place: Path) -> Path:
    """Lay out what must not be opened, as a picture and as a GeoTIFF, and return its name without suffix."""
    secret = place / "outside" / "secret"
    secret.with_suffix(".png").write_bytes(png(77))
    write_geotiff(secret.with_suffix(".tif"), picture(77))
    return secret


def _folder_named(name: str) -> Callable[[Path], None]:
    """A folder inside the source whose path, as a text, is a name that GDAL follows elsewhere."""

    def make(place: Path) -> None:
        tiff = place / "source" / name.replace("{secret}", str(_secret(place).with_suffix(".tif")))
        write_geotiff(tiff, picture(1, 64))
        (place / "source" / "b.csv").write_text(_CSV.format(name=tiff.name))
        (place / "source" / "b.geojson").write_text(json.dumps(_GEO))

    return make


def _image_reference(reference: str) -> Callable[[Path], None]:
    def make(place: Path) -> None:
        secret = _secret(place)
        (place / "source" / "Images").mkdir(parents=True)
        (place / "source" / "Images" / "a.png").write_bytes(png())
        rows = [row("a.png", 1), row(reference.replace("{secret}", str(secret)), 2)]
        (place / "source" / "VRSBench_x.json").write_text(json.dumps(rows))

    return make


def _text_that_points(name: str, text: str) -> Callable[[Path], None]:
    """An annotation file whose text names a file or an address outside."""

    def make(place: Path) -> None:
        secret = _secret(place)
        (place / "source").mkdir()
        (place / "source" / "a.tif").write_bytes(geotiff())
        (place / "source" / "a.png").write_bytes(png())
        (place / "source" / name).write_text(text.replace("{secret}", str(secret)))

    return make


def _tiff_that_is_a_vrt(place: Path) -> None:
    secret = _secret(place).with_suffix(".tif")
    _image_reference("vrt.tif")(place)
    (place / "source" / "Images" / "vrt.tif").write_text(
        f'<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename>{secret}'
        "</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )


def _zip_slip(place: Path) -> None:
    (place / "source").mkdir()
    with zipfile.ZipFile(place / "source" / "x.zip", "w") as archive:
        for name in ("../../outside/slipped.png", "/tmp/../outside/slipped.png", "..\\..\\outside\\slipped.png", "Images/a.png"):
            archive.writestr(name, png())
        archive.writestr("VRSBench_x.json", json.dumps([row("a.png", 1), row("slipped.png", 2)]))


def _tar_with_links(place: Path) -> None:
    secret = _secret(place)
    (place / "source").mkdir()
    with tarfile.open(place / "source" / "x.tar", "w") as archive:
        for name, kind, target in (
            ("a.png", tarfile.SYMTYPE, f"{secret}.png"),
            ("b.png", tarfile.LNKTYPE, f"{secret}.png"),
            ("c.png", tarfile.FIFOTYPE, ""),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, target
            archive.addfile(entry)
        data = json.dumps([row("a.png", 1), row("b.png", 2), row("c.png", 3)]).encode()
        entry = tarfile.TarInfo("VRSBench_x.json")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))


class _RunsCode:
    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._mark}",)


def _pickle_with_code(place: Path) -> None:
    (place / "source" / "x").mkdir(parents=True)
    (place / "source" / "x" / "refs(u).p").write_bytes(pickle.dumps([{"ref_id": _RunsCode(place / "outside" / "ran")}], 2))
    (place / "source" / "x" / "instances.json").write_text(json.dumps(COCO))


def _nothing_came_outside(place: Path) -> str:
    return "something was written outside" if {path.name for path in (place / "outside").iterdir()} - {"secret.png", "secret.tif"} else ""


def _case(name: str, make: Callable[[Path], object], *words: str, **more: Any) -> Case:
    return Case(name, make, words or ("ingest", "source", "-w", "w"), check=_nothing_came_outside, **more)


_HERE: Final = ("ingest", ".", "-w", "../w", "--format", "geotiff")
ESCAPES: Final = (
    *(_case(f"folder {name}", _folder_named(name), *_HERE, inside="source") for name in (
        "file:{secret}", "GTIFF_DIR:1:{secret}", "GTIFF_RAW:{secret}", "zip:{secret}", "https:/127.0.0.1:9/x.tif", "http:/127.0.0.1:9/x.tif",
        "vsicurl/http:/127.0.0.1:9/x.tif", "s3:/127.0.0.1/x.tif", "COG:{secret}")),
    *(_case(f"folder {name} of rows", _folder_named(name), "ingest", "source", "-w", "w") for name in ("file:{secret}", "https:/127.0.0.1:9/x.tif")),
    *(_case(f"image {name}", _image_reference(name)) for name in (
        "../outside/secret.png", "../../outside/secret.png", "{secret}.png", "{secret}.tif", "file://{secret}.png", "/vsizip/{secret}.png",
        "http://127.0.0.1:9/a.png", "/vsicurl/http://127.0.0.1:9/a.tif", "..\\outside\\secret.png", ".", "./", "..", "/", "Images/../../outside/secret.png")),
    _case("VRT called .tif", _tiff_that_is_a_vrt),
    _case("COCO file_name outside", _text_that_points("instances.json", json.dumps({**COCO, "images": [{"id": 1, "file_name": "../outside/secret.png"}]}))),
    _case("VOC filename outside", _text_that_points("a.xml", "<annotation><filename>../outside/secret.tif</filename><object><name>ship</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>30</xmax><ymax>30</ymax></bndbox></object></annotation>")),
    _case("VOC with an entity", _text_that_points("a.xml", '<!DOCTYPE a [<!ENTITY x SYSTEM "file://{secret}.png">]><annotation><filename>&x;</filename></annotation>')),
    _case("VOC with a DTD on the network", _text_that_points("a.xml", '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd"><annotation/>')),
    _case("CSV image outside", _text_that_points("b.csv", _CSV.format(name="{secret}.tif"))),
    _case("GeoJSON with a linked CRS", _text_that_points("b.geojson", json.dumps({**_GEO, "crs": {"type": "link", "properties": {"href": "http://127.0.0.1:9/", "type": "proj4"}}}))),
    _case("GeoJSON with a CRS that is a URL", _text_that_points("b.geojson", json.dumps({**_GEO, "crs": {"type": "name", "properties": {"name": "http://127.0.0.1:9/crs"}}}))),
    _case("GeoJSON with a CRS that is a file", _text_that_points("b.geojson", json.dumps({**_GEO, "crs": {"type": "name", "properties": {"name": "{secret}.tif"}}}))),
    _case("phrases with a picture outside", _text_that_points("output_phrase_train.txt", "../outside/secret.png the big ship\n")),
    _case("zip slip", _zip_slip),
    _case("tar with links", _tar_with_links),
    _case("pickle that runs code", _pickle_with_code),
)  # fmt: skip


def _linked_images(place: Path) -> None:
    write_source(place)
    shutil.move(place / "source" / "Images", place / "elsewhere")
    (place / "source" / "Images").symlink_to(place / "elsewhere")


def _linked_files(place: Path) -> None:
    write_source(place)
    (place / "blobs").mkdir()
    for path in sorted((place / "source" / "Images").iterdir()):
        shutil.move(path, place / "blobs" / path.name)
        path.symlink_to(place / "blobs" / path.name)


def _lock_is_a_link(place: Path) -> None:
    write_source(place)
    (place / "diary").write_text("ten years of a diary")
    (place / "w").mkdir()
    (place / "w" / ".lock").symlink_to("../diary")


def _run(place: Path, *words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "risbench", *words], cwd=place, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{words}: {done.stderr}")


def _backup_name_is_taken(place: Path) -> None:
    from faults.stages import make_desk

    write_source(place)
    _run(place, "ingest", "source", "-w", "w")
    make_desk(place)
    (place / ".tmp.b.zip").touch()
    (place / ".tmp.b.zip").chmod(0o666)


def _backup_is_private(place: Path) -> str:
    mode = (place / "b.zip").stat().st_mode & 0o777 if (place / "b.zip").exists() else 0
    return f"a backup with passwords has mode {mode:o}" if mode & 0o077 else ""


_CODE: Final = (
    "open({mark!r}, 'w').write('ran')\nfrom transformers import PretrainedConfig\nclass C(PretrainedConfig):\n    model_type = 'evil'\n"
)
_TRAIN: Final = (
    "train",
    "lavt",
    "-w",
    "w",
    "--config",
    "tiny",
    "--set",
    "recipe.steps=1",
    "--set",
    "recipe.batch=4",
    "--set",
    "recipe.per_image=1",
)


def _hub_folder(place: Path) -> None:
    """A model's folder that brings Python of its own."""
    write_source(place)
    _run(place, "ingest", "source", "-w", "w")
    _run(place, "refine-masks", "--engine", "box", "-w", "w")
    _run(place, "export", "--split", ".34,.33,.33", "--include-unreviewed", "-w", "w")
    folder = place / "hub"
    folder.mkdir()
    told = {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.M", "AutoTokenizer": ["evil.C", "evil.C"]},
        "tokenizer_class": "C",
    }
    for name in ("config.json", "tokenizer_config.json"):
        (folder / name).write_text(json.dumps(told))
    (folder / "evil.py").write_text(_CODE.format(mark=str(place / "ran")))


def _no_code_ran(place: Path) -> str:
    return "code of a hub folder ran" if (place / "ran").exists() else ""


def _said(words: str) -> Callable[[Path], str]:
    """Return a check that is of the records: a run that read none must not have said that it is done."""

    def check(place: Path) -> str:
        records = [line for part in (place / "w").glob("1-ingest/part-*.jsonl") for line in part.read_text().splitlines()]
        return "" if records or not (place / "w" / "1-ingest" / "run.json").exists() else words

    return check


_OFFLINE: Final = {"HF_HUB_OFFLINE": "1"}
LINKS: Final = (
    Case("linked folder of images", _linked_images, check=_said("no record, and done")),
    Case("linked images", _linked_files, check=_said("no record, and done")),
    Case("lock is a link", _lock_is_a_link, codes=(0, 1, 3, 4, 75), check=lambda place: "" if (place / "diary").read_text().startswith("ten years") else "a file that .lock links to is emptied"),
    Case("name of a backup is taken", _backup_name_is_taken, ("review", "backup", "b.zip", "-w", "w"), (0, 3, 4), check=_backup_is_private),
    Case("hub folder with code: backbone", _hub_folder, (*_TRAIN, "--set", "backbone.weights=hub"), (2, 3, 4), typed="y\ny\n", check=_no_code_ran, environment=_OFFLINE, longest_s=30),
    Case("hub folder with code: text", _hub_folder, (*_TRAIN, "--set", "text.weights=hub"), (2, 3, 4), typed="y\ny\n", check=_no_code_ran, environment=_OFFLINE, longest_s=30),
)  # fmt: skip
