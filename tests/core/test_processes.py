"""Worker processes: an interrupted command ends at once, says one line, and leaves none behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from risbench.cli.base import SafeGroup, interrupts
from risbench.core.errors import InputError, MissingRequirementError
from risbench.core.processes import ended_at_once, relayed, without_interrupts


def test_a_pool_ends_with_its_command_and_not_when_its_work_is_done() -> None:
    began = time.monotonic()
    workers: list[Any] = []

    def interrupted() -> None:
        with ended_at_once(ProcessPoolExecutor(2, mp_context=get_context("spawn"))) as pool:
            for _ in range(4):
                pool.submit(time.sleep, 600)
            workers.extend(pool._processes.values())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(workers) == 2
    while any(worker.exitcode is None for worker in workers) and time.monotonic() - began < 60:
        time.sleep(0.05)  # the pool's own thread may be the one that heard of an end, a moment before it says so
    assert [worker.exitcode for worker in workers] == [-signal.SIGKILL] * 2
    assert time.monotonic() - began < 60, "not the ten minutes of its work"


def test_workers_hear_no_interrupt_of_a_terminal_from_their_first_moment_on() -> None:
    with ended_at_once(ProcessPoolExecutor(1, mp_context=get_context("spawn"))) as pool:
        with without_interrupts():
            answer = pool.submit(os.getpid)
        for worker in pool._processes.values():
            os.kill(worker.pid or 0, signal.SIGINT)  # while it starts
        first = answer.result()
        os.kill(first, signal.SIGINT)
        assert pool.submit(os.getpid).result() == first


def test_an_error_of_a_loaders_process_is_one_line_again() -> None:
    for kind in (InputError, MissingRequirementError):

        def batches(kind: type[Exception] = kind) -> Iterator[int]:
            yield 1
            trace = f"Caught {kind.__name__} in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File x"
            raise kind(f"{trace}\nrisbench.core.errors.{kind.__name__}: images/a.png: is gone; run ingest again\n")

        with pytest.raises(kind) as caught:
            list(relayed(batches()))
        assert str(caught.value) == "images/a.png: is gone; run ingest again"
    with pytest.raises(InputError, match=r"^one line: as it was$"):
        list(relayed(iter(_raising())))


def _raising() -> Iterator[int]:
    raise InputError("one line: as it was")
    yield 0


def test_an_interrupt_that_a_library_makes_an_error_of_its_own_is_still_one(monkeypatch: pytest.MonkeyPatch) -> None:
    app = typer.Typer(cls=SafeGroup)

    @app.command()
    def export() -> None:
        try:
            interrupts.handle(signal.SIGINT, None)
        except KeyboardInterrupt:
            raise ImportError("numpy.core.multiarray failed to import") from None

    @app.command()
    def other() -> None:
        raise ImportError("a bug")

    monkeypatch.setattr(interrupts, "came", False)
    assert isinstance(CliRunner().invoke(app, ["other"]).exception, ImportError), "what is no interrupt stays a traceback"
    done = CliRunner().invoke(app, ["export"])
    assert done.exit_code == 130
    assert done.stderr == "risbench: interrupted; the same command goes on from here\n"


def test_ctrl_c_before_anything_is_done_is_one_line() -> None:
    code = "import os, signal, sys; from risbench.cli import app as cli; sys.argv = ['risbench', 'doctor']; cli.app = lambda: os.kill(os.getpid(), signal.SIGINT)\ntry: cli.main()\nexcept KeyboardInterrupt: print('interrupted')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "interrupted\n"
