"""What the scripts on models share: generated referring scenes as a release, made once into a folder that is kept."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from common import risbench

from risbench.scenes.referring import write_referring

SIDE = 256


def referring_release(folder: Path, scenes: int, split: str = ".8,.05,.15") -> Path:
    """Return a release of generated referring scenes below `folder`, through the real stages."""
    workspace = folder / f"scenes-{scenes}"
    release = workspace / "4-export" / "release"
    if not (release / "release.json").exists():
        source = folder / f"source-{scenes}"
        if not (source / "instances.json").exists():
            with ProcessPoolExecutor(os.cpu_count()) as pool:
                made = write_referring(source, 0, scenes, side=SIDE, mapped=lambda draw, numbers: pool.map(draw, numbers, chunksize=32))
            print(f"drawn: {made['images']:,} images, {made['sentences']:,} sentences", flush=True)
        risbench("ingest", source, "--format", "coco", "--fit", "keep", "--uninformative", "keep", "-w", workspace)
        risbench("refine-masks", "--engine", "box", "-w", workspace)  # the masks that the source brings are kept
        risbench("export", "--split", split, "--include-unreviewed", "--format", "parquet", "-w", workspace)
    return release
