"""Several trainings: one after another, or side by side on a CPU's threads."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from risbench.benchmark.train.run import train
from risbench.core.errors import MissingRequirementError, OptionError, RisbenchError
from risbench.core.processes import end_with, without_interrupts
from risbench.core.progress import Progress


def train_all(jobs: Sequence[Mapping[str, Any]], *, workers: int, quiet: bool) -> list[dict[str, Any]]:
    """Return what `train` returns for each of its sets of arguments, in their order.

    With more than one worker that many run at once, each with its share of PyTorch's threads; on a GPU they follow one another,
    as they would only wait for it. However this ends, no training is left running; each goes on with the same call.

    Raises:
        OptionError, InputError, MissingRequirementError: see `train`; or a training's process was killed.
    """
    if workers < 1:
        raise OptionError(f"--workers {workers}: must be at least 1")
    workers = min(workers, len(jobs))
    if workers < 2 or any(job["gpu"] for job in jobs):
        return [train(**job, quiet=quiet) for job in jobs]
    threads = max(1, torch.get_num_threads() // workers)
    # torch's threads do not survive a fork
    start = multiprocessing.get_context("spawn")
    made: dict[int, dict[str, Any]] = {}
    waiting = list(enumerate(jobs))
    running: dict[Any, tuple[int, Any]] = {}
    try:
        with Progress("train", len(jobs), quiet=quiet) as bar:
            while waiting or running:
                while waiting and len(running) < workers:
                    place, job = waiting.pop(0)
                    ours, theirs = start.Pipe(duplex=False)
                    process = start.Process(target=_trained_apart, args=(dict(job), threads, theirs, os.getpid()), daemon=True)
                    with without_interrupts():
                        process.start()
                    theirs.close()
                    running[ours] = place, process
                for ready in wait(list(running)):
                    place, process = running.pop(ready)
                    made[place] = _answer(ready, process, str(jobs[place]["out"]))
                    bar.advance(1)
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()
    return [made[place] for place in range(len(jobs))]


def _answer(ready: Any, process: Any, out: str) -> dict[str, Any]:
    try:
        found = ready.recv()
    except EOFError:
        process.join()
        raise MissingRequirementError(
            f"{out}: its training ended with exit code {process.exitcode}; the system kills what takes too much memory: try fewer --workers"
        ) from None
    process.join()
    if isinstance(found, RisbenchError):
        raise found
    answer: dict[str, Any] = found
    return answer


def _trained_apart(job: Mapping[str, Any], threads: int, answer: Connection, parent: int) -> None:
    """Train in this process, and end with the one that began it, however that ends."""
    end_with(parent)
    torch.set_num_threads(threads)
    try:
        answer.send(train(**job, quiet=True))
    except RisbenchError as error:
        answer.send(error)
