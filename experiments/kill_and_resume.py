"""kill -9 at random moments over the full run (ingest, refine-masks, export on 1,236 rows), then the same command again.

    python experiments/kill_and_resume.py [--kills 40] [--seed 0]

A quarter of the kills hits ingest, a quarter export, half refine-masks. The result must equal an uninterrupted run's
byte for byte, `seconds` in run.json aside. As a check of the check, one byte is changed at the end and must be seen.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import REFER, need_data, risbench

STAGES = (
    ("ingest", str(REFER), "--fit", "keep"),
    ("refine-masks", "--engine", "grabcut"),
    ("export", "--split", "--include-unreviewed", "--format", "risbench,coco,refer"),
)
FOLDERS = ("1-ingest", "2-refine", "4-export")


def digest(root: Path) -> dict[str, str]:
    """Return a hash of every file, of run.json without `seconds`."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if path.name == "run.json":
                value = json.loads(data)
                value.pop("seconds")
                data = json.dumps(value, sort_keys=True).encode()
            found[path.relative_to(root).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


def same_so_far(calm: Path, stormy: Path, folder: str) -> bool:
    """Return whether one stage's folder is the same in both workspaces."""
    return digest(calm / folder) == digest(stormy / folder)


def killed_after(words: tuple[str, ...], workspace: Path, seconds: float) -> bool:
    """Run a stage and kill it with its workers after `seconds`; return whether it was still running."""
    command = [sys.executable, "-m", "risbench", *words, "-w", str(workspace)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    if process.returncode:
        sys.exit(f"risbench {words[0]} ended with {process.returncode}")
    return False


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    need_data()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        calm, stormy = Path(folder) / "calm", Path(folder) / "stormy"
        lengths = [risbench(*words, "-w", calm)[1] for words in STAGES]
        print("uninterrupted: " + ", ".join(f"{words[0]} {length:.1f} s" for words, length in zip(STAGES, lengths, strict=True)))
        began = time.monotonic()
        total = 0
        for index, (words, length) in enumerate(zip(STAGES, lengths, strict=True)):
            wanted = options.kills // 4 if index != 1 else options.kills - 2 * (options.kills // 4)
            kills = again = 0
            while kills < wanted:
                # A resumed run has less left to do: moments are drawn so that most kills hit work, not the start of Python.
                if killed_after(words, stormy, draw.uniform(0.5, 1.5 + length / 8)):
                    kills += 1
                    continue
                # It came to its end between two kills: that result counts too, then the stage starts from nothing.
                again += 1
                if not same_so_far(calm, stormy, FOLDERS[index]):
                    sys.exit(f"{words[0]}: differs after {kills} kills")
                shutil.rmtree(stormy / FOLDERS[index])
            risbench(*words, "-w", stormy)
            total += kills
            same = same_so_far(calm, stormy, FOLDERS[index])
            print(f"{words[0]}: killed {kills} times; finished {again + 1} times, each time the same: {same}", flush=True)
        first, second = digest(calm), digest(stormy)
        same = first == second
        print(f"{total} kills, {len(first)} files, {time.monotonic() - began:.0f} s; byte-identical: {same}")
        target = stormy / "1-ingest" / "part-00000.jsonl"
        target.write_bytes(target.read_bytes().replace(b"0", b"1", 1))
        print(f"a changed byte is seen: {digest(stormy) != first}")
        sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
