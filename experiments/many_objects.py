"""Ingest of one image with very many objects: seconds and memory must grow as the objects do, without sentences and with one for all.

python many_objects.py [--most 100000]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from risbench.core.imagery import encode_png

SIDE = 1024
LIMIT_S = 20.0


def source(folder: Path, objects: int, kind: str) -> Path:
    """Write one image with small objects on a grid: as DOTA labels, or as COCO annotations that all have the same sentence or none."""
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "P0003.png").write_bytes(encode_png(np.full((SIDE, SIDE, 3), 90, np.uint8)))
    across = int(np.ceil(np.sqrt(objects)))
    step = (SIDE - 8) / across
    corners = [(4 + step * (index % across), 4 + step * (index // across)) for index in range(objects)]
    width = max(1.2, step * 0.9)
    if kind == "dota":
        (folder / "labelTxt").mkdir()
        lines = (f"{x} {y} {x + width} {y} {x + width} {y + width} {x} {y + width} small-vehicle 0" for x, y in corners)
        (folder / "labelTxt" / "P0003.txt").write_text("\n".join(lines) + "\n")
        return folder
    sentence = {"expression": "the small white car at the left"} if kind == "one sentence" else {}
    rows = [
        {"id": index, "image_id": 1, "category_id": 1, "bbox": [x, y, width, width], **sentence} for index, (x, y) in enumerate(corners)
    ]
    image = {"id": 1, "file_name": "images/P0003.png", "width": SIDE, "height": SIDE}
    content = {"images": [image], "categories": [{"id": 1, "name": "small-vehicle"}], "annotations": rows}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def measured(folder: Path, objects: int, kind: str) -> tuple[float, float, int]:
    """Return (processor seconds, peak MiB, records) of one ingest in a process of its own."""
    where = source(folder / "source", objects, kind)
    command = [sys.executable, "-m", "risbench", "ingest", str(where), "-w", str(folder / "w"), "--uninformative", "keep", "--fit", "keep"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, "ingest ends well"
    counts = json.loads((folder / "w" / "1-ingest" / "run.json").read_text())["counts"]
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, counts["out"]


def main() -> None:
    """Print a table, and whether the claim holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=100_000)
    most = parser.parse_args().most
    print(f"{'objects of one image':28} {'cpu s':>8} {'peak MiB':>9} {'records':>8}")
    slowest = 0.0
    for kind in ("dota", "no sentence", "one sentence"):
        for objects in (1000, 10_000, 100_000):
            if objects > most:
                continue
            with tempfile.TemporaryDirectory() as folder:
                seconds, peak, records = measured(Path(folder), objects, kind)
            slowest = max(slowest, seconds)
            print(f"{kind:16} {objects:11,} {seconds:8.1f} {peak:9.0f} {records:8,}", flush=True)
            assert records == objects, "every object is a record"
    verdict = "holds" if slowest < LIMIT_S else "FAILS"
    print(f"the slowest takes {slowest:.1f} s; at most {LIMIT_S:.0f} s for 100,000 objects: {verdict}")
    sys.exit(slowest >= LIMIT_S)


if __name__ == "__main__":
    main()
