"""A command killed before each of its changes to the disk, and with each of its calls failing once; then the same command again."""

from __future__ import annotations

import contextlib
import errno
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from faults.shim import FROM_THEN_ON, KILL, ONCE, SHORT, Fault
from faults.stages import STAGES, Stage, import_torch, prepared
from faults.table import Options, Row
from faults.trials import Failure, Outcome, difference, digests, each, fresh, run

KILLED: Final = ("ingest", "refine box", "export", "export all", "export --replace", "stats", "report", "report of a release",
                 "ingest of a release", "review backup", "review restore", "train")  # fmt: skip
FAILED: Final = (*KILLED[:8], "validate", "verify", *KILLED[8:10], "review restore", "refine grabcut", "train", "evaluate")
# What a call may say. A disk that is full stays full; the others pass.
_FAULTS: Final = (
    ("write", errno.ENOSPC, FROM_THEN_ON),
    ("write", errno.EIO, ONCE),
    ("write", errno.EINTR, ONCE),
    ("write", 0, SHORT),
    ("fsync", errno.EIO, ONCE),
    ("fsync", errno.ENOSPC, ONCE),
    ("rename", errno.EIO, ONCE),
    ("mkdir", errno.ENOSPC, ONCE),
    ("unlink", errno.EIO, ONCE),
    ("truncate", errno.ENOSPC, ONCE),
    ("close", errno.EIO, ONCE),
    ("link", errno.EMLINK, ONCE),
    ("mmap", errno.ENOMEM, ONCE),
    ("open", errno.EMFILE, ONCE),
    ("open", errno.EIO, ONCE),
    ("open", errno.EACCES, ONCE),
    ("open", errno.EINTR, ONCE),
    ("read", errno.EIO, ONCE),
    ("read", errno.ESTALE, ONCE),
    ("stat", errno.EIO, ONCE),
    ("list", errno.EIO, ONCE),
)


@dataclass(frozen=True)
class Calm:
    """A stage without a fault: where it begins, what it ends with, which calls it makes, and which files are never twice the same."""

    stage: Stage
    base: Path
    wanted: dict[str, str]
    counts: dict[str, int]
    unstable: tuple[str, ...]
    described: str

    def says(self, place: Path) -> str:
        """Return how a folder differs in what bytes do not tell, or nothing."""
        found = self.stage.describe(place) if self.stage.describe is not None else ""
        return "" if found == self.described else found


def calm_run(stage: Stage, scratch: Path, base: Path | None = None) -> Calm:
    """Run a stage twice without a fault, from where it usually begins, or from `base`.

    Raises:
        RuntimeError: it does not end well even so.
    """
    if stage.slow:
        import_torch()
    base, place = base or prepared(stage, scratch), scratch / "calm"
    runs = []
    for _ in range(2):
        outcome = run(stage.words, fresh(base, place), timeout_s=300)
        _import_too(outcome)
        if outcome.code:
            raise RuntimeError(f"{stage.name} ended with {outcome.code} without any fault: {outcome.stderr[-600:]}")
        runs.append(digests(place))
    described = stage.describe(place) if stage.describe is not None else ""
    return Calm(stage, base, runs[0], outcome.counts, (*difference(*runs, stage.unstable), *stage.unstable), described)


def _import_too(outcome: Outcome) -> None:
    """Import what a fork has imported, so that the next one need not."""
    for name in outcome.imported:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def kills(options: Options, plant: Callable[[], None] | None = None) -> Iterator[Row]:
    """Yield a row for every command that is killed before each of its changes."""
    for name in KILLED:
        if options.wants(f"killed: {name}"):
            calm = calm_run(STAGES[name], options.scratch)
            faults = every_kill(calm)
            yield row_of(f"killed: {name}", calm, faults, options, plant)


def failed_calls(options: Options, plant: Callable[[], None] | None = None) -> Iterator[Row]:
    """Yield a row for every command of which one call after the other fails."""
    for name in FAILED:
        if options.wants(f"failed call: {name}"):
            calm = calm_run(STAGES[name], options.scratch)
            yield row_of(f"failed call: {name}", calm, every_failure(calm), options, plant)


def every_kill(calm: Calm) -> list[Fault]:
    """Return a kill before each of a stage's changes."""
    return [Fault("change", nth, mode=KILL) for nth in range(1, calm.counts["change"] + 1)]


def every_failure(calm: Calm) -> list[Fault]:
    """Return a failure of each of a stage's calls, for each thing that the call may say."""
    return [Fault(call, nth, error, mode) for call, error, mode in _FAULTS for nth in range(1, calm.counts[call] + 1)]


def row_of(name: str, calm: Calm, faults: list[Fault], options: Options, plant: Callable[[], None] | None = None) -> Row:
    """Try a stage with one fault after the other and return the row of the table."""
    faults = options.some_of(faults)
    found = each(faults, lambda fault, folder: try_point(calm, fault, folder, plant), options.scratch, options.jobs)
    note = f"not compared: {', '.join(sorted(calm.unstable))}" if calm.unstable else ""
    return Row(name, len(faults), found, note)


def try_point(calm: Calm, fault: Fault, folder: Path, plant: Callable[[], None] | None) -> Failure | None:
    """Run a stage with one fault, then again without; return what was wrong."""
    place = fresh(calm.base, folder / "place")
    first = run(calm.stage.words, place, fault, before=plant)
    after_first = difference(calm.wanted, digests(place), calm.unstable)
    second = run(calm.stage.words, place, before=plant)
    after_second = difference(calm.wanted, digests(place), calm.unstable)
    kind = _first_was_wrong(fault, first, after_first) or _second_was_wrong(calm, second, after_second, place)
    if not kind:
        return None
    said = (first if kind.startswith("first") else second).last_line().replace(str(place), "")
    changed = ", ".join(after_second[:3] or after_first[:3])
    error = errno.errorcode.get(fault.error, {SHORT: "short", KILL: "killed"}.get(fault.mode, ""))
    place_of = f"{fault.call} {fault.nth} {error} ({first.where})".replace(" ()", "")
    return Failure(kind, place_of, f"exits {first.code}, {second.code}; {said!r}" + (f"; {len(after_second)} files differ: {changed}" if changed else ""))  # fmt: skip


def _first_was_wrong(fault: Fault, first: Outcome, differs: list[str]) -> str:
    """Return what is wrong with a run that met a fault: it may end right, or with exit 4 and one line, and nothing else."""
    if fault.mode == KILL:
        return ""
    if first.hung:
        return "first run hangs"
    if "Traceback" in first.stderr:
        return "first run: traceback"
    if first.code == 0 and any(not is_private(name) for name in differs):
        return "first run: exit 0, another result"
    if first.code not in (0, 4):
        return f"first run: exit {first.code}"
    lines = [line for line in first.stderr.splitlines() if line.startswith("risbench: ")]
    return "first run: exit 4 without its line" if first.code == 4 and len(lines) != 1 else ""


def _second_was_wrong(calm: Calm, second: Outcome, differs: list[str], place: Path) -> str:
    if second.hung:
        return "same command hangs"
    if "Traceback" in second.stderr:
        return "same command: traceback"
    if second.code and not is_done_before(calm.stage, second):
        return f"same command: exit {second.code}"
    if differs:
        return "same command: something left over" if all(map(is_private, differs)) else "same command: other bytes"
    return "same command: other content" if calm.says(place) else ""


def is_private(name: str) -> bool:
    """Return whether a file lies in a folder that a stage clears away, or is called so itself: nobody reads it once the stage has ended."""
    return any(part.startswith((".", "tmp")) for part in name.split("/"))


def is_done_before(stage: Stage, second: Outcome) -> bool:
    """Return whether a command is refused because the first had come to its end: a backup replaces nothing."""
    return stage.name == "review backup" and second.code == 3 and "exists already" in second.stderr
