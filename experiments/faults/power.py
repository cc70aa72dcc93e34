"""A power cut: what was not synced is gone. From a run's log the disk is built as it may be after each change, and the same command run.

Three disks of every moment: `ahead`, with all names as they were and contents as of their last sync (empty where there was none); `behind`,
with names as of the last sync of their folder, too; `torn`, as `ahead`, but half of what was not synced is there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from faults.calls import Calm, calm_run, is_done_before
from faults.shim import Disk
from faults.stages import STAGES
from faults.table import Options, Row
from faults.trials import Failure, difference, digests, each, fresh, run

STAGES_CUT: Final = (
    "ingest",
    "refine box",
    "export",
    "export --replace",
    "stats",
    "report",
    "ingest of a release",
    "review backup",
    "review restore",
)
STATES: Final = ("ahead", "behind", "torn")


@dataclass
class Node:
    """A file or folder: what is synced of it, what is not. `names` is None for a file."""

    names: dict[str, Node] | None = None
    synced_names: dict[str, Node] = field(default_factory=dict)
    content: bytes = b""
    latest: bytes = b""

    @classmethod
    def read(cls, path: Path) -> Node:
        """Return what lies on the disk, as synced."""
        if path.is_dir():
            names = {item.name: cls.read(item) for item in path.iterdir()}
            return cls(names, dict(names))
        data = path.read_bytes()
        return cls(None, {}, data, data)

    def write(self, path: Path, state: str) -> None:
        """Make the disk that a cut may leave."""
        if self.names is None:
            unsynced = self.latest[: (len(self.content) + len(self.latest)) // 2] if state == "torn" else self.content
            path.write_bytes(self.content if self.content == self.latest else unsynced)
            return
        path.mkdir(exist_ok=True)
        for name, node in (self.synced_names if state == "behind" else self.names).items():
            node.write(path / name, state)


class Tree:
    """The names below one folder, and what happens to them."""

    def __init__(self, root: Node) -> None:
        """Begin with what is there."""
        self.root = root

    def _folder(self, path: Path) -> dict[str, Node] | None:
        node = self.find(path.parent)
        return node.names if node is not None else None

    def find(self, path: Path) -> Node | None:
        """Return what has this name now."""
        node: Node | None = self.root
        for part in path.parts:
            node = (node.names or {}).get(part) if node is not None else None
        return node

    def apply(self, event: Event, snapshots: Path) -> None:
        """Let an event of the log happen."""
        what, path = event.what, event.path
        folder = self._folder(path)
        if what == "sync-all":
            _sync_all(self.root, snapshots / str(event.number))
        elif what in ("sync-file", "sync-folder"):
            self._sync(event, snapshots)
        elif folder is None:
            return  # outside of what is watched, or in a folder that was made elsewhere
        elif what in ("make", "empty"):
            node = folder.setdefault(path.name, Node())
            if what == "empty":
                node.latest = b""
        elif what == "make-folder":
            folder[path.name] = Node({})
        elif what == "remove":
            folder.pop(path.name, None)
        elif what in ("rename", "link") and event.other is not None:
            target = self._folder(event.other)
            if target is not None and path.name in folder:
                target[event.other.name] = folder[path.name] if what == "link" else folder.pop(path.name)

    def _sync(self, event: Event, snapshots: Path) -> None:
        node = self.find(event.path)
        if node is None:
            return
        if node.names is not None:
            node.synced_names = dict(node.names)
        else:
            node.content = node.latest = (snapshots / str(event.number)).read_bytes()


def _sync_all(node: Node, copy: Path) -> None:
    if node.names is None:
        node.content = node.latest = copy.read_bytes()
        return
    node.synced_names = dict(node.names)
    for name, child in node.names.items():
        if (copy / name).exists():
            _sync_all(child, copy / name)


@dataclass(frozen=True)
class Event:
    """A line of the log; paths are below the watched folder."""

    number: int
    what: str
    path: Path
    other: Path | None

    def shown(self) -> str:
        """Return it in words."""
        return f"{self.what} {self.path}" + (f" to {self.other}" if self.other else "")


def power_loss(options: Options, plant: Callable[[], None] | None = None) -> Iterator[Row]:
    """Yield a row for every command that a power cut interrupts."""
    for name in STAGES_CUT:
        if not options.wants(f"power cut: {name}"):
            continue
        calm = calm_run(STAGES[name], options.scratch)
        events, snapshots = _logged(calm, options.scratch / "logged", plant)
        points = options.some_of([(length, state) for length in range(len(events) + 1) for state in STATES])

        def try_one(
            point: tuple[int, str], folder: Path, calm: Calm = calm, events: list[Event] = events, kept: Path = snapshots
        ) -> Failure | None:
            return _try_point(calm, events[: point[0]], kept, point[1], folder)

        yield Row(f"power cut: {name}", len(points), each(points, try_one, options.scratch, options.jobs))


def _logged(calm: Calm, folder: Path, plant: Callable[[], None] | None) -> tuple[list[Event], Path]:
    """Run a stage and return what happened to the disk, and where the bytes of what was synced lie by the event's number."""
    place, snapshots, log = fresh(calm.base, folder / "place"), folder / "synced", folder / "log"
    shutil.rmtree(snapshots, ignore_errors=True)
    snapshots.mkdir()
    log.unlink(missing_ok=True)

    def before() -> None:
        if plant is not None:
            plant()
        Disk().log(log, snapshots)

    outcome = run(calm.stage.words, place, before=before)
    if outcome.code:
        raise RuntimeError(f"{calm.stage.name} ended with {outcome.code} while it was logged: {outcome.stderr[-300:]}")
    final = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    events = [_event(line, place) for line in log.read_text(errors="surrogateescape").splitlines()]
    _note_unsynced(events, place, final, snapshots)
    return events, snapshots


def _event(line: str, place: Path) -> Event:
    number, what, _, path, other = line.split("\t")
    return Event(int(number), what, Path(os.path.relpath(path, place)), Path(os.path.relpath(other, place)) if other else None)


def _note_unsynced(events: list[Event], place: Path, final: dict[Path, bytes], snapshots: Path) -> None:
    """Keep beside the synced bytes what each file held in the end, under whatever name, so that half of it can be torn off."""
    for index, event in enumerate(events):
        if event.what not in ("make", "empty"):
            continue
        path = event.path
        for later in events[index + 1 :]:
            if later.what == "rename" and later.other is not None and path.is_relative_to(later.path):
                path = later.other / path.relative_to(later.path)
        if (data := final.get(place / path)) is not None:
            (snapshots / f"{event.number}.latest").write_bytes(data)


def _try_point(calm: Calm, events: list[Event], snapshots: Path, state: str, folder: Path) -> Failure | None:
    tree = Tree(Node.read(calm.base))
    for event in events:
        tree.apply(event, snapshots)
        latest = snapshots / f"{event.number}.latest"
        if latest.exists() and (node := tree.find(event.path)) is not None:
            node.latest = latest.read_bytes()
    place = folder / "place"
    shutil.rmtree(place, ignore_errors=True)
    tree.root.write(place, state)
    second = run(calm.stage.words, place)
    differs = difference(calm.wanted, digests(place), calm.unstable)
    if "Traceback" in second.stderr or second.hung:
        return _failure("same command: hangs" if second.hung else "same command: traceback", events, state, second.last_line())
    if second.code and not is_done_before(calm.stage, second):
        return _failure(f"same command: exit {second.code}", events, state, second.last_line().replace(str(place), ""))
    if differs:
        return _failure("same command: other bytes", events, state, f"{len(differs)} files differ: {', '.join(differs[:3])}")
    return _failure("same command: other content", events, state, said) if (said := calm.says(place)) else None


def _failure(kind: str, events: list[Event], state: str, detail: str) -> Failure:
    last = events[-1].shown() if events else "nothing"
    return Failure(kind, f"{state} after change {len(events)} ({last})", detail)
