"""`risbench weights`: what can be fetched, fetching it so that it can stop anywhere, and checking what lies there.

Needs no extra: weights are often fetched on a machine that will never run them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO, Final

import requests

from risbench.core.errors import BusyError, InputError, MissingRequirementError, OptionError
from risbench.core.progress import Progress
from risbench.core.reading import parse_toml
from risbench.core.storage import sha256_of_file, write_durably

ENVIRONMENT: Final = "RISBENCH_WEIGHTS"
_ATTEMPTS: Final = 5
# Small: what a broken connection had begun of a chunk is lost with it.
_CHUNK: Final = 1 << 16
_TIMEOUT_S: Final = (10.0, 60.0)
_WAIT_S: Final = 0.5
_MISSING: Final = frozenset({401, 403, 404, 410, 451})


@dataclass(frozen=True)
class Weights:
    """One file of the manifest. `bytes` is 0 and `sha256` empty where the publisher states neither."""

    name: str
    file: str
    url: str
    bytes: int
    sha256: str
    licence: str
    use: str
    citation: str
    md5: str = ""


def read_manifest(path: Path | None = None) -> dict[str, Weights]:
    """Return the weights of a manifest by name; without `path` that of the package.

    Raises:
        InputError: a field is missing, unknown or of the wrong kind.
    """
    text = path.read_text(encoding="utf-8") if path else (resources.files("risbench.sam") / "weights.toml").read_text(encoding="utf-8")
    where = str(path) if path else "weights.toml"
    try:
        tables = parse_toml(text)
        found = {name: Weights(name=name, **table) for name, table in tables.items()}
    except (ValueError, TypeError) as error:
        raise InputError(f"{where}: {error}") from None
    for item in found.values():
        if not re.fullmatch(r"[0-9a-f]{64}|", item.sha256) or Path(item.file).name != item.file or not isinstance(item.bytes, int):
            raise InputError(f"{where}: {item.name}: sha256 must be 64 hexadecimal digits or empty, file a plain name, bytes a number")
    return found


def weights_folder(folder: Path | str | None = None) -> Path:
    """Return where weights lie: `folder`, else $RISBENCH_WEIGHTS (a team's shared folder), else the user's cache."""
    if folder is not None:
        return Path(folder)
    if os.environ.get(ENVIRONMENT):
        return Path(os.environ[ENVIRONMENT])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "risbench" / "weights"


def list_weights(*, folder: Path | str | None = None, manifest: Path | None = None) -> dict[str, Any]:
    """Return every file of the manifest with whether it is here, whole by its size; nothing is read or fetched."""
    place = weights_folder(folder)
    rows = []
    for item in read_manifest(manifest).values():
        path = place / item.file
        size = path.stat().st_size if path.is_file() else None
        part = _part(path).stat().st_size if _part(path).is_file() else 0
        state = "missing" if size is None else "wrong size" if item.bytes and size != item.bytes else "here"
        rows.append({**vars(item), "state": f"begun, {part} bytes" if size is None and part else state, "path": str(path)})
    return {"folder": str(place), "weights": rows}


def verify_weights(names: Iterable[str] = (), *, folder: Path | str | None = None, manifest: Path | None = None) -> dict[str, Any]:
    """Read the files that are here and compare their sha256; `faults` counts those that are not what they should be.

    Raises:
        OptionError: a name that the manifest does not hold.
    """
    place = weights_folder(folder)
    chosen = list(names)
    rows = []
    for item in _chosen(read_manifest(manifest), chosen):
        path = place / item.file
        if not path.is_file():
            if chosen:
                rows.append({"name": item.name, "path": str(path), "state": "missing", "sha256": None})
            continue
        digest, expected = sha256_of_file(path), item.sha256 or _noted(path)
        good = "whole" if item.sha256 else "as it was fetched; its publisher states no sha256"
        state = "unknown" if expected is None else good if digest == expected else "damaged"
        rows.append({"name": item.name, "path": str(path), "state": state, "sha256": digest})
    return {"folder": str(place), "weights": rows, "faults": sum(row["state"] in ("missing", "damaged") for row in rows)}


def fetch_weights(
    names: Iterable[str],
    *,
    folder: Path | str | None = None,
    mirror: str | None = None,
    manifest: Path | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Fetch weights into the folder; what is there and whole is left, what was begun goes on.

    `mirror` is another address, or a folder, that holds the files by their names.

    Raises:
        OptionError: a name that the manifest does not hold.
        InputError: what came is not the file: another size, another sha256, a web page.
        MissingRequirementError: the folder cannot be written, or there is no way to the server.
        BusyError: the server is busy or breaks off, or another process fetches the same file.
    """
    place = weights_folder(folder)
    chosen = list(names)
    if not chosen:
        raise OptionError("weights fetch: name at least one of " + ", ".join(read_manifest(manifest)))
    items = _chosen(read_manifest(manifest), chosen)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MissingRequirementError(
            f"{place}: cannot be made ({error.strerror}); choose another with --folder or ${ENVIRONMENT}"
        ) from None
    rows = [_fetch(item, place, mirror, quiet) for item in items]
    return {"folder": str(place), "weights": rows}


def _chosen(known: dict[str, Weights], names: list[str]) -> list[Weights]:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise OptionError(f"weights: {unknown[0]!r} is not in the manifest; it holds {', '.join(known)}")
    return [known[name] for name in names] if names else list(known.values())


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _noted(path: Path) -> str | None:
    return _note(path).read_text(encoding="utf-8").split()[0] if _note(path).is_file() else None


def _fetch(item: Weights, place: Path, mirror: str | None, quiet: bool) -> dict[str, Any]:
    path = place / item.file
    if path.is_file():
        expected, digest = item.sha256 or _noted(path), sha256_of_file(path)
        if expected not in (None, digest):
            raise InputError(f"{path}: sha256 is {digest}, not {expected}; it is damaged or another file: move it away and fetch again")
        return {"name": item.name, "path": str(path), "state": "was here", "sha256": digest}
    with _only_writer(_part(path)) as file:
        if path.is_file():  # another process finished it while this one waited for the lock
            return {"name": item.name, "path": str(path), "state": "was here", "sha256": sha256_of_file(path)}
        if mirror is not None and "://" not in mirror:
            _copy(Path(mirror) / item.file, file)
        else:
            address = item.url if mirror is None else f"{mirror.rstrip('/')}/{item.file}"
            with Progress(f"fetch {item.name}", item.bytes, quiet=quiet, of_bytes=True) as progress:
                _download(item, address, file, progress)
        file.flush()
        os.fsync(file.fileno())
        digest = _judge(item, _part(path), mirror)
        os.replace(_part(path), path)
    if not item.sha256:
        write_durably(_note(path), f"{digest}  {path.name}\n".encode())
    return {"name": item.name, "path": str(path), "state": "fetched", "sha256": digest}


@contextmanager
def _only_writer(part: Path) -> Iterator[BinaryIO]:
    """Open a part for going on, so that no two processes write it."""
    try:
        file = open(part, "a+b")  # noqa: SIM115 - closed below
    except OSError as error:
        raise MissingRequirementError(
            f"{part}: cannot be written ({error.strerror}); choose another folder with --folder or ${ENVIRONMENT}"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"{part}: another process is fetching this file") from None
        yield file


def _copy(source: Path, file: BinaryIO) -> None:
    if not source.is_file():
        raise InputError(f"--mirror: {source}: there is no such file")
    file.truncate(0)
    with open(source, "rb") as opened:
        shutil.copyfileobj(opened, file, _CHUNK)


def _download(item: Weights, address: str, file: BinaryIO, progress: Progress) -> None:
    """Bring the part to its full length; a broken connection goes on where it broke, as long as anything comes."""
    failures = 0
    shown = 0
    while True:
        have = file.seek(0, os.SEEK_END)
        if item.bytes and have > item.bytes:
            file.truncate(0)
            have = 0
        progress.advance(have - shown)
        shown = have
        try:
            done = _stream(item, address, file, have, progress)
        except requests.exceptions.RequestException as error:
            reason = _reason(error)
        else:
            if done:
                return
            reason = "it ended the connection before the end"
        now = file.seek(0, os.SEEK_END)
        shown = now
        failures = 0 if now > have else failures + 1
        if failures >= _ATTEMPTS:
            kept = f"; {now} bytes are kept, the same command goes on" if now else ""
            words = f"{address}: {reason}{kept}; offline machines take --mirror FOLDER or an address inside"
            raise (BusyError(words) if now else MissingRequirementError(words))
        time.sleep(_WAIT_S * 2 ** min(failures, 4) if failures else _WAIT_S)


def _stream(item: Weights, address: str, file: BinaryIO, have: int, progress: Progress) -> bool:
    """Take one answer of the server into the part; return whether the file is whole, by all that is known of its length."""
    if item.bytes and have == item.bytes:
        return True
    # identity: a length, and a range, of the file itself and not of its compressed form
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with requests.get(address, headers=headers, stream=True, timeout=_TIMEOUT_S) as answer:
        if answer.status_code in _MISSING:
            raise InputError(f"{address}: the server answers {answer.status_code} {answer.reason}; try another address with --mirror")
        if answer.status_code == 416:
            file.truncate(0)  # what lies here is longer than the file, or as long: begin anew, the sum will tell
            return False
        answer.raise_for_status()
        start = int(match[1]) if (match := re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))) else 0
        if answer.status_code == 206 and start != have:
            raise InputError(f"{address}: asked for bytes from {have} on, the server sent from {start} on")
        if "html" in answer.headers.get("Content-Type", ""):
            raise InputError(f"{address}: a web page came instead of weights: a proxy's or a login page; open the address in a browser")
        kept = have if answer.status_code == 206 else 0
        length = answer.headers.get("Content-Length", "")
        total = kept + int(length) if length.isdigit() else 0
        _check_length(item, address, total)
        if kept != have:
            file.truncate(0)  # the server ignores ranges: take it from the start
            progress.advance(-have)
            have = 0
        taken = 0
        for chunk in answer.iter_content(_CHUNK):
            file.write(chunk)
            taken += len(chunk)
            progress.advance(len(chunk))
        file.flush()
    expected = item.bytes or total
    return have + taken == expected if expected else True


def _check_length(item: Weights, address: str, total: int) -> None:
    if item.bytes and total and total != item.bytes:
        raise InputError(f"{address}: the server has {total} bytes, {item.file} has {item.bytes}; this is another file")


def _judge(item: Weights, part: Path, mirror: str | None) -> str:
    """Return the sha256 of a whole part, or drop the part with the reason."""
    with open(part, "rb") as file:
        start = file.read(256).lstrip().lower()
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    whence = mirror or item.url
    size = part.stat().st_size
    if start.startswith((b"<!doctype", b"<html")):
        reason = "a web page came instead of weights: a proxy's or a login page"
    elif item.bytes and size != item.bytes:
        reason = f"{size} bytes came, {item.file} has {item.bytes}"
    elif item.sha256 and digest != item.sha256:
        reason = f"sha256 is {digest}, not {item.sha256}: damaged on the way, or another file"
    else:
        return digest
    part.unlink()
    raise InputError(f"{whence}: {reason}; nothing was kept")


def _reason(error: requests.exceptions.RequestException) -> str:
    if isinstance(error, requests.exceptions.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.exceptions.Timeout):
        return f"no answer for {_TIMEOUT_S[1]:.0f} s"
    if isinstance(error, requests.exceptions.ConnectionError):
        return "no connection, or it broke off"
    return type(error).__name__
