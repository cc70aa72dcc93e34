"""Damaged files into every reader, one seed after the other: a value, or a refusal by name, in bounded time and memory, and nothing else."""

from __future__ import annotations

import json
import mmap
import os
import re
import resource
import shutil
import signal
import struct
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from faults.mutate import Mutator
from faults.own_files import OwnFiles
from faults.readers import SOURCES, Reader
from faults.table import Options, Row
from faults.trials import Failure

LONGEST_S: Final = 10.0
MOST_MIB: Final = 1536
_LIMIT_BYTES: Final = 8 << 30


def fuzz(options: Options, plant: Callable[[], None] | None = None) -> Iterator[Row]:
    """Yield a row for every reader; `--seconds` is what each of them is given, `--seed` where its seeds begin."""
    readers = {**SOURCES, **OwnFiles(options.scratch).readers()}
    for name in [name for name in readers if options.wants(f"damaged: {name}")]:
        warm_up = Mutator(f"{name}/warm")
        if name not in SOURCES:
            _ignore(readers[name], warm_up, options.scratch / "warm")
        yield _one_reader(name, readers[name], options, plant)


def _ignore(read: Reader, draw: Mutator, place: Path) -> None:
    """Read once in this process, so that what readers are given is made before they are forked."""
    try:
        read(draw, place)
    except Exception:  # noqa: BLE001 - found again below, and counted
        shutil.rmtree(place, ignore_errors=True)


@dataclass
class _Tally:
    """What came of a reader's inputs."""

    tried: int = 0
    values: int = 0
    failures: dict[tuple[str, str], Failure] = field(default_factory=dict)
    repeats: int = 0

    def add(self, kind: str, where: str, failure: Failure) -> None:
        """Count a failure; the first of an exception at a place is kept."""
        if (kind, where) in self.failures:
            self.repeats += 1
        self.failures.setdefault((kind, where), failure)


def _one_reader(name: str, read: Reader, options: Options, plant: Callable[[], None] | None) -> Row:
    tally, until = _Tally(), time.monotonic() + options.seconds
    workers = [
        _Worker(name, read, options.seed + job, options.jobs, until, options.scratch / f"fuzz-{job}", plant) for job in range(options.jobs)
    ]
    while any([worker.goes_on(tally) for worker in workers]):  # noqa: C419 - each of them is asked
        time.sleep(0.02)
    note = f"{tally.values:,} read, the others refused"
    return Row(f"damaged: {name}", tally.tried, list(tally.failures.values()), note)


class _Worker:
    """A process that reads one seed after the other, and another in its place where it dies or does not come back."""

    def __init__(self, name: str, read: Reader, seed: int, step: int, until: float, place: Path, plant: Callable[[], None] | None) -> None:
        self._name, self._read, self._step, self._until, self._place, self._plant = name, read, step, until, place, plant
        self._now = mmap.mmap(-1, 16)  # the seed being read, and since when
        self._rest = b""
        self._start(seed)

    def _start(self, seed: int) -> None:
        self._note(seed)
        self._pipe, writing = os.pipe()
        os.set_blocking(self._pipe, False)
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._pipe)
            self._be_a_reader(seed, writing)
        os.close(writing)

    def _note(self, seed: int) -> None:
        self._now[:] = struct.pack("<qd", seed, time.monotonic())

    def goes_on(self, tally: _Tally) -> bool:
        """Take in what it found; return whether it still runs, in whatever process."""
        self._take_in(tally)
        if self._pid == 0:
            return False
        ended, status = os.waitpid(self._pid, os.WNOHANG)
        seed, since = struct.unpack("<qd", self._now[:])
        if not ended and time.monotonic() - since < 2.5 * LONGEST_S:
            return True
        if not ended:
            os.kill(self._pid, signal.SIGKILL)
            status = os.waitpid(self._pid, 0)[1]
        self._take_in(tally)
        os.close(self._pipe)
        self._pid, self._rest = 0, b""
        if code := os.waitstatus_to_exitcode(status):
            kind = f"over {2.5 * LONGEST_S:.0f} s" if not ended else f"the process dies ({code})"
            tally.tried += 1
            tally.add(kind, self._name, Failure(kind, f"seed {seed}", self._name))
            self._start(seed + self._step)
        return self._pid != 0

    def _take_in(self, tally: _Tally) -> None:
        if self._pid == 0:
            return
        try:
            while chunk := os.read(self._pipe, 1 << 16):
                self._rest += chunk
        except BlockingIOError:
            pass
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            told = json.loads(line)
            tally.tried += 1
            tally.values += told["kind"] == "value"
            if told["kind"] not in ("value", "refused"):
                tally.add(told["kind"], told["where"], Failure(told["kind"], f"seed {told['seed']}", f"{told['where']}: {told['said']}"))

    def _be_a_reader(self, seed: int, pipe: int) -> None:
        resource.setrlimit(resource.RLIMIT_AS, (_LIMIT_BYTES, _LIMIT_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)
        warnings.simplefilter("ignore")
        if self._plant is not None:
            self._plant()
        while time.monotonic() < self._until:
            self._note(seed)
            told = try_seed(self._name, self._read, seed, self._place)
            os.write(pipe, (json.dumps(told) + "\n").encode())
            seed += self._step
        os._exit(0)


def try_seed(name: str, read: Reader, seed: int, place: Path) -> dict[str, Any]:
    """Read one damaged input and say what came of it."""
    from risbench.core.errors import InvalidRowError, MissingRequirementError, RisbenchError

    before, began = _peak_mib(), time.monotonic()
    kind, where, said = "value", "", ""
    try:
        read(Mutator(f"{name}/{seed}"), place)
    except MissingRequirementError as error:
        kind, where, said = "taken for a failure of the machine", _where(error), str(error)[:200]
    except (RisbenchError, InvalidRowError):
        kind = "refused"
    except Exception as error:  # noqa: BLE001 - exactly those are looked for
        kind, where, said = (
            type(error).__name__,
            _where(error),
            str(error).strip().splitlines()[-1:] and str(error).strip().splitlines()[-1][:200],
        )
    seconds, grown = time.monotonic() - began, _peak_mib() - before
    if kind in ("value", "refused") and seconds > LONGEST_S:
        kind, where, said = f"over {LONGEST_S:.0f} s", name, f"{seconds:.0f} s"
    if kind in ("value", "refused") and grown > MOST_MIB:
        kind, where, said = f"over {MOST_MIB} MiB", name, f"{grown:.0f} MiB"
    return {"seed": seed, "kind": kind, "where": where, "said": said or ""}


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _where(error: Exception) -> str:
    """Return the last line of ours that an exception came through, or that the log of a run tells of."""
    frames = [(frame.filename, frame.lineno, frame.name) for frame in traceback.extract_tb(error.__traceback__)]
    ours = [frame for frame in frames if "/risbench/" in frame[0] and "/faults/" not in frame[0]] or frames
    logged = re.findall(r'File ".*?/risbench/([^"]+)", line (\d+), in (\w+)', str(error))
    if logged:
        return f"{logged[-1][0]}:{logged[-1][1]} {logged[-1][2]}"
    return f"{ours[-1][0].rpartition('/risbench/')[2]}:{ours[-1][1]} {ours[-1][2]}" if ours else ""
