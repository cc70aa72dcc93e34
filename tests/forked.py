"""The command line in forks of a process that has imported it once: a kill a second instead of one every three.

Started as `python tests/forked.py` it reads a JSON list of words a line, runs `risbench` with them in a fork (a session of its own, so that
its workers can be killed with it), and answers with the fork's pid, and once it has ended with its exit code and what it wrote to stderr.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any


class Forked:
    """The process that forks, and one running command at a time."""

    def __init__(self, cwd: Path) -> None:
        """Start it in a folder; its forks run there, all with one seed of hashes."""
        self._running: int | None = None
        pipe = subprocess.PIPE
        root = Path(__file__).parents[1]
        # -P: the folder of this file holds tests/inspect, which is not the standard library's module
        self._process = subprocess.Popen([sys.executable, "-P", str(Path(__file__).resolve())], cwd=cwd, stdin=pipe, stdout=pipe, text=True,
                                         env={**os.environ, "PYTHONPATH": str(root)})  # fmt: skip

    def __enter__(self) -> Forked:
        """Return it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End it, and what still runs."""
        assert self._process.stdin is not None
        if self._running is not None:
            self.kill(self._running)
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def start(self, words: list[str]) -> int:
        """Run the command line with these words and return its pid."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        self._running = int(self._answer()["pid"])
        return self._running

    def runs(self, pid: int) -> bool:
        """Return whether it still runs."""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self, pid: int) -> None:
        """Kill it and its workers at once, as `kill -9` does; where it has ended meanwhile nothing is done."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)

    def ended(self) -> tuple[int, str]:
        """Wait for it and return its exit code (minus the signal that killed it) and its stderr."""
        answer = self._answer()
        self._running = None
        return int(answer["code"]), str(answer["stderr"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process that forks has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer


def _serve() -> None:
    import risbench.export
    import risbench.ingest
    import risbench.refine  # noqa: F401 - what the commands would import
    from risbench.cli.app import main

    answers = os.fdopen(os.dup(1), "w")
    for line in iter(sys.stdin.readline, ""):
        with tempfile.TemporaryFile() as errors:
            pid = os.fork()
            if pid == 0:
                os.setsid()
                nothing = os.open(os.devnull, os.O_RDWR)
                os.dup2(nothing, 0)
                os.dup2(nothing, 1)
                os.dup2(errors.fileno(), 2)
                sys.argv = ["risbench", *json.loads(line)]
                main()
                os._exit(0)
            print(json.dumps({"pid": pid}), file=answers, flush=True)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            errors.seek(0)
            print(json.dumps({"code": code, "stderr": errors.read().decode(errors="replace")}), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
