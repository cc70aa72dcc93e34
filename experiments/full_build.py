"""The whole build at VRSBench's size: minutes, peak memory, bytes and files of every stage, on tiny images.

    python experiments/full_build.py [--images 29614] [--records 52472] [--side 64] [--keep FOLDER]

Noise images with bright rectangles, 1.77 EVAL rows an image, scenes of four windows. Then the command line, one process a stage:
ingest, refine-masks --engine box, export --split in the risbench layout alone and in every format, verify, the release read back, report.
At the end the report in a browser. Masks in Parquet against PNG: masks_in_parquet.py.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import sync_playwright


def write_source(folder: Path, images: int, records: int, side: int) -> None:
    """Write a VRSBench source of EVAL rows."""
    random = np.random.default_rng(0)
    (folder / "Images").mkdir(parents=True)
    rows, key = [], 0
    for index in range(images):
        pixels = random.integers(60, 120, (side, side, 3)).astype(np.uint8)
        name = f"S{index // 4:05d}_{index % 4:04d}.png"
        for k in range((index + 1) * records // images - index * records // images):
            x, y = 4 + 20 * (k % 2), 4 + 18 * (k // 2 % 3)
            width, height = random.integers(6, 16, 2).tolist()
            pixels[y : y + height, x : x + width] = random.integers(180, 240, (height, width, 3))
            corner = [x / side, y / side, (x + width) / side, (y + height) / side]
            tokens = "".join(f"<{round(100 * value)}>" for value in corner)
            word = ("large", "small", "white", "grey")[key % 4]
            rows.append(
                {
                    "image_id": name,
                    "question": f"The {word} vehicle number {key} near the edge of picture {index}.",
                    "ground_truth": "{" + tokens + "}",
                    "dataset": "RSBench",
                    "question_id": key,
                    "type": "ref",
                    "obj_cls": "vehicle" if key % 3 else "ship",
                    "obj_ids": [k],
                }
            )
            key += 1
        cv2.imwrite(str(folder / "Images" / name), pixels)
    (folder / "VRSBench_EVAL_referring.json").write_text(json.dumps(rows))


def stage(name: str, words: Sequence[str | Path], folder: Path | None) -> None:
    """Run a command in a process of its own and print its minutes, its peak memory, and what it left behind."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen([sys.executable, "-m", "risbench", *map(str, words)], stdout=told, stderr=told)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        if status:
            told.seek(0)
            sys.exit(f"{name} ended with {os.waitstatus_to_exitcode(status)}: {told.read().decode()[-2000:]}")
    said = f"{name:<28} {seconds / 60:6.2f} min   peak {used.ru_maxrss / 2**20:4.2f} GiB"
    if folder is not None:
        files, size = 0, 0
        for path, _, names in os.walk(folder):
            files += len(names)
            size += sum(os.lstat(os.path.join(path, one)).st_size for one in names)
        said += f"   {files:>9,} files {size / 1e6:10,.0f} MB"
    print(said, flush=True)


def opened(page: Path) -> None:
    """Print how long the browser takes from a cold start of the page to its first records."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1366, "height": 768})
        began = time.monotonic()
        tab.goto(page.as_uri())
        tab.wait_for_selector(".record")
        shown = time.monotonic() - began
        tab.wait_for_load_state("networkidle")
        print(f"report opened: first records after {shown:.2f} s, tiles after {time.monotonic() - began:.2f} s")
        began = time.monotonic()
        tab.fill("input[name=words]", "white")
        while tab.inner_text("#count").endswith("of 52,472 records (of 52,472)"):
            time.sleep(0.01)
        print(f"filtered by a word in {time.monotonic() - began:.2f} s: {tab.inner_text('#count')}")
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=29_614)
    parser.add_argument("--records", type=int, default=52_472)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--keep", type=Path, default=None, help="work here and leave everything")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = given.keep or Path(temporary)
        source, workspace = place / "source", place / "w"
        write_source(source, given.images, given.records, given.side)
        sizes = (26_300, 10_013, 16_159)
        split = (
            ",".join(str(round(size * given.records / sum(sizes))) for size in sizes)
            if given.records != sum(sizes)
            else "26300,10013,16159"
        )
        release = ("export", "--split", split, "--include-unreviewed", "-w", workspace)
        stage("ingest", ("ingest", source, "--fit", "keep", "-w", workspace), workspace)
        stage("refine-masks --engine box", ("refine-masks", "--engine", "box", "-w", workspace), workspace / "2-refine")
        stage("export, risbench layout", (*release, "--name", "layout"), workspace / "4-export" / "layout")
        stage("export, every format", (*release, "--name", "all", "--format", "all"), workspace / "4-export" / "all")
        stage("verify", ("verify", workspace / "4-export" / "all"), None)
        stage("ingest the release's tables", ("ingest", workspace / "4-export" / "layout", "-w", place / "again"), place / "again")
        stage("report", ("report", "-w", workspace), workspace / "report")
        opened(workspace / "report" / "index.html")
