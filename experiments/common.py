"""What the scripts share: where the real data is, and running the command line with its peak memory."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from risbench.core.processes import dying_with_parent

SHARED = Path(os.environ.get("RISBENCH_SHARED", Path(__file__).parents[1] / ".." / "shared")).resolve() / "data"
REFER = SHARED / "nwpu_vhr10_refer"


def need_data() -> None:
    """End the script with its reason where the real data is absent: no failure, or `make bench` would end with it."""
    if not REFER.is_dir():
        print("skipped: the real data is not here; set RISBENCH_SHARED to the folder that holds data/", file=sys.stderr)
        sys.exit(0)


def risbench(*words: str | Path) -> tuple[str, float]:
    """Run the command line; return what it printed and the seconds it took."""
    began = time.monotonic()
    command = [sys.executable, "-m", "risbench", *map(str, words)]
    ends_too = dying_with_parent(signal.SIGTERM)  # left behind, it would keep the workspace's lock
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=ends_too)
    if done.returncode:
        sys.exit(f"risbench {words[0]} ended with {done.returncode}: {done.stderr}")
    return done.stdout, time.monotonic() - began


def peak_gib() -> float:
    """Return the largest resident set of any child so far."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
