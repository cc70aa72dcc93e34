"""Processes that end with the one that began them, leave it the cores while they wait, and do not search their memory in vain."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Final, TypeVar

from risbench.core.errors import RisbenchError

T = TypeVar("T")

_PR_SET_PDEATHSIG: Final = 1


def dying_with_parent(number: int) -> Callable[[], None] | None:
    """Return what a child does first so that it gets the signal `number` when its parent ends, however that ends; None but on Linux."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl  # found here: after a fork little may be done
    return lambda: prctl(_PR_SET_PDEATHSIG, number) and None


def end_with(parent: int) -> None:
    """Have this process killed when the one that began it, `parent`, ends, however that ends; at once where it has."""
    if (die := dying_with_parent(signal.SIGKILL)) is not None:
        die()
        if os.getppid() != parent:
            os._exit(1)


@contextlib.contextmanager
def patient_threads() -> Iterator[None]:
    """Have processes that are begun in here with as many threads each as there are cores wait without turning.

    GNU's OpenMP has them turn on a core while they wait, which is another process's: two then took three times as long as need be.
    """
    before = {name: os.environ.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    os.environ |= {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def without_interrupts() -> Iterator[None]:
    """Have processes that are begun in here never get Ctrl-C: a terminal sends it to all of them, and the one that began them ends them.

    A process inherits what is blocked from its first instruction on, so that none prints a traceback while it still imports.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def relayed(batches: Iterator[T]) -> Iterator[T]:
    """Yield what loaders' processes made; an error meant for users comes out of them as it was, without their traceback.

    Raises:
        RisbenchError: a loader raised one.
    """
    try:
        yield from batches
    except RisbenchError as error:
        # PyTorch puts a whole traceback into the message of an error that it brings over
        raise type(error)(str(error).rstrip().splitlines()[-1].removeprefix(f"{type(error).__module__}.{type(error).__name__}: ")) from None


@contextlib.contextmanager
def ended_at_once(pool: ProcessPoolExecutor) -> Iterator[ProcessPoolExecutor]:
    """Wait for a pool's workers where all went well; else kill them, which leaves undone only what their caller had not got yet."""
    try:
        yield pool
    except BaseException:
        workers = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.kill()
        raise
    pool.shutdown()


@contextlib.contextmanager
def collecting_rarely() -> Iterator[None]:
    """Look for reference cycles rarely, for work that makes millions of objects and hardly a cycle: a third of ingest's time otherwise."""
    before = gc.get_threshold()
    gc.set_threshold(200_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
