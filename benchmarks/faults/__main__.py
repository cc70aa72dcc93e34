"""Everything that a disk, a kill, damaged files and hostile ones can do to risbench, in one table.

    cd benchmarks; python -m faults [kills|failed-calls|...] [--every N] [--seconds S] [--only WORDS] [--jobs N] [--planted]

Without a name all experiments run. `--every 20` tries every 20th point. `--planted` puts a known bug into each experiment, which must then fail.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from faults import shim

EXPERIMENTS = ("kills", "failed-calls", "power-cut", "fuzz", "hostile", "signals", "streams", "two-at-once")


def main() -> None:
    """Run what is asked for and print the table; exit 1 where a point failed (with --planted: where none did)."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help=", ".join(EXPERIMENTS))
    parser.add_argument("--every", type=int, default=1, help="try every n-th point (default: each)")
    parser.add_argument("--seconds", type=float, default=120, help="how long each reader is given damaged files")
    parser.add_argument("--only", default="", help="experiments whose name holds one of these words, with commas")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many points are tried at once")
    parser.add_argument("--seed", type=int, default=0, help="the first seed of damaged files")
    parser.add_argument("--planted", action="store_true", help="with a known bug in each experiment")
    options = parser.parse_args()
    if unknown := set(options.experiments) - set(EXPERIMENTS):
        parser.error(f"no such experiment: {', '.join(sorted(unknown))}; there are {', '.join(EXPERIMENTS)}")
    if not shim.is_loaded():
        _start_again()
    sys.exit(_run(options))


def _start_again() -> None:
    try:
        shim.start_again_with(shim.build(Path(tempfile.mkdtemp(prefix="faults-library-"))))
    except shim.NoCompiler as reason:
        print(f"skipped: {reason}", file=sys.stderr)
        sys.exit(0)


def _run(options: argparse.Namespace) -> int:
    from faults import bad_releases
    from faults.calls import failed_calls, kills
    from faults.ends import signals, streams, two_at_once
    from faults.fuzz import fuzz
    from faults.hostile import hostile
    from faults.planted import catch_all
    from faults.power import power_loss
    from faults.stages import import_all
    from faults.table import Options, print_head, print_row
    from faults.trials import scratch_folder

    began = time.monotonic()
    os.nice(10)
    benches = {
        "kills": kills,
        "failed-calls": failed_calls,
        "power-cut": power_loss,
        "fuzz": fuzz,
        "hostile": hostile,
        "signals": signals,
        "streams": streams,
        "two-at-once": two_at_once,
    }
    import_all(slow=True)
    tried = failures = 0
    with scratch_folder() as scratch:
        only = tuple(word for word in options.only.split(",") if word)
        bad_releases.use_scratch(scratch)
        told = Options(options.every, options.seconds, only, options.jobs, options.seed, scratch)
        if options.planted:
            return int(not catch_all(told))
        print_head()
        for name in options.experiments or EXPERIMENTS:
            for row in benches[name](told):
                print_row(row)
                tried, failures = tried + row.tried, failures + len(row.failures)
    print(f"{tried:,} points, {failures} failures, {time.monotonic() - began:.0f} s")
    return int(failures > 0)


if __name__ == "__main__":
    main()
