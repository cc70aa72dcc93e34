"""Worker processes for one stage: each builds its engine once and turns parts of records into parts with masks."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path

from risbench.core.errors import MissingRequirementError
from risbench.core.imagery import Pixels
from risbench.core.images import UnusableImage, read_image
from risbench.core.processes import ended_at_once, without_interrupts
from risbench.core.record import Record
from risbench.refine.clean import CleanRules
from risbench.refine.engines.base import Engine, EngineSetup
from risbench.refine.engines.registry import engine_kind
from risbench.refine.masks import refine_image


@dataclass(frozen=True)
class Work:
    """All that a worker needs besides its records; it crosses process borders."""

    root: Path
    engine: str
    setup: EngineSetup
    rules: CleanRules
    round_number: int
    threads: int


def build_engine(work: Work) -> Engine:
    """Return the engine.

    Raises:
        MissingRequirementError: the extra it needs is not installed.
        InputError: its checkpoint cannot be used.
    """
    return engine_kind(work.engine).build(work.setup)


def refine_part(engine: Engine, work: Work, records: Sequence[Record]) -> list[Record]:
    """Return the records, in order, with masks or problems; records of one image must stand together.

    The next image is read while the engine works on this one.
    """
    images = [list(group) for _, group in groupby(records, key=lambda record: record.image.path)]
    refined: list[Record] = []
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(_pixels_of, work.root, images[0][0]) if images else None
        for number, members in enumerate(images):
            assert coming is not None, "there is an image to come"
            found = coming.result()
            if number + 1 < len(images):
                coming = reader.submit(_pixels_of, work.root, images[number + 1][0])
            if isinstance(found, tuple):
                refined += [member.with_problem("refine", *found) for member in members]
            else:
                refined += refine_image(engine, work.engine, found, members, work.rules, work.round_number)
    return refined


def _pixels_of(root: Path, record: Record) -> Pixels | tuple[str, str]:
    """Return a record's image, or the code and the detail of what is wrong with it.

    Raises:
        MissingRequirementError: the system fails to read it, which is no problem of the record.
    """
    try:
        return read_image(root, record.image)
    except UnusableImage as error:
        return error.code, str(error).removeprefix(f"{root}{os.sep}")


_engine: Engine | None = None
_work: Work | None = None


def _start(work: Work, parent: int) -> None:
    global _engine, _work
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    if engine_kind(work.engine).network:
        import torch

        torch.set_num_threads(min(work.threads, torch.get_num_threads()))  # OMP_NUM_THREADS is a user's bound
    _keep_memory(work)
    _engine, _work = build_engine(work), work


def _keep_memory(work: Work) -> None:
    """Keep what tensors free, in a process that is about to run a network on the CPU."""
    if engine_kind(work.engine).network and work.setup.device == "cpu":
        from risbench.learn.device import keep_freed_memory

        keep_freed_memory()


def _follow(parent: int) -> None:
    """End this worker when the process that started it is gone, so that a killed run leaves nothing behind."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _run(lines: list[str]) -> list[str]:
    assert _engine is not None, "the pool's initializer has run"
    assert _work is not None, "the pool's initializer has run"
    records = [Record.model_validate_json(line) for line in lines]
    return [record.to_line() for record in refine_part(_engine, _work, records)]


def refine_parts(work: Work, parts: Sequence[tuple[int, list[Record]]], workers: int) -> Iterator[tuple[int, list[Record]]]:
    """Yield (part index, its records with masks) as parts are done.

    With one worker the work is done in this process. A pool whose worker was killed is started once more.

    Raises:
        MissingRequirementError: workers die again and again, most likely for want of memory.
    """
    if workers == 1 or len(parts) <= 1:
        _keep_memory(work)
        engine = build_engine(work)
        for index, records in parts:
            yield index, refine_part(engine, work, records)
        return
    pending = dict(parts)
    for attempt in range(3):
        try:
            yield from _pooled(work, pending, workers)
            return
        except BrokenProcessPool:
            if attempt == 2:
                raise MissingRequirementError(
                    f"worker processes were killed three times, most likely for want of memory; use fewer than --workers {workers}"
                ) from None


def _pooled(work: Work, pending: dict[int, list[Record]], workers: int) -> Iterator[tuple[int, list[Record]]]:
    start: Callable[..., None] = _start
    begun = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=start, initargs=(work, os.getpid()))
    with ended_at_once(begun) as pool:
        queue = sorted(pending)
        running: dict[Future[list[str]], int] = {}
        while queue or running:
            # Two parts a worker are in flight: enough to keep it busy, few enough to keep memory flat.
            while queue and len(running) < 2 * workers:
                index = queue.pop(0)
                with without_interrupts():
                    running[pool.submit(_run, [record.to_line() for record in pending[index]])] = index
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                index = running.pop(future)
                lines = future.result()
                del pending[index]
                yield index, [Record.model_validate_json(line) for line in lines]
