"""Several trainings: one after another, or side by side on a CPU's threads."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch

from risbench.benchmark.train import train
from risbench.core.progress import Progress


def train_all(jobs: Sequence[Mapping[str, Any]], *, workers: int, quiet: bool) -> list[dict[str, Any]]:
    """Return what `train` returns for each of its sets of arguments, in their order.

    With more than one worker that many run at once, each with its share of PyTorch's threads; on a GPU they follow one another,
    as they would only wait for it.

    Raises:
        OptionError, InputError, EnvironmentLacks: see `train`; what had not begun is not begun then.
    """
    if workers == 1 or any(job["gpu"] for job in jobs):
        return [train(**job, quiet=quiet) for job in jobs]
    threads = max(1, torch.get_num_threads() // workers)
    # torch's threads do not survive a fork
    start = multiprocessing.get_context("spawn")
    made: list[dict[str, Any]] = []
    with (
        Progress("train", len(jobs), quiet=quiet) as bar,
        ProcessPoolExecutor(workers, mp_context=start, initializer=torch.set_num_threads, initargs=(threads,)) as pool,
    ):
        waiting = [pool.submit(_train, dict(job)) for job in jobs]
        try:
            for one in waiting:
                made.append(one.result())
                bar.advance(1)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return made


def _train(job: Mapping[str, Any]) -> dict[str, Any]:
    return train(**job, quiet=True)
