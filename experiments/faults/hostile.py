"""Files made to do harm, each in a process of its own: how it ends, in what time and memory, what it opens outside and whom it calls."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from faults.table import Options, Row
from faults.trials import Failure, each

LONGEST_S: Final = 10.0
MOST_MIB: Final = 1536
# Processor seconds; beside other programs a command may wait much longer.
_GIVEN_UP_S: Final = 60
_NEVER_BACK_S: Final = 900
_ADDRESS_SPACE_GIB: Final = 10
# A small process between: Linux counts to a command's peak what its starter held.
_LAUNCHER: Final = """
import json, os, resource, subprocess, sys
seconds, patience, gib, report, *words = sys.argv[1:]
limit = int(gib) << 30
resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 5))
resource.setrlimit(resource.RLIMIT_AS, (limit, limit)); resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
environment = {**os.environ, "DISK_REPORT": report}
try:
    done = subprocess.run(words, timeout=float(patience), capture_output=True, env=environment, stdin=sys.stdin)
    code, errors = done.returncode, done.stderr
except subprocess.TimeoutExpired as late:
    code, errors = None, late.stderr or b""
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([code, errors.decode(errors="replace")[-4000:], used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""


@dataclass(frozen=True)
class Case:
    """One hostile file: what makes it in a folder, the command that meets it, and what may come of that.

    `longest_s` and `most_mib` are its bounds in processor seconds and memory; `check` returns what is wrong with what it left.
    Whatever lies in `outside` of the folder may not be opened.
    """

    name: str
    make: Callable[[Path], object]
    words: tuple[str, ...] = ("ingest", "source", "-w", "w")
    codes: tuple[int, ...] = (0, 1, 3)
    longest_s: float = LONGEST_S
    most_mib: float = MOST_MIB
    check: Callable[[Path], str] | None = None
    inside: str = "."
    typed: str = ""
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ending:
    """How a command ended: None as code where it was given up; its calls outside and to the network where it could still tell them."""

    code: int | None
    stderr: str
    seconds: float
    mib: float
    outside: int
    connections: int


def hostile(options: Options, plant: str = "") -> Iterator[Row]:
    """Yield a row for every kind of hostile file."""
    from faults.escapes import ESCAPES, LINKS
    from faults.inputs import BOMBS, NESTED, ODD, SLOW

    kinds: tuple[tuple[str, Iterable[Case]], ...] = (
        ("escapes", ESCAPES), ("links and names", LINKS), ("bombs", BOMBS), ("nesting", NESTED), ("slow to read", SLOW), ("odd files", ODD),
    )  # fmt: skip
    for kind, cases in kinds:
        chosen = options.some_of([case for case in cases if options.wants(f"hostile: {kind}: {case.name}")])
        if chosen:
            work = _with(plant)
            yield Row(f"hostile: {kind}", len(chosen), each(chosen, work, options.scratch / "hostile", options.jobs))


def _with(plant: str) -> Callable[[Case, Path], Failure | None]:
    def work(case: Case, folder: Path) -> Failure | None:
        return try_case(case, folder / "place", plant)

    return work


def try_case(case: Case, place: Path, plant: str = "") -> Failure | None:
    """Make a hostile file, run its command, and return what was wrong with that. `plant` is Python that runs before the command."""
    shutil.rmtree(place, ignore_errors=True)
    (place / "outside").mkdir(parents=True)
    case.make(place)
    ending = _run(case, place, plant)
    kind = _wrong(case, ending) or (case.check(place) if case.check is not None else "")
    last = ([line for line in ending.stderr.splitlines() if line.strip()] or [""])[-1][:200].replace(str(place), "")
    shutil.rmtree(place, ignore_errors=True)
    told = f"exit {ending.code}, {ending.seconds:.1f} s, {ending.mib:.0f} MiB; {last!r}"
    return Failure(kind, case.name, told) if kind else None


def _run(case: Case, place: Path, plant: str) -> Ending:
    report = place / "calls"
    start = ["-m", "risbench"] if not plant else ["-c", f"{plant}\nfrom risbench.cli.app import main\nmain()"]
    words = [sys.executable, *start, *(word.replace("{place}", str(place)) for word in case.words)]
    launched = [
        sys.executable,
        "-S",
        "-E",
        "-c",
        _LAUNCHER,
        str(_GIVEN_UP_S),
        str(_NEVER_BACK_S),
        str(_ADDRESS_SPACE_GIB),
        str(report),
        *words,
    ]
    environment = {**os.environ, "DISK_FAULT": f"{place / 'outside'}|open|0|0|0", **case.environment}
    (place / case.inside).mkdir(parents=True, exist_ok=True)
    done = subprocess.run(launched, cwd=place / case.inside, capture_output=True, text=True, env=environment, input=case.typed, check=False)
    if done.returncode:
        raise RuntimeError(f"{case.name}: the launcher ended with {done.returncode}: {done.stderr[-400:]}")
    code, stderr, seconds, mib = json.loads(done.stdout)
    counts: dict[str, int] = {}
    with contextlib.suppress(FileNotFoundError):  # killed, or given up
        counts = {name: int(count) for name, count in (line.split() for line in report.read_text().splitlines())}
    return Ending(code, stderr, seconds, mib, counts.get("open", 0), counts.get("connect", 0))


def _wrong(case: Case, ending: Ending) -> str:
    if ending.outside or ending.connections:
        return "a file outside is opened" if ending.outside else "a connection is made"
    if ending.code in (None, -signal.SIGXCPU, -signal.SIGKILL):
        return f"over {_GIVEN_UP_S} s" if ending.code is not None else f"does not come back in {_NEVER_BACK_S} s"
    if ending.code < 0:
        return f"ended by signal {-ending.code}"
    if "Traceback" in ending.stderr:
        return "traceback"
    if ending.code not in case.codes:
        return f"exit {ending.code}"
    if ending.mib > case.most_mib:
        return f"over {case.most_mib:.0f} MiB"
    return f"over {case.longest_s:.0f} s" if ending.seconds > case.longest_s + _start_s() else ""


_START: list[float] = []


def _start_s() -> float:
    """Return the processor time of a command that does nothing: it is not the file's."""
    if not _START:
        before = os.times()
        subprocess.run([sys.executable, "-m", "risbench", "stats", "-w", "/nonexistent"], capture_output=True, check=False)
        after = os.times()
        _START.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return _START[0]
