"""Label Studio's own Python environment: made where it is missing, kept at the tested versions; somebody else's is left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from risbench.core.errors import MissingRequirementError, printable
from risbench.core.progress import Progress
from risbench.core.storage import locked, sha256_of_file, write_durably

REQUIREMENTS: Final = Path(__file__).with_name("label_studio.txt")
_STAMP: Final = "risbench-requirements.sha256"
# There while risbench makes an environment: what a killed run has begun is its own.
_UNFINISHED: Final = "risbench-unfinished"
# Another version of these behaves otherwise; of the rest it is said.
_NEEDED: Final = ("label-studio", "label-studio-sdk")
_VERSIONS: Final = """
import json, importlib.metadata as metadata
print(json.dumps({d.metadata["Name"].lower().replace("_", "-").replace(".", "-"): d.version for d in metadata.distributions()}))
"""


def default_environment() -> Path:
    """Return where risbench's own environment for the server lies: beside the one that risbench runs in, or at home."""
    if sys.prefix != sys.base_prefix:
        return Path(sys.prefix).resolve().parent / ".venv-label-studio"
    return Path.home() / ".local" / "share" / "risbench" / "label-studio"


def server_python(given: Path | str | None, *, quiet: bool = False) -> tuple[Path, list[str]]:
    """Return the Python of the server's environment, and what is odd about it: `given`, $RISBENCH_LABEL_STUDIO_ENV, or risbench's own.

    An environment that is given is used as it is and never written to, where there is one; risbench's own is brought to the tested
    versions. A link leads to somebody else's.

    Raises:
        MissingRequirementError: a given one has other versions, or pip could not make one.
    """
    chosen = given or os.environ.get("RISBENCH_LABEL_STUDIO_ENV")
    folder = Path(chosen) if chosen else default_environment()
    if (chosen or folder.is_symlink()) and not _is_free(folder):
        return _as_it_is(folder)
    return make_environment(folder, quiet=quiet), []


def _is_free(folder: Path) -> bool:
    """Return whether risbench may make an environment there: nothing is there yet, or what a killed run of it has begun."""
    return not folder.exists() or (folder / _UNFINISHED).exists() or (folder.is_dir() and not any(folder.iterdir()))


def _as_it_is(folder: Path) -> tuple[Path, list[str]]:
    """Return the Python of an environment that somebody else made, and which versions differ from the tested ones."""
    python, own = folder / "bin" / "python", "--environment FOLDER with a folder that does not exist yet makes one of your own (about 1 GB)"
    if _is_current(folder, python):
        return python, []
    done = subprocess.run([str(python), "-I", "-c", _VERSIONS], capture_output=True, text=True, check=False) if python.exists() else None
    if done is None or done.returncode:
        raise MissingRequirementError(f"{folder}: is no Python environment with Label Studio, and is not written to; {own}")
    try:
        there: dict[str, str] = json.loads(done.stdout)
    except ValueError:
        raise MissingRequirementError(f"{folder}: its Python says {printable(done.stdout, 60)}; {own}") from None
    differ = {name: (there.get(name), version) for name, version in tested_versions().items() if there.get(name) != version}
    wrong = [f"{name} {differ[name][0] or 'missing'} where {differ[name][1]} is needed" for name in _NEEDED if name in differ]
    if wrong:
        raise MissingRequirementError(f"{folder}: {', '.join(wrong)}; risbench does not change an environment that it was given: {own}")
    some = ", ".join(f"{name} {has or 'missing'} (tested: {wanted})" for name, (has, wanted) in list(differ.items())[:3])
    return python, [f"{folder}: other versions than the tested ones ({len(differ)}): {some}"] if differ else []


def tested_versions() -> dict[str, str]:
    """Return the tested version of every package of the environment."""
    pins = [line.split("==") for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines() if "==" in line]
    return {name.lower().replace("_", "-").replace(".", "-"): version.strip() for name, version in pins}


def _is_current(folder: Path, python: Path) -> bool:
    stamp = folder / _STAMP
    return (
        stamp.exists() and stamp.read_text(encoding="utf-8", errors="replace").strip() == sha256_of_file(REQUIREMENTS) and python.exists()
    )


def make_environment(folder: Path, *, quiet: bool = False) -> Path:
    """Return the Python of risbench's own environment, made or brought to the tested versions first (about 1 GB, some minutes).

    Raises:
        MissingRequirementError: pip could not install it.
    """
    python = folder / "bin" / "python"
    if _is_current(folder, python):
        return python
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / _UNFINISHED, b"")
    with locked(folder, "review serve"), Progress(f"making {folder} (about 1 GB)", 0, quiet=quiet):
        for command in (
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(REQUIREMENTS)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                said = (done.stderr.strip() or done.stdout.strip()).splitlines()
                raise MissingRequirementError(f"{folder}: `{' '.join(command[1:4])} ...` failed: {said[-1] if said else done.returncode}")
        write_durably(folder / _STAMP, (sha256_of_file(REQUIREMENTS) + "\n").encode())
        (folder / _UNFINISHED).unlink()
    return python
