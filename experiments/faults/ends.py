"""Commands that are interrupted by signals, whose standard streams are closed, full or broken, and two of them at once."""

from __future__ import annotations

import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from faults.calls import Calm, calm_run
from faults.stages import STAGES, prepared
from faults.table import Options, Row
from faults.trials import Failure, difference, digests, each, fresh

_STAGES: Final = ("ingest", "refine grabcut", "export all", "report")
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_MOMENTS: Final = (0.0, 0.3, 0.7)  # of what the undisturbed run takes once it holds the lock
_PATIENCE_S: Final = 30.0
_STREAMS: Final = ("<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>&1", "| true", "2>&1 | true")
_PAIRS: Final = (("ingest", "ingest"), ("refine grabcut", "refine grabcut"), ("export all", "export all"), ("report", "report"), ("ingest", "refine grabcut"),
                 ("refine grabcut", "export all"), ("export all", "report"))  # fmt: skip


@dataclass(frozen=True)
class _Interruption:
    calm: Calm
    signal: signal.Signals
    to_group: bool
    moment: float

    def shown(self) -> str:
        return f"{self.signal.name} to the {'group' if self.to_group else 'process'} after {self.moment:.2f} s"


def signals(options: Options, plant: str = "") -> Iterator[Row]:
    """Yield a row for every command that is told to end."""
    for name in _STAGES:
        if options.wants(f"signals: {name}"):
            calm, took = _measured(name, options)
            moments = [(number, to_group, share * took) for number in _SIGNALS for to_group in (False, True) for share in _MOMENTS]
            points = options.some_of([_Interruption(calm, *moment) for moment in moments])

            def interrupt(point: _Interruption, folder: Path) -> Failure | None:
                return _interrupt(point, folder, plant)

            # one at a time: the moments are of a run that has the machine to itself
            yield Row(f"signals: {name}", len(points), each(points, interrupt, options.scratch, 1))


def _measured(name: str, options: Options) -> tuple[Calm, float]:
    """Return a stage's result by the command itself, and the seconds that it works once it has started."""
    calm, place = calm_run(STAGES[name], options.scratch), options.scratch / "measured"
    fresh(calm.base, place)
    process = _start(calm.stage.words, place, "")
    _until_it_works(process, place)
    began = time.monotonic()
    process.communicate()
    return replace(calm, wanted=digests(place)), time.monotonic() - began


def _start(words: tuple[str, ...], place: Path, plant: str, **more: Any) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True} | more
    return subprocess.Popen(_command(words, plant), cwd=place, start_new_session=True, preexec_fn=_no_core, **pipes)


def _command(words: tuple[str, ...], plant: str) -> list[str]:
    start = ["-m", "risbench"] if not plant else ["-c", f"{plant}\nfrom risbench.cli.app import main\nmain()"]
    return [sys.executable, *start, *words]


def _no_core() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _until_it_works(process: subprocess.Popen[str], place: Path) -> None:
    """Wait until a command holds its lock: what comes before is Python's start."""
    until = time.monotonic() + _PATIENCE_S
    while process.poll() is None and time.monotonic() < until:
        if any(f"pid {process.pid} " in lock.read_text(errors="replace") for lock in (place / "w").glob(".lock*")):
            return
        time.sleep(0.005)


def _interrupt(point: _Interruption, folder: Path, plant: str) -> Failure | None:
    calm, place = point.calm, fresh(point.calm.base, folder / "place")
    process = _start(calm.stage.words, place, plant)
    _until_it_works(process, place)
    time.sleep(point.moment)
    before = _children(process.pid)
    if process.poll() is None:
        (os.killpg if point.to_group else os.kill)(process.pid, point.signal)
    told = time.monotonic()
    try:
        _, stderr = process.communicate(timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return Failure(f"still there after {_PATIENCE_S:.0f} s", point.shown())
    took = time.monotonic() - told
    time.sleep(0.3)
    left = [pid for pid in before if _runs(pid)]
    # Python puts the system's handlers back as it ends: what is done already may end by the signal itself
    codes = {0, 130} if difference(calm.wanted, digests(place), calm.unstable) else {0, 130, -point.signal}
    again = _start(calm.stage.words, place, plant)
    _, stderr_again = again.communicate(timeout=300)
    differs = difference(calm.wanted, digests(place), calm.unstable)
    kind = (
        ("a traceback" if "Traceback" in stderr else "")
        or ("workers are left" if left else "")
        or (f"took {took:.0f} s to end" if took > 10 else "")
        or (f"exit {process.returncode}" if point.signal in (signal.SIGINT, signal.SIGTERM) and process.returncode not in codes else "")
        or (f"same command: exit {again.returncode}" if again.returncode else "")
        or ("same command: other bytes" if differs else "")
    )
    last = ([line for line in (stderr_again if again.returncode else stderr).splitlines() if line.strip()] or [""])[-1][:200]
    return Failure(kind, point.shown(), f"{last!r} {', '.join(differs[:3])}") if kind else None


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@dataclass(frozen=True)
class _Stream:
    name: str
    words: tuple[str, ...]
    base: Path
    wanted: dict[str, str]
    code: int
    redirection: str


def streams(options: Options, plant: str = "") -> Iterator[Row]:
    """Yield a row: every command with its standard streams closed, full and broken does its work all the same, and says no wrong code."""
    if not options.wants("streams"):
        return
    points = options.some_of([point for told in _streamed(options) for point in _streams_of(*told, options)])
    yield Row(
        "closed, full and broken streams",
        len(points),
        each(points, lambda point, folder: _try_stream(point, folder, plant), options.scratch, options.jobs),
    )


def _streamed(options: Options) -> Iterator[tuple[tuple[str, ...], Path, bool]]:
    """Yield commands with the folder they begin in, and whether what they leave is compared."""
    for name in ("ingest", "refine box", "export", "stats", "report", "validate", "verify"):
        yield STAGES[name].words, prepared(STAGES[name], options.scratch), True
    done = prepared(STAGES["verify"], options.scratch)
    for words in (
        ("--help",),
        ("doctor",),
        ("weights", "list"),
        ("ingest", "nothing", "-w", "w"),
        ("verify", "nothing"),
        ("review", "status", "-w", "w"),
    ):
        yield words, done, False


def _streams_of(words: tuple[str, ...], base: Path, whole: bool, options: Options) -> list[_Stream]:
    place = fresh(base, options.scratch / "streams")
    calm = _start(words, place, "")
    calm.communicate(timeout=300)
    return [_Stream(" ".join(words[:2]), words, base, digests(place) if whole else {}, calm.returncode, stream) for stream in _STREAMS]


def _try_stream(point: _Stream, folder: Path, plant: str) -> Failure | None:
    place = fresh(point.base, folder / "place")
    command = f"{shlex.join(_command(point.words, plant))} {point.redirection}"
    shell = f"{command}; echo ${{PIPESTATUS[0]}} >&9" if "|" in point.redirection else f"{command}; echo $? >&9"
    reading, writing = os.pipe()
    done = subprocess.run(["bash", "-c", f"exec 9>&{writing}; {shell}"], cwd=place, capture_output=True, text=True, pass_fds=[writing], timeout=300, check=False)  # fmt: skip
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        code = int(pipe.read() or -1)
    differs = difference(point.wanted, digests(place)) if point.wanted else []
    full = "full" in point.redirection and point.redirection != "2>/dev/full"  # output is lost: the code has to say so
    allowed = {point.code, 0, 1, 4, 120, 141} if full else {point.code}
    kind = (
        ("a traceback" if "Traceback" in done.stderr + done.stdout else "")
        or ("an exception's text" if "Exception ignored" in done.stderr else "")
        or (f"exit {code} instead of {point.code}" if code not in allowed else "")
        or ("the work is not done" if differs else "")
    )
    return Failure(kind, f"{point.name} {point.redirection}", (done.stderr.strip().splitlines() or [""])[-1][:160]) if kind else None


@dataclass(frozen=True)
class _Pair:
    """Two commands, the folder they begin in, and what they leave one after the other."""

    words: tuple[tuple[str, ...], tuple[str, ...]]
    base: Path
    wanted: dict[str, str]
    gap_s: float
    name: str


def two_at_once(options: Options, plant: str = "") -> Iterator[Row]:
    """Yield a row: two commands at once in one workspace are one after the other, or one of them is told to wait."""
    if not options.wants("two at once"):
        return
    points = options.some_of([point for pair in _PAIRS for point in _pairs(*pair, options)])
    yield Row("two at once", len(points), each(points, _with(plant), options.scratch, 1))


def _pairs(first: str, second: str, options: Options) -> Iterator[_Pair]:
    base, place = prepared(STAGES[first], options.scratch), options.scratch / "pair"
    words = STAGES[first].words, STAGES[second].words
    fresh(base, place)
    for command in words:
        _start(command, place, "").communicate(timeout=300)
    wanted = digests(place)
    for gap_s in (0.0, 0.3, 1.0):
        yield _Pair(words, base, wanted, gap_s, f"{first} and {second} {gap_s} s after")


def _with(plant: str) -> Callable[[_Pair, Path], Failure | None]:
    def work(pair: _Pair, folder: Path) -> Failure | None:
        place = fresh(pair.base, folder / "place")
        processes = [_start(pair.words[0], place, plant)]
        time.sleep(pair.gap_s)
        processes.append(_start(pair.words[1], place, plant))
        errors = [process.communicate(timeout=300)[1] for process in processes]
        for words in pair.words:  # what had to wait comes now
            processes.append(_start(words, place, ""))
            errors.append(processes[-1].communicate(timeout=300)[1])
        codes, differs = [process.returncode for process in processes], difference(pair.wanted, digests(place))
        kind = (
            ("a traceback" if any("Traceback" in text for text in errors) else "")
            or (f"exits {codes}" if set(codes[:2]) - {0, 3, 75} or any(codes[2:]) else "")
            or ("other bytes" if differs else "")
        )
        return Failure(kind, pair.name, f"{[text.strip()[-100:] for text in errors]}; {', '.join(differs[:3])}") if kind else None

    return work
