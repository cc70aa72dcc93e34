"""The library of disk.c: built with the system's compiler, loaded before everything else, and told which call is to fail."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CALLS: Final = ("open", "read", "write", "fsync", "rename", "mkdir", "unlink", "truncate", "close", "stat", "list", "link", "mmap", "connect", "change")  # fmt: skip
ONCE, FROM_THEN_ON, SHORT, KILL = range(4)
_LIBRARY: Final = "disk.so"


class NoCompiler(Exception):
    """There is none, or it does not build for this system."""


def build(folder: Path) -> Path:
    """Build the library into a folder and return it.

    Raises:
        NoCompiler: cc, gcc and clang are missing, or what they say.
    """
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        raise NoCompiler("no C compiler (cc, gcc or clang) on the PATH; install one, as gcc of your system's packages")
    library = folder / _LIBRARY
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(Path(__file__).with_name("disk.c")), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoCompiler(f"{compiler} does not build disk.c (it needs Linux and glibc): {done.stderr.strip()[-300:]}")
    return library


def is_loaded() -> bool:
    """Return whether this process was started with the library."""
    return hasattr(ctypes.CDLL(None), "disk_arm")


def start_again_with(library: Path) -> None:
    """Start this very command anew with the library; it does nothing until it is armed."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTHONDONTWRITEBYTECODE"), "1")
    # one order of sets: it decides which of two writes is the n-th
    os.execve(sys.executable, sys.orig_argv, {**os.environ, **one_thread, "PYTHONHASHSEED": "0", "LD_PRELOAD": str(library)})


@dataclass(frozen=True)
class Fault:
    """The `nth` call of a kind below the watched folder: fails with `error`, is cut short, or is the one before which the process dies."""

    call: str = ""
    nth: int = 0
    error: int = 0
    mode: int = ONCE


NO_FAULT: Final = Fault()


class Disk:
    """The library in this process."""

    def __init__(self) -> None:
        """Find it."""
        self._library = ctypes.CDLL(None)
        self._library.disk_where.restype = ctypes.c_char_p
        self._library.disk_count.restype = self._library.disk_fired.restype = ctypes.c_long

    def arm(self, folder: Path, fault: Fault = NO_FAULT) -> None:
        """Count this process's calls below a folder from now on, and let one of them meet its fault."""
        call = CALLS.index(fault.call) if fault.call else -1
        self._library.disk_arm(os.fsencode(folder), call, ctypes.c_long(fault.nth), fault.error, fault.mode)

    def log(self, file: Path, folder: Path) -> None:
        """Log what changes names below the watched folder, and keep the bytes of what is synced in another folder."""
        self._library.disk_log(os.fsencode(file), os.fsencode(folder))

    def counts(self) -> dict[str, int]:
        """Return how many calls of each kind there were."""
        return {name: self._library.disk_count(number) for number, name in enumerate(CALLS)}

    def fired(self) -> int:
        """Return how many calls met the fault."""
        return int(self._library.disk_fired())

    def where(self) -> str:
        """Return the call that met it first."""
        return os.fsdecode(self._library.disk_where())
