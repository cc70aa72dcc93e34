"""Everything that a disk, a kill, damaged files and hostile ones can do to risbench, in one table.

    cd experiments; python -m faults [EXPERIMENT ...] [--every N | --points N] [--seconds S] [--only WORDS] [--jobs N] [--planted]

Without a name all experiments run. `--planted` puts a known bug into each of them, which must then fail. It needs Linux, glibc and a C compiler.
"""

from __future__ import annotations

import argparse
import atexit
import importlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from faults import shim

EXPERIMENTS = {
    "kills": "faults.calls:kills",
    "failed-calls": "faults.calls:failed_calls",
    "power-cut": "faults.power:power_loss",
    "fuzz": "faults.fuzz:fuzz",
    "hostile": "faults.hostile:hostile",
    "signals": "faults.ends:signals",
    "streams": "faults.ends:streams",
    "two-at-once": "faults.ends:two_at_once",
    "review": "faults.review:pulls",
}


def main() -> None:
    """Run what is asked for and print the table; exit 1 where a point failed (with --planted: where none did)."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help=", ".join(EXPERIMENTS))
    parser.add_argument("--every", type=int, default=1, help="try every n-th point (default: each)")
    parser.add_argument("--points", type=int, default=0, help="try so many points of each experiment, evenly spread, whatever --every says")
    parser.add_argument("--seconds", type=float, default=60, help="how long each reader is given damaged files")
    parser.add_argument("--only", default="", help="rows of the table whose name holds one of these, with commas; NAME$: that row alone")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many points are tried at once")
    parser.add_argument("--seed", type=int, default=0, help="the first seed of damaged files")
    parser.add_argument("--planted", action="store_true", help="with a known bug in each experiment")
    parser.add_argument("--json", action="store_true", help="a JSON object for each row, with every failure")
    options = parser.parse_args()
    if unknown := set(options.experiments) - set(EXPERIMENTS):
        parser.error(f"no such experiment: {', '.join(sorted(unknown))}; there are {', '.join(EXPERIMENTS)}")
    if not shim.is_loaded():
        _start_again()
    atexit.register(shutil.rmtree, Path(os.environ["LD_PRELOAD"]).parent, ignore_errors=True)
    sys.exit(_run(options))


def _start_again() -> None:
    folder = Path(tempfile.mkdtemp(prefix="faults-library-"))
    try:
        shim.start_again_with(shim.build(folder))
    except shim.NoCompiler as reason:
        shutil.rmtree(folder)
        print(f"skipped: {reason}", file=sys.stderr)
        sys.exit(0)


def _run(options: argparse.Namespace) -> int:
    from faults import bad_releases
    from faults.planted import catch_all
    from faults.stages import import_all
    from faults.table import Options, Table
    from faults.trials import scratch_folder

    began = time.monotonic()
    os.nice(10)
    import_all()
    table = Table(options.json)
    with scratch_folder() as scratch:
        bad_releases.use_scratch(scratch)
        only = tuple(word for word in options.only.split(",") if word)
        told = Options(options.every, options.points, options.seconds, only, options.jobs, options.seed, scratch)
        if options.planted:
            return int(not catch_all(told, table))
        table.head()
        for name in options.experiments or EXPERIMENTS:
            module, _, bench = EXPERIMENTS[name].partition(":")
            for row in getattr(importlib.import_module(module), bench)(told):
                table.add(row)
    table.end(time.monotonic() - began)
    return int(table.failures > 0)


if __name__ == "__main__":
    main()
