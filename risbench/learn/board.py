"""TensorBoard's log of a training."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


@contextlib.contextmanager
def training_board(folder: Path, first_step: int, *, wanted: bool = True) -> Iterator[SummaryWriter | None]:
    """Open the log, or none where it is not `wanted`; what an earlier run logged from `first_step` on is dropped.

    Its writer has a thread of its own, which keeps a failed write for the next call to raise: that is told once, without the thread's
    traceback.

    Raises:
        OSError: the log cannot be written.
    """
    if not wanted:
        yield None
        return
    before = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        if getattr(failed.thread, "exception", None) is not failed.exc_value:
            before(failed)

    threading.excepthook = hook
    try:
        with SummaryWriter(str(folder), purge_step=first_step) as board:
            yield board
            board.flush()  # raises what the thread could not write; closing does not
    finally:
        threading.excepthook = before
