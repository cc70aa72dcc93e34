"""52,000 records through a refine round: memory, and whether the progress shown is true.

    python experiments/many_records.py [--records N] [--engine NAME]

Records on 1,300 small generated images in an ingested workspace. The round runs on a terminal of its own (a pty); what its bar shows is
read as it comes, and at the end compared with the share of the time that had passed. Memory is the peak of the whole process; the same
command on a workspace of 40 records says what the engine takes by itself. Half-way the run is killed once and goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from common import risbench


def write_rows(folder: Path, count: int, images: int) -> None:
    """Write a VRSBench source of EVAL rows: noise images with a bright rectangle a row."""
    random = np.random.default_rng(0)
    (folder / "Images").mkdir(parents=True)
    rows, key = [], 0
    for index in range(images):
        pixels = random.normal(90, 9, (128, 128, 3)).clip(0, 255).astype(np.uint8)
        name = f"S{index:05d}_0000.png"
        for k in range(count // images):
            x, y = 2 + 24 * (k % 5), 2 + 15 * (k // 5 % 8)
            pixels[y : y + 9, x : x + 15] = random.normal(200, 9, (9, 15, 3)).clip(0, 255)
            corner = [x / 128, y / 128, (x + 15) / 128, (y + 9) / 128]
            tokens = "".join(f"<{round(100 * value)}>" for value in corner)
            rows.append(
                {
                    "image_id": name,
                    "question": f"The bright vehicle number {key} of picture {index}.",
                    "ground_truth": "{" + tokens + "}",
                    "dataset": "RSBench",
                    "question_id": key,
                    "type": "ref",
                    "obj_cls": "vehicle",
                    "obj_ids": [k],
                }
            )
            key += 1
        cv2.imwrite(str(folder / "Images" / name), pixels)
    (folder / "VRSBench_EVAL_referring.json").write_text(json.dumps(rows))


def on_terminal(words: list[str], stop_after_s: float | None = None) -> tuple[list[tuple[float, float]], float, float]:
    """Run the command line on a pty; return (seconds, share shown) as they came, the seconds it took and its peak in GiB."""
    began, shown = time.monotonic(), []
    process, terminal = pty.fork()
    if process == 0:
        os.environ.update(COLUMNS="120", TERM="xterm")
        os.execv(sys.executable, [sys.executable, "-m", "risbench", *words])
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:
            break
        if not data:
            break
        for match in re.finditer(rb"([\d,]+)/([\d,]+)", data):
            done, total = (int(part.replace(b",", b"")) for part in match.groups())
            if total:
                shown.append((time.monotonic() - began, done / total))
        if stop_after_s is not None and time.monotonic() - began > stop_after_s:
            os.kill(process, 9)
            stop_after_s = None
    _, _, usage = os.wait4(process, 0)
    return shown, time.monotonic() - began, usage.ru_maxrss / 2**20


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=52000)
    parser.add_argument("--engine", default="box")
    parser.add_argument("--checkpoint", help="for engines that need one")
    words = parser.parse_args()
    engine = ["--engine", words.engine, *(["--checkpoint", words.checkpoint] if words.checkpoint else [])]
    with tempfile.TemporaryDirectory() as folder:
        source, workspace, small = (Path(folder) / name for name in ("source", "w", "small"))
        write_rows(source, words.records, words.records // 40)
        print(f"ingest: {risbench('ingest', source, '--fit', 'keep', '-w', workspace)[1]:.0f} s", flush=True)
        write_rows(Path(folder) / "little", 40, 1)
        risbench("ingest", Path(folder) / "little", "--fit", "keep", "-w", small)
        alone = on_terminal(["refine-masks", *engine, "--workers", "1", "-w", str(small)])[2]
        shown, took, peak = on_terminal(["refine-masks", *engine, "--workers", "1", "-w", str(workspace)])
        first = shown[0][0]
        away = max(abs(share - (at - first) / (took - first)) for at, share in shown)
        whole = {path.name: path.read_bytes() for path in (workspace / "2-refine" / "round-1").glob("part-*")}
        print(
            f"{words.records:,} records, engine {words.engine}, one worker: {took:.0f} s, peak {peak:.2f} GiB ({alone:.2f} for 40 records)"
        )
        print(f"progress shown {len(shown):,} times; away from the share of the time passed by at most {100 * away:.1f} points")
        shutil.rmtree(workspace / "2-refine")
        on_terminal(["refine-masks", *engine, "--workers", "1", "-w", str(workspace)], stop_after_s=took / 2)
        kept = len(list((workspace / "2-refine" / "round-1").glob("part-*")))
        subprocess.run(
            [sys.executable, "-m", "risbench", "refine-masks", *engine, "--workers", "1", "-w", workspace],
            check=True,
            capture_output=True,
        )
        again = {path.name: path.read_bytes() for path in (workspace / "2-refine" / "round-1").glob("part-*")}
        print(
            f"killed half-way with {kept:,} of {len(whole):,} parts, gone on: {'the same bytes' if again == whole else 'DIFFERENT BYTES'}"
        )
