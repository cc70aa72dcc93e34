"""One command in a fork of this process, which has imported risbench once; many of them side by side; what they left on the disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from faults.shim import NO_FAULT, Disk, Fault

TIMEOUT_S: Final = 60.0
# A workspace's lock is held, not kept; what a run printed or measured differs from run to run.
_UNCOMPARED: Final = (".lock", "run.log")
_TIMES: Final = ("second", "peak", "per_s", "time", "waited")


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code (minus the signal that ended it), what it wrote, which calls it made, what met the fault."""

    code: int
    stderr: str = ""
    stdout: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    fired: int = 0
    where: str = ""
    imported: tuple[str, ...] = ()
    hung: bool = False
    seconds: float = 0.0

    def last_line(self) -> str:
        """Return the last thing it said."""
        return ([line for line in self.stderr.splitlines() if line.strip()] or [""])[-1][:220]


def run(
    words: Sequence[str],
    place: Path,
    fault: Fault = NO_FAULT,
    *,
    watched: Path | None = None,
    before: Callable[[], None] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Outcome:
    """Run `risbench WORDS` in a folder with one fault below `watched` (the folder itself by default); `before` runs in the fork first."""
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as output:
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _be_the_command(words, place, fault, watched or place, before, (errors.fileno(), output.fileno(), writing))
        os.close(writing)
        status, hung = _wait(pid, began + timeout_s)
        with open(reading, "rb") as pipe:
            told = json.loads(pipe.read() or b"{}")
        errors.seek(0)
        output.seek(0)
        found = {"code": os.waitstatus_to_exitcode(status), **told}
        texts = {"stderr": errors.read().decode(errors="replace"), "stdout": output.read().decode(errors="replace")}
        return Outcome(**found, **texts, hung=hung, seconds=time.monotonic() - began)


def _wait(pid: int, until: float) -> tuple[int, bool]:
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status, False
        time.sleep(0.004)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1], True


def _be_the_command(
    words: Sequence[str], place: Path, fault: Fault, watched: Path, before: Callable[[], None] | None, descriptors: tuple[int, int, int]
) -> None:
    """Run the command line in this process, a fresh fork, tell the pipe how it went, and end."""
    errors, output, pipe = descriptors
    try:
        os.setsid()
        os.chdir(place)
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor, standard in ((nothing, 0), (output, 1), (errors, 2)):
            os.dup2(descriptor, standard)
        if before is not None:
            before()
        disk, modules = Disk(), set(sys.modules)
        code = _call_main(words, lambda: disk.arm(watched, fault))
        told = {"code": code, "counts": disk.counts(), "fired": disk.fired(), "where": disk.where().replace(str(place), "")}
        told["imported"] = sorted(set(sys.modules) - modules)
        os.write(pipe, json.dumps(told).encode())
    finally:
        os._exit(99)


def _call_main(words: Sequence[str], arm: Callable[[], None]) -> int:
    from risbench.cli.app import main

    sys.argv = ["risbench", *words]
    arm()
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        code = 1
    else:
        code = 0
    try:
        sys.stdout.flush()
    except OSError:
        code = code or 120
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    return code


def digests(root: Path) -> dict[str, str]:
    """Return a hash of every file below a folder, without the seconds that JSON files tell."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink() or not path.is_file() or path.name.startswith(_UNCOMPARED) or "tensorboard/" in name:
            continue
        data = path.read_bytes()
        if path.suffix == ".json" and any(word.encode() in data for word in _TIMES):
            with contextlib.suppress(ValueError):
                data = json.dumps(_timeless(json.loads(data)), sort_keys=True).encode()
        found[name] = hashlib.sha256(data).hexdigest()
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if not any(word in key for word in (*_TIMES, "digest"))}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def difference(wanted: dict[str, str], found: dict[str, str], besides: tuple[str, ...] = ()) -> list[str]:
    """Return the files that are not the same, by name, without those whose names begin with one of `besides`."""
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name) and not name.startswith(besides))


@dataclass(frozen=True)
class Failure:
    """What was wrong at one point: a few words to count by, and all that is needed to see it again."""

    kind: str
    point: str
    detail: str = ""


def fresh(base: Path, place: Path) -> Path:
    """Make `place` a copy of `base` and return it."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(base, place, symlinks=True)
    return place


def each(points: Sequence[Any], work: Callable[[Any, Path], Failure | None], scratch: Path, jobs: int) -> list[Failure]:
    """Try every point in one of `jobs` processes, each with a folder of its own; return the failures in the order of the points."""
    found: list[tuple[int, Failure]] = []
    pipes = []
    for job in range(min(jobs, len(points))):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _work_through(range(job, len(points), jobs), points, work, scratch / f"job-{job}", writing)
        os.close(writing)
        pipes.append((pid, reading))
    for pid, reading in pipes:
        with open(reading, encoding="utf-8") as lines:
            found += [(line["index"], Failure(**line["failure"])) for line in map(json.loads, lines)]
        if os.waitpid(pid, 0)[1]:
            raise RuntimeError("a process that tries points has ended early; its traceback is above")
    return [failure for _, failure in sorted(found, key=lambda pair: pair[0])]


def _work_through(indices: range, points: Sequence[Any], work: Callable[[Any, Path], Failure | None], folder: Path, pipe: int) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for index in indices:
            failure = work(points[index], folder)
            if failure is not None:
                os.write(pipe, (json.dumps({"index": index, "failure": asdict(failure)}) + "\n").encode())
        shutil.rmtree(folder)
        os._exit(0)
    except BaseException:  # noqa: BLE001 - told to whoever waits
        traceback.print_exc()
        os._exit(1)


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder that goes with the block: in memory where there is room, since a durable write on a disk takes milliseconds."""
    memory = Path("/dev/shm")
    roomy = "TMPDIR" not in os.environ and memory.is_dir() and shutil.disk_usage(memory).free > 2 << 30
    with tempfile.TemporaryDirectory(prefix="faults-", dir=memory if roomy else None) as folder:
        yield Path(folder).resolve()
