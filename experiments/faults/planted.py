"""Bugs that each experiment has to catch: with one of them planted, a bench that still finds nothing is worth nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from faults.calls import failed_calls, kills
from faults.ends import signals, streams, two_at_once
from faults.fuzz import fuzz
from faults.hostile import hostile
from faults.power import power_loss
from faults.table import Options, Row, Table
from risbench.core import storage


def _everywhere(name: str, instead: Any) -> None:
    """Put a function in the place of another, in every module that has imported it."""
    import sys

    old = getattr(storage, name)
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("risbench") and getattr(module, name, None) is old:
            setattr(module, name, instead)


def _written_in_place() -> None:
    def write(path: Path, data: bytes) -> None:
        with open(path, "wb", buffering=0) as file:
            file.write(data[: len(data) // 2])
            file.write(data[len(data) // 2 :])

    _everywhere("write_durably", write)


def _half_a_part_is_enough() -> None:
    storage.StageRun.finished_part = lambda self, index, key: self._progress_file(index).exists()  # type: ignore[method-assign]


def _failed_writes_are_swallowed() -> None:
    write = storage.write_durably

    def swallow(path: Path, data: bytes) -> None:
        with contextlib.suppress(storage.RisbenchError):
            write(path, data)

    _everywhere("write_durably", swallow)


def _failed_reads_are_facts() -> None:
    from risbench.core import images

    read = images.read_file

    def take_for_damage(path: Path) -> bytes:
        try:
            return read(path)
        except Exception as error:  # noqa: BLE001 - that is the bug
            raise images.UnusableImage("image_damaged", f"{path}: {error}") from None

    images.read_file = take_for_damage


def _nothing_is_synced() -> None:
    os.fsync = lambda descriptor: None  # type: ignore[assignment]
    os.sync = lambda: None


def _ids_are_taken_for_numbers() -> None:
    from risbench.formats import coco

    coco.plain_id = int  # type: ignore[assignment]


_OPENS_OUTSIDE: Final = "import glob\nfor path in glob.glob('outside/*') + glob.glob('../outside/*'): open(path, 'rb').close()"
_CALLS: Final = "import socket\ntry: socket.create_connection(('127.0.0.1', 9))\nexcept OSError: pass"
_TAKES_MEMORY: Final = "taken = bytearray(2 << 30)\nfor at in range(0, len(taken), 4096): taken[at] = 1\ndel taken"
_TAKES_TIME: Final = "import time\nbegan = time.process_time()\nwhile time.process_time() - began < 14: pass"
_FORGETS_SIGNALS: Final = "import signal\nsignal.signal = lambda *words: None"
_NO_LOCK: Final = (
    "import contextlib, risbench.core.storage as storage, risbench.core.workspace as workspace\n"
    "storage.locked = workspace.locked = storage.open_lock = lambda *words: contextlib.nullcontext()"
)
_DOES_NOTHING: Final = "raise SystemExit(0)"

Bench = Callable[[Options], Iterator[Row]]
# What is planted, into which row, at how many of its points.
PLANTED: Final[tuple[tuple[str, str, int, Bench], ...]] = (
    ("files are written in place", "killed: ingest$", 30, lambda options: kills(options, _written_in_place)),
    ("a part's progress is taken for the part", "killed: refine box$", 40, lambda options: kills(options, _half_a_part_is_enough)),
    ("failed writes are swallowed", "failed call: ingest$", 80, lambda options: failed_calls(options, _failed_writes_are_swallowed)),
    ("failed reads are taken for damage", "failed call: refine box$", 80, lambda options: failed_calls(options, _failed_reads_are_facts)),
    ("nothing is synced", "power cut: ingest$", 60, lambda options: power_loss(options, _nothing_is_synced)),
    ("ids are taken for numbers", "damaged: COCO$", 1, lambda options: fuzz(replace(options, seconds=10), _ids_are_taken_for_numbers)),
    ("a file outside is opened", "hostile: escapes: image ../outside", 1, lambda options: hostile(options, _OPENS_OUTSIDE)),
    ("the network is called", "hostile: escapes: zip slip", 1, lambda options: hostile(options, _CALLS)),
    ("2 GiB are taken", "hostile: escapes: zip slip", 1, lambda options: hostile(options, _TAKES_MEMORY)),
    ("14 s are taken", "hostile: escapes: zip slip", 1, lambda options: hostile(options, _TAKES_TIME)),
    ("SIGTERM is not listened to", "signals: ingest", 12, lambda options: signals(options, _FORGETS_SIGNALS)),
    ("a command does nothing and says 0", "streams", 12, lambda options: streams(options, _DOES_NOTHING)),
    ("no lock is taken", "two at once", 6, lambda options: two_at_once(options, _NO_LOCK)),
)  # fmt: skip


def catch_all(options: Options, table: Table) -> bool:
    """Plant one bug after the other, print what came of it, and return whether each was caught."""
    table.head("| planted | into | points tried | caught at |\n| --- | --- | ---: | ---: |")
    caught = True
    for what, only, points, bench in PLANTED:
        if not options.wants(only.rstrip("$")):
            continue
        row = next(bench(replace(options, only=(only,), every=1, points=options.points or points)))
        caught = caught and len(row.failures) > 0
        table.add_planted(what, row)
    return caught
