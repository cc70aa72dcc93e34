"""How long each command of pipelines/risbench.sh takes on this machine: measured on 404 real images, and what that makes for VRSBench.

    python experiments/recipe.py

NWPU VHR-10 with referring expressions: 1,236 rows on 404 images, padded to 512 x 512. Seconds of each command as it runs; `for all` is that
over its images or records, whichever the command works on, times VRSBench's 29,614 or 52,472: what start-up costs is counted too often, so
it is an upper estimate. The people's commands are measured in review_server.py.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from common import REFER, need_data, peak_gib, risbench

IMAGES, RECORDS = 404, 1236
ALL_IMAGES, ALL_RECORDS = 29_614, 52_472


def main() -> None:
    print(f"{os.cpu_count()} CPU cores, no GPU")
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Path(temporary) / "w"
        release = workspace / "4-export" / "all"
        unreviewed = ("export", "--include-unreviewed", "-w", workspace)
        for name, of_images, words in (
            ("ingest", True, ("ingest", REFER, "-w", workspace)),
            ("refine-masks (built-in model)", False, ("refine-masks", "-w", workspace)),
            ("stats", False, ("stats", "-w", workspace)),
            ("report", False, ("report", "-w", workspace)),
            ("export, risbench layout", False, (*unreviewed, "--name", "one")),
            ("export, every format", False, (*unreviewed, "--name", "all", "--format", "all")),
            ("verify", False, ("verify", release)),
            ("report of the release", False, ("report", release)),
            ("validate", False, ("validate", "-w", workspace)),
        ):
            _, seconds = risbench(*words)
            whole = seconds * (ALL_IMAGES / IMAGES if of_images else ALL_RECORDS / RECORDS) / 60
            print(f"{name:<30} {seconds:7.1f} s   for all {whole:6.0f} min   peak so far {peak_gib():.2f} GiB", flush=True)
        for name, folder in (("the workspace without releases", workspace / "images"), ("the release in every format", release)):
            size = sum({(found := path.stat()).st_ino: found.st_size for path in folder.rglob("*") if path.is_file()}.values())
            print(f"{name}: {size / 1e6:,.0f} MB on disk, for all {size * ALL_IMAGES / IMAGES / 1e9:,.0f} GB")


if __name__ == "__main__":
    need_data()
    main()
