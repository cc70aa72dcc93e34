"""kill -9 at random moments over the full run (ingest, refine-masks, export on 1,236 rows), then the same command again.

    python benchmarks/kill_and_resume.py [--kills 40] [--seed 0]

The kills are shared out over the stages by how long each takes. The result must equal an uninterrupted run's
byte for byte, `seconds` in run.json aside. As a check of the check, one byte is changed at the end and must be seen.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import REFER, need_data, risbench

STAGES = (
    ("ingest", str(REFER), "--fit", "keep"),
    ("refine-masks",),
    ("export", "--split", "--include-unreviewed", "--format", "risbench,coco,refer"),
)


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
        # At least ten a stage, the rest by length.
        shares = [10 + round((options.kills - 30) * length / sum(lengths)) for length in lengths]
        shares[1] += options.kills - sum(shares)
        began = time.monotonic()
        for words, length, wanted in zip(STAGES, lengths, shares, strict=True):
            done = 0
            while done < wanted:
                # Resumed runs are shorter, so the moments are drawn from what is likely to be left.
                done += killed_after(words, stormy, draw.uniform(0.3, max(1.0, length / max(1, wanted - 2)) + 1.5))
                if (
                    stormy / {"ingest": "1-ingest", "refine-masks": "2-refine/round-1"}.get(words[0], "4-export/release") / "run.json"
                ).exists():
                    break
            risbench(*words, "-w", stormy)
            print(f"{words[0]}: killed {done} times, then finished")
        first, second = digest(calm), digest(stormy)
        same = first == second
        print(f"{len(first)} files, {time.monotonic() - began:.0f} s; byte-identical: {same}")
        target = stormy / "1-ingest" / "part-00000.jsonl"
        target.write_bytes(target.read_bytes().replace(b"0", b"1", 1))
        print(f"a changed byte is seen: {digest(stormy) != first}")
        sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
