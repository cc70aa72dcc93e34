"""How long `risbench --help` takes, median of 15 runs.

python experiments/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

times = []
for _ in range(15):
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "risbench", "--help"], stdout=subprocess.DEVNULL, check=True)
    times.append(time.monotonic() - began)
print(f"risbench --help: median {statistics.median(times):.3f} s, largest {max(times):.3f} s of {len(times)} runs")
