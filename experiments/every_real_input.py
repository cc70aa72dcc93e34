"""Every real VRSBench sample, DOTA scene, iSAID-derived window and GeoTIFF: ingested, or refused with its reason.

    python experiments/every_real_input.py

Folders that have boxes are ingested as they are. The windows of P0003 and P0004 are written as VRSBench's per-image
JSON from their true instances first. A GeoTIFF without boxes of its own gets one: a quarter of the image, as GeoJSON in
the image's own CRS (or as CSV in pixels where it has no georeference), which is a true place in a real file.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import rasterio
from common import SHARED, need_data
from PIL import Image

from risbench.core.errors import InvalidRowError
from risbench.core.geometry import apply_affine
from risbench.formats.geotiff import read_scene
from risbench.formats.source.tree import Entry


def reasons(workspace: Path) -> str:
    """Return the quarantine by code, with one full example each."""
    lines = [json.loads(line) for line in (workspace / "1-ingest" / "quarantine.jsonl").read_text().splitlines()]
    codes = {line["code"]: line for line in lines}
    return "; ".join(f"{code}: {line['field']} = {line['value'][:40]}; {line['bound'][:90]}" for code, line in sorted(codes.items()))


def report(label: str, source: Path, workspace: Path, *options: str) -> None:
    """Ingest and print one line; a source that gives no record ends with its reasons."""
    command = [sys.executable, "-m", "risbench", "ingest", source, "-w", workspace, "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 3:
        print(f"{label}: exit 3")
        print(f"    {done.stderr.strip().splitlines()[-1].split(': ', 2)[-1]}")
        return
    if done.returncode:
        sys.exit(f"ingest of {source} ended with {done.returncode}: {done.stderr}")
    result = json.loads(done.stdout)
    counts = result["counts"]
    unused = result["images_without_rows"]["count"]
    print(
        f"{label}: {counts['in']} rows -> {counts['out']} records, {counts['filtered']} set aside {result['filtered_by_code']}, "
        f"{counts['quarantined']} refused; {unused} images have no row"
    )
    if counts["quarantined"]:
        print(f"    {reasons(workspace)}")


def windows_as_vrsbench(folder: Path) -> None:
    """Write the 12 windows' true instances as VRSBench per-image JSON with oriented corners."""
    samples = SHARED / "vrsbench_samples"
    (folder / "Annotations").mkdir(parents=True)
    (folder / "Images").mkdir()
    for item in json.loads((samples / "truth" / "windows.json").read_text()):
        shutil.copyfile(samples / "Images" / item["image"], folder / "Images" / item["image"])
        labels = np.asarray(Image.open(samples / "truth" / item["image"].replace(".png", "_instances.png")))
        objects = []
        for instance in item["instances"]:
            points = np.argwhere(labels == instance["label"])[:, ::-1].astype(np.float32) + 0.5
            corners = cv2.boxPoints(cv2.minAreaRect(points)) / 512
            objects.append({"obj_id": instance["label"], "obj_cls": instance["class"], "obj_corner": corners.ravel().tolist(),
                            "referring_sentence": f"The {instance['class']} with the number {instance['label']}."})  # fmt: skip
        (folder / "Annotations" / f"{Path(item['image']).stem}.json").write_text(json.dumps({"image": item["image"], "objects": objects}))


def boxes_for(path: Path, folder: Path) -> None:
    """Copy a GeoTIFF and write one box for it."""
    shutil.copyfile(path, folder / path.name)
    scene = read_scene(Entry(path.name, path.stat().st_size, path))
    x0, y0, x1, y1 = scene.width * 0.25, scene.height * 0.25, scene.width * 0.5, scene.height * 0.5
    if scene.crs is None or scene.transform is None:
        (folder / f"{path.stem}.csv").write_text(f"image_path,xmin,ymin,xmax,ymax,label\n{path.name},{x0},{y0},{x1},{y1},stadium\n")
        return
    ring = [list(apply_affine(scene.transform, x, y)) for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0))]
    feature = {"type": "Feature", "properties": {"class": "stadium"}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    value = {"type": "FeatureCollection", "crs": {"type": "name", "properties": {"name": scene.crs}}, "features": [feature]}
    (folder / f"{path.stem}.geojson").write_text(json.dumps(value))


need_data()
with tempfile.TemporaryDirectory() as name:
    root = Path(name)
    report("VRSBench samples", SHARED / "vrsbench_samples", root / "samples")
    report("DOTA", SHARED / "dota", root / "dota")
    windows_as_vrsbench(root / "windows")
    report("iSAID-derived windows as per-image JSON", root / "windows", root / "windows_ws")
    report("GeoTIFF folder, as it is", SHARED / "geotiff", root / "geo")
    report(
        "GeoTIFF folder, classes mapped",
        SHARED / "geotiff",
        root / "geo_mapped",
        "--class-field",
        "building",
        "--map-class",
        "yes=stadium",
        "--map-class",
        "Tree=windmill",
    )
    for path in sorted((SHARED / "geotiff").glob("*.tif")):
        folder = root / path.stem
        folder.mkdir()
        try:
            with rasterio.open(path) as dataset:
                kind = f"{dataset.width} x {dataset.height}, {dataset.count} x {dataset.dtypes[0]}"
            boxes_for(path, folder)
        except InvalidRowError as reason:
            print(f"GeoTIFF {path.name}: refused: {reason}")
            continue
        report(f"GeoTIFF {path.name} ({kind})", folder, root / f"{path.stem}_ws")
